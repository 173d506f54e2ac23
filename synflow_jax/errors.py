"""What is checked before anything runs, and how the library says no."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from synflow_jax.tree import is_floating, named_leaves


class CollapseWarning(UserWarning):
    """The flow died, or must die: the network as pruned computes a constant."""


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is a tracer, so that its value cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def check_rho(rho: Any) -> None:
    """Refuse what is no compression ratio: prunable weights before over after, at least 1."""
    if is_traced(rho):
        if rho.shape != () or not is_floating(rho):
            raise TypeError(f"rho must be a floating scalar, got a traced {rho.dtype}{rho.shape}")
        return
    try:
        value = float(rho)
    except (TypeError, ValueError) as error:
        raise TypeError(f"rho must be a number, at least 1, got {rho!r}") from error
    if not math.isfinite(value):
        raise ValueError(f"rho must be a finite number, at least 1, got {value}")
    if value < 1:
        hint = f"; for the density {value:g} pass rho={1 / value:g}" if value > 0 else ""
        raise ValueError(
            f"rho must be at least 1, got {value:g}: it is the compression ratio, "
            f"weights before over weights after{hint}"
        )


def check_rounds(rounds: Any) -> None:
    """Refuse a number of rounds that is no positive whole number."""
    if not isinstance(rounds, int) or isinstance(rounds, bool):
        raise TypeError(f"rounds must be an int, got {type(rounds).__name__}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")


def check_masks(params: Any, masks: Any, name: str = "masks") -> None:
    """Refuse masks that do not fit the params leaf by leaf."""
    if jax.tree.structure(params) != jax.tree.structure(masks):
        raise ValueError(
            f"{name} must have the tree structure of params: params is "
            f"{jax.tree.structure(params)}, {name} is {jax.tree.structure(masks)}"
        )
    pairs = zip(named_leaves(params), jax.tree.leaves(masks), strict=True)
    for (path, leaf), mask in pairs:
        if getattr(mask, "dtype", None) != jnp.bool_:
            found = getattr(mask, "dtype", type(mask).__name__)
            raise TypeError(f"{name} must be bool arrays (True = keep): {path!r} is {found}")
        if tuple(mask.shape) != tuple(leaf.shape):
            raise ValueError(
                f"{name} must have the shapes of params: {path!r} is {tuple(leaf.shape)} "
                f"in params and {tuple(mask.shape)} in {name}"
            )


def check_key(key: Any) -> None:
    """Refuse what is no random key."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise TypeError(f"key must be a random key such as jax.random.key(0), got {key!r}")


@jax.jit
def _all_finite(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]


def check_finite(params: Any) -> None:
    """Refuse params with NaN or infinity, by name; tracers cannot be looked at and pass."""
    pairs = [(path, leaf) for path, leaf in named_leaves(params) if is_floating(leaf)]
    finite = _all_finite([leaf for _, leaf in pairs])
    if is_traced(finite):
        return
    bad = [path for (path, _), good in zip(pairs, finite, strict=True) if not good]
    if bad:
        raise ValueError(f"params must be finite: NaN or infinity in {', '.join(bad)}")
