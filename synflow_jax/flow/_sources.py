"""Sources: leaves that are added to a signal, so that flow starts there as well as at the input."""

from typing import Any

import jax.numpy as jnp

from synflow_jax.trees import Inputs, Params, is_weight, named_leaves, pick, place

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


def without_sources(params: Params, prunable: tuple[bool, ...], inputs: Inputs) -> Params:
    """Set the sources that are not prunable to 0, so that all flow starts at the input.

    If all inputs are whole numbers, the embedding that they look up acts as the input and stays.

    Args:
      params: any pytree of arrays.
      prunable: a flag for each leaf; prunable leaves stay.
      inputs: the inputs of the network.
    """
    pairs = zip(named_leaves(params), prunable, strict=True)
    sources = tuple(
        is_source(path, leaf)
        and not stays
        and not (inputs.discrete and path.split("/")[-1] == "embedding")
        for (path, leaf), stays in pairs
    )
    zeros = [jnp.zeros_like(leaf) for leaf in pick(params, sources)]
    return place(params, sources, zeros, lambda leaf: leaf)
