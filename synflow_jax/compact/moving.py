"""Which entries of the params are, or may become, other than 0."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax._types import ApplyFn, Masks, Params
from synflow_jax.tree import is_floating

PROBES = 2


def may_move(params: Params, masks: Masks, apply_fn: ApplyFn, x: Any) -> list[np.ndarray]:
    """Say of every entry whether it is, or may become, other than 0; a bool array a leaf.

    Training moves a kept entry that is 0 where its gradient is not: that is seen on some inputs.
    """
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True))
    floating = [is_floating(leaf) for leaf, _ in pairs]
    found = [
        np.asarray(leaf) != 0 if hit else np.ones(leaf.shape, bool)
        for (leaf, _), hit in zip(pairs, floating, strict=True)
    ]
    gradients = _gradients_of(params, floating, apply_fn, x)
    for probe in range(PROBES):
        seen = iter(gradients(jax.random.key(probe)))
        found = [
            old | (np.asarray(next(seen)) != 0) if hit else old
            for old, hit in zip(found, floating, strict=True)
        ]
    return [new & np.asarray(mask) for new, (_, mask) in zip(found, pairs, strict=True)]


def _gradients_of(params: Params, floating: list[bool], apply_fn: ApplyFn, x: Any) -> Any:
    """Build gradients(key): of some sum of the outputs, on some input, by the floating leaves."""
    leaves, treedef = jax.tree.flatten(params)

    def total(weights: list[Any], key: jax.Array) -> jax.Array:
        own, keys = iter(weights), jax.random.split(key)
        tree = [next(own) if hit else leaf for leaf, hit in zip(leaves, floating, strict=True)]
        outputs = jax.tree.leaves(apply_fn(treedef.unflatten(tree), _drawn(keys[0], x)))
        outputs = [y.astype(jnp.float32) for y in outputs if is_floating(y)]
        pairs = zip(outputs, _drawn(keys[1], outputs), strict=True)
        return jnp.stack([jnp.sum(y * one) for y, one in pairs]).sum()

    weights = [leaf for leaf, hit in zip(leaves, floating, strict=True) if hit]
    return partial(jax.jit(jax.grad(total)), weights)


def _drawn(key: jax.Array, tree: Any) -> Any:
    """Draw floating leaves from a normal distribution, and leave the others."""
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    pairs = zip(keys, leaves, strict=True)
    return treedef.unflatten(
        [jax.random.normal(k, x.shape, x.dtype) if is_floating(x) else x for k, x in pairs]
    )
