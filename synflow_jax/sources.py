"""Sources: the leaves at which flow starts beside the input, and params without them."""

from typing import Any

import jax.numpy as jnp

from synflow_jax._types import Params
from synflow_jax.tree import is_floating, named_leaves, pick, place

SOURCES = frozenset({"mean", "embedding", "pos_embedding", "cls"})
FACTORS = frozenset({"scale", "var", "gamma", "weight_norm"})


def is_source(path: str, leaf: Any) -> bool:
    """Whether a leaf is added to the signal, so that flow starts there: a bias, a mean, ….

    By its name, or by having fewer than two axes and no name of a factor (scale, var, gamma).
    """
    name = path.split("/")[-1]
    return is_floating(leaf) and (name in SOURCES or (leaf.ndim < 2 and name not in FACTORS))


def without_sources(params: Params, chosen: tuple[bool, ...]) -> Params:
    """Set biases, means and whatever else starts flow to 0, but for the chosen leaves."""
    pairs = zip(named_leaves(params), chosen, strict=True)
    sources = tuple(is_source(path, leaf) and not hit for (path, leaf), hit in pairs)
    zeros = [jnp.zeros_like(leaf) for leaf in pick(params, sources)]
    return place(params, sources, zeros, lambda leaf: leaf)
