"""The critical compression of one method on one network, and the picture of many."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.common.files import replacing
from experiments.common.imp import as_given
from experiments.common.methods import METHODS, ROUNDS, TEMPERATURE, Network, OutOfReachError
from experiments.common.plot import LOOK, STYLES
from experiments.common.rows import Row
from synflow_jax import (
    CollapseWarning,
    UncertifiedWarning,
    critical_compression,
    cross_entropy,
    grasp_saliency,
    max_compression,
    prune,
    snip_saliency,
)

ONCE = {"snip", "grasp"}  # one round: the scores are the same at every ρ


def rounds(method: str, asked: int | None) -> int:
    """How often a method scores and prunes."""
    return asked or ROUNDS.get(method, 1)


def find(network: Network, method: str, tolerance: float, asked: int | None = None) -> Row:
    """Find the critical compression of a method on a network.

    Args:
      network: the network at its initialisation.
      method: a name of `METHODS`.
      tolerance: decades of ρ at which the search ends.
      asked: rounds; None is 100 for SynFlow and 1 for the others.

    Returns:
      log10 ρ_cr, log10 ρ_max and the seconds that it took.
    """
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        warnings.simplefilter("ignore", UncertifiedWarning)
        masks_at = _masks_at(network, method, rounds(method, asked))
        found = critical_compression(masks_at, network.params, tolerance=tolerance)
    return {
        "log10_rho_cr": round(math.log10(found), 4),
        "log10_rho_max": round(math.log10(max_compression(network.params)), 4),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _masks_at(network: Network, method: str, count: int) -> Callable[[float], Any]:
    """Build ρ -> masks; what is scored once is scored here."""
    if method == "synflow-certified":
        return lambda rho: _reached(network, rho)
    if method not in ONCE or count > 1:
        return lambda rho: METHODS[method](network, rho, count)
    loss = cross_entropy(network.apply_fn, 1.0 if method == "snip" else TEMPERATURE)
    saliency = (snip_saliency if method == "snip" else grasp_saliency)(loss, network.batches)
    scores = saliency(network.params, _all(network, True))
    return lambda rho: prune(scores, as_given, rho, 1)[0]


def _reached(network: Network, rho: float) -> Any:
    """Prune with the certified schedule; a ρ that it refuses is one that it does not bear."""
    try:
        return METHODS["synflow-certified"](network, rho, 1)
    except OutOfReachError:
        return _all(network, False)


def _all(network: Network, value: bool) -> Any:
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value), network.params)


def draw(rows: Sequence[Row], paper: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a panel a network, a line a method, a point a seed, to a PNG file.

    Args:
      rows: what was found.
      paper: the paper's numbers, drawn as crosses in the panel of the same network.
      path: the file.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    with mpl.rc_context(LOOK):
        size = (1.4 + 3.0 * len(models), 3.4)
        picture = Figure(figsize=size, layout="constrained")
        every = picture.subplots(1, len(models), sharey=True, squeeze=False)[0]
        names = [name for name in STYLES if any(row["method"] == name for row in rows)]
        for axes, model in zip(every, models, strict=True):
            _panel(axes, [row for row in rows if row["model"] == model], names)
            _crosses(axes, [row for row in paper if row["model"] == model], names)
            axes.set(title=f"{model}, {rows[0]['dataset']}", xlim=(0, None))
            axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=r"$\log_{10}\ \rho_{cr}$")
        every[0].set_yticks(range(len(names)), names)
        picture.suptitle("The largest compression without an empty layer, a point a seed")
        with replacing(path) as temporary:
            picture.savefig(temporary, dpi=150)


def _panel(axes: Any, rows: Sequence[Row], names: Sequence[str]) -> None:
    for height, name in enumerate(names):
        found = [row["log10_rho_cr"] for row in rows if row["method"] == name]
        spread = [height + 0.5 * (index / max(len(found), 2) - 0.4) for index in range(len(found))]
        axes.plot(found, spread, "o", color=STYLES[name][0], ms=4, alpha=0.6, mec="none")
    axes.axvline(rows[0]["log10_rho_max"], color="black", ls="--", lw=1)
    axes.grid(alpha=0.25, axis="x")


def _crosses(axes: Any, paper: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    known = [row for row in paper if row["method"] in names]
    if known:
        xs = [row["log10_rho_cr"] for row in known]
        ys = [names.index(row["method"]) + 0.1 * (row["run"] - 2) for row in known]
        label = "the paper's, CIFAR-100"
        axes.plot(xs, ys, "x", color="black", ms=6, alpha=0.6, label=label)
        axes.legend(frameon=False, fontsize=7, loc="lower right")
