"""Sources: the leaves at which flow starts beside the input, and params without them."""

from typing import Any

import jax.numpy as jnp

from synflow_jax.trees import Inputs, Params, is_floating, named_leaves, pick, place

SOURCES = frozenset({"mean", "embedding", "pos_embedding", "cls"})
FACTORS = ("scale", "var", "gamma", "weight", "gain", "alpha")  # parts of a name


def is_source(path: str, leaf: Any) -> bool:
    """Whether a leaf is added to the signal, so that flow starts there: a bias, a mean, ….

    By its name, or by having one axis and no name of a factor (scale, var, gamma, weight, gain,
    alpha); a single number is a factor.
    """
    name = path.split("/")[-1]
    factor = leaf.ndim == 0 or any(part in name for part in FACTORS)
    return is_floating(leaf) and (name in SOURCES or (leaf.ndim < 2 and not factor))


def without_sources(params: Params, chosen: tuple[bool, ...], inputs: Inputs) -> Params:
    """Set biases, means and whatever else starts flow to 0, but for the chosen leaves.

    Where all inputs are whole numbers, the embedding that they look up is the input, and stays.
    """
    pairs = zip(named_leaves(params), chosen, strict=True)
    sources = tuple(
        is_source(path, leaf)
        and not hit
        and not (inputs.discrete and path.split("/")[-1] == "embedding")
        for (path, leaf), hit in pairs
    )
    zeros = [jnp.zeros_like(leaf) for leaf in pick(params, sources)]
    return place(params, sources, zeros, lambda leaf: leaf)
