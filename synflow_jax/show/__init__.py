"""Tables and pictures of pruned networks, for a terminal, a notebook or a file.

Knows how results are laid out; measures nothing itself.
"""

from synflow_jax.show._drawing import Layer as Layer
from synflow_jax.show._drawing import Network as Network
from synflow_jax.show._drawing import draw as draw
from synflow_jax.show._report import Report as Report
from synflow_jax.show._report import report as report
from synflow_jax.show._summary import Summary as Summary
from synflow_jax.show._summary import summary as summary
from synflow_jax.show._visualize import visualize as visualize

__all__ = [
    "Report",
    "Summary",
    "report",
    "summary",
    "visualize",
]
