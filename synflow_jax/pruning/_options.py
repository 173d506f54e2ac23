"""The options that the methods share with `prune`, typed, so that editors complete them."""

from typing import Any, TypedDict

from synflow_jax.plan import Certified
from synflow_jax.trees import Pattern, Prunable, Schedule, Scope


class Choice(TypedDict, total=False):
    """What may be pruned, and in which units; each key is described at `prune`.

    Attributes:
      min_keep: how many weights each layer keeps at least, 0 by default.
      pattern: which weights stay or go together; single weights by default.
      prunable: (path, leaf) -> bool. None, the default, takes the kernels that the trace of the
        network, or of the loss, shows; where there is neither (`magnitude`, `random`), the leaves
        that `is_prunable` takes by name.
      stacked: leaves that hold several layers; empty, the default, takes those that the trace
        shows.
    """

    min_keep: Any
    pattern: Pattern
    prunable: Prunable | None
    stacked: Any


class Options(Choice, total=False):
    """When and in which competition weights are pruned; each key is described at `prune`.

    Attributes:
      schedule: the density after each round, exponential by default.
      scope: what competes; all weights of all layers by default.
      progress: whether progress is printed to stderr, False by default.
    """

    schedule: Schedule | Certified
    scope: Scope
    progress: bool


def check_options(name: str, given: Any, known: Any) -> None:
    """Refuse keyword arguments that a method does not have."""
    unknown = sorted(set(given) - set(known.__annotations__))
    if unknown:
        raise TypeError(
            f"{name}() got an unexpected keyword argument {unknown[0]!r}; beside its own it takes "
            f"{', '.join(sorted(known.__annotations__))}"
        )
