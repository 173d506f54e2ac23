"""Which entries of the params are, or may become, other than 0."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax._types import ApplyFn, Masks, Params
from synflow_jax.tree import is_floating, pick, place

PROBES = 8


def may_move(params: Params, masks: Masks, apply_fn: ApplyFn, x: Any) -> list[np.ndarray]:
    """Say of every entry whether it is, or may become, other than 0; a bool array a leaf.

    Training moves a kept entry that is 0 where its gradient is not: that is seen on some inputs and
    other values of what is not 0, and again with what was found, behind which more may move.
    """
    leaves, keep = jax.tree.leaves(params), jax.tree.leaves(masks)
    floating = tuple(map(is_floating, leaves))
    found = [np.asarray(leaf) != 0 for leaf in pick(leaves, floating)]
    gradients, before = _gradients_of(params, floating, apply_fn, x), -1
    while (now := sum(int(array.sum()) for array in found)) != before:
        before, moving = now, found
        for probe in range(PROBES):
            seen = gradients(moving, jax.random.key(probe))
            trios = zip(found, seen, pick(keep, floating), strict=True)
            found = [old | ((np.asarray(g) != 0) & np.asarray(mask)) for old, g, mask in trios]
    whole = place(leaves, floating, found, lambda leaf: np.ones(leaf.shape, bool))
    return [new & np.asarray(mask) for new, mask in zip(whole, keep, strict=True)]


def _gradients_of(params: Params, floating: tuple[bool, ...], apply_fn: ApplyFn, x: Any) -> Any:
    """Build gradients(moving, key): of some sum of the outputs, by the floating leaves.

    On some input, at the params spread by half, and at some value where they are 0 and move.
    """

    def total(weights: list[Any], key: jax.Array) -> jax.Array:
        keys = jax.random.split(key)
        tree = place(params, floating, weights, lambda leaf: leaf)
        outputs = jax.tree.leaves(apply_fn(tree, _drawn(keys[0], x)))
        outputs = [y.astype(jnp.float32) for y in outputs if is_floating(y)]
        pairs = zip(outputs, _drawn(keys[1], outputs), strict=True)
        return sum((jnp.sum(y * one) for y, one in pairs), jnp.float32(0))

    def gradients(weights: list[Any], moving: list[Any], key: jax.Array) -> list[Any]:
        keys = jax.random.split(key, 3)
        noise, starts = _drawn(keys[0], weights), _drawn(keys[1], weights)
        spread = [w * (1 + jnp.tanh(n) / 2) for w, n in zip(weights, noise, strict=True)]
        trios = zip(spread, moving, starts, strict=True)
        moved = [jnp.where((w == 0) & moves, start, w) for w, moves, start in trios]
        return jax.grad(total)(moved, keys[2])

    return partial(jax.jit(gradients), pick(params, floating))


def _drawn(key: jax.Array, tree: Any) -> Any:
    """Draw floating leaves from a normal distribution, and leave the others."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return treedef.unflatten(
        [jax.random.normal(k, x.shape, x.dtype) if is_floating(x) else x for k, x in pairs]
    )
