"""Panels side by side, for the figures without training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.draw.style import LOOK
from experiments.records.files import replacing

LABELS = {
    "random": "random",
    "magnitude": "magnitude",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
}


def panels(
    titles: Sequence[str],
    draw: Callable[[Any, int], None],
    path: Path,
    *,
    xlabel: str,
    ylabel: str,
    title: str,
    sharey: bool = True,
) -> None:
    """Draw panels side by side, to a PNG file.

    Args:
      titles: one for each panel.
      draw: draw(axes, index) fills one panel.
      path: the file.
      xlabel: label of every panel.
      ylabel: label of the first panel.
      title: title of the picture.
      sharey: whether all panels share the scale of y.
    """
    with mpl.rc_context(LOOK):
        size = (0.6 + 2.35 * len(titles), 3.1)
        picture = Figure(figsize=size, layout="constrained")
        every = picture.subplots(1, len(titles), sharey=sharey, squeeze=False)[0]
        for index, (axes, name) in enumerate(zip(every, titles, strict=True)):
            draw(axes, index)
            axes.set(title=name, xlabel=xlabel)
        every[0].set_ylabel(ylabel)
        picture.suptitle(title, fontsize=9)
        with replacing(path) as temporary:
            picture.savefig(temporary, dpi=160)
