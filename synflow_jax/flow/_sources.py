"""Sources: leaves that are added to a signal, so that flow starts there as well as at the input."""

from typing import Any

from synflow_jax.structure import Reading
from synflow_jax.trees import Params, is_weight, named_leaves

SOURCES = frozenset({"mean", "embedding", "pos_embedding", "cls"})
FACTORS = ("scale", "var", "gamma", "weight", "gain", "alpha")  # parts of names of factors


def is_source(path: str, leaf: Any) -> bool:
    """Guess from name and axes whether a leaf is added to a signal, as a bias or a mean is.

    Sources are leaves with a name in SOURCES, and leaves of one axis with no part of FACTORS in
    their name. A scalar is a factor.
    """
    name = path.split("/")[-1]
    factor = leaf.ndim == 0 or any(part in name for part in FACTORS)
    return is_weight(leaf) and (name in SOURCES or (leaf.ndim < 2 and not factor))


def only_added(params: Params, reading: Reading | None) -> list[bool]:
    """Return, for each leaf, whether the network only adds it to signals.

    The trace shows it; where there is none, names do. Such a leaf closes no branch, whatever its
    value.
    """
    if reading is not None:
        return [use.roles == {"added"} for use in reading.uses]
    # By the names of biases as well: those of attention have two axes.
    return [
        path.split("/")[-1] in ("bias", "b") or is_source(path, leaf)
        for path, leaf in named_leaves(params)
    ]
