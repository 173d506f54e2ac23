"""Params whose flow starts at the input alone."""

import jax.numpy as jnp

from synflow_jax._types import Params
from synflow_jax.diagnostics import is_source
from synflow_jax.tree import named_leaves, pick, place


def without_sources(params: Params, chosen: tuple[bool, ...]) -> Params:
    """Set biases, means and whatever else starts flow to 0, but for the chosen leaves."""
    pairs = zip(named_leaves(params), chosen, strict=True)
    sources = tuple(is_source(path, leaf) and not hit for (path, leaf), hit in pairs)
    zeros = [jnp.zeros_like(leaf) for leaf in pick(params, sources)]
    return place(params, sources, zeros, lambda leaf: leaf)
