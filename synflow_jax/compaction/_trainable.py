"""Which entries of the params are nonzero, or may become so in training."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.saliency import sum_outputs
from synflow_jax.scaled import scaled
from synflow_jax.trees import QUICK, ApplyFn, Masks, Params, is_floating, widen

PROBES = 8


def may_become_nonzero(
    params: Params, masks: Masks, apply_fn: ApplyFn, x: Any, outputs: Sequence[Any]
) -> list[np.ndarray]:
    """Find the entries that are nonzero, or may become so in training.

    Training moves a kept entry that is 0 where its gradient is not 0. Gradients are taken on random
    inputs, with the nonzero entries, and those found so far, drawn anew, until `PROBES` draws in a
    row find nothing more. Where the network has no gradient, every kept entry counts.

    Args:
      params: the pruned params.
      masks: bool tree, True = keep.
      apply_fn: the network.
      x: a batch of one example.
      outputs: arrays or avals of the shapes of its outputs, in tree order.

    Returns:
      A bool array of each leaf.
    """
    leaves, treedef = jax.tree.flatten(widen(params))
    keep = [np.asarray(mask) for mask in jax.tree.leaves(masks)]
    found = [_nonzero(leaf) & mask for leaf, mask in zip(leaves, keep, strict=True)]
    idle = [k for k, mask in enumerate(keep) if (mask & ~found[k]).any()]
    run = jax.jit(_gradients_of(apply_fn, treedef, idle), compiler_options=QUICK)
    x, picks = widen(x), not all(map(is_floating, jax.tree.leaves(x)))
    quiet, probe = 0, 0
    while idle and quiet < PROBES:
        rng = np.random.default_rng(probe)
        start = [_spread(rng, *pair) for pair in zip(leaves, found, strict=True)]
        ones = [rng.standard_normal(y.shape, np.float32) for y in outputs]
        try:
            seen = run(start, jax.tree.map(partial(_drawn, rng), x), ones)
        except (NotImplementedError, TypeError, ValueError):  # no gradient, as of a while loop
            return keep
        before = [found[k] for k in idle]
        for k, gradient in zip(idle, seen, strict=True):
            found[k] = found[k] | (_moves(np.asarray(gradient) != 0, picks) & keep[k])
        same = all((found[k] == old).all() for k, old in zip(idle, before, strict=True))
        quiet, probe = quiet + 1 if same else 0, probe + 1
    return found


def _gradients_of(apply_fn: ApplyFn, treedef: Any, idle: list[int]) -> Callable[..., list[Any]]:
    """Build gradients(leaves, x, ones): of the sum of outputs times ones, by the leaves of `idle`.

    They are evaluated as a mantissa times a power of two, so that none underflows to 0.
    """

    def total(own: list[Any], leaves: list[Any], x: Any, ones: list[Any]) -> jax.Array:
        new = dict(zip(idle, own, strict=True))
        params = treedef.unflatten([new.get(k, leaf) for k, leaf in enumerate(leaves)])
        outputs = jax.tree.leaves(apply_fn(params, x))
        if any(map(jnp.iscomplexobj, outputs)):
            raise TypeError("complex outputs have no gradient")
        pairs = zip(outputs, ones, strict=True)
        return sum_outputs([y * one.astype(y.dtype) for y, one in pairs if is_floating(y)])

    def gradients(leaves: list[Any], *rest: Any) -> list[Any]:
        own = [leaves[k] for k in idle]
        return jax.grad(lambda own: scaled(total)(own, leaves, *rest).mantissa)(own)

    return gradients


def _nonzero(leaf: Any) -> np.ndarray:
    return np.asarray(leaf) != 0 if is_floating(leaf) else np.ones(leaf.shape, bool)


def _spread(rng: np.random.Generator, leaf: Any, moves: Any) -> Any:
    """Draw a leaf anew: nonzero entries within half of their value, others where they may move."""
    if not is_floating(leaf):
        return leaf
    array = np.array(leaf)
    there = array != 0
    fresh = moves & ~there
    array[there] *= rng.uniform(0.5, 1.5, int(there.sum())).astype(array.dtype)
    array[fresh] = rng.standard_normal(int(fresh.sum()))
    return array


def _drawn(rng: np.random.Generator, leaf: Any) -> Any:
    """Draw an input of floats; inputs of whole numbers stay as they are."""
    return rng.standard_normal(leaf.shape).astype(leaf.dtype) if is_floating(leaf) else leaf


def _moves(seen: np.ndarray, picks: bool) -> np.ndarray:
    """Find the entries that may move; all rows, where inputs pick rows, of which a draw sees few.

    Args:
      seen: where the gradient of a leaf is not 0.
      picks: whether the input has whole numbers.
    """
    return np.logical_or.reduce(seen, 0, keepdims=True) if picks and seen.ndim > 1 else seen
