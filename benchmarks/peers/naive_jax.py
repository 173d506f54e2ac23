"""SynFlow in JAX with a sort: concatenate all scores, argsort them, scatter.

One compiled round, called from a Python loop. Pruning libraries that rank all weights sort so.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Contender, kept_after
from benchmarks.shared.networks import plain_flow
from benchmarks.speed.timed_networks import loaded
from synflow_jax.plan import is_prunable

Masks = dict[str, jax.Array]


def by_path(tree: Any) -> dict[str, Any]:
    """Name the leaves of a tree, in tree order."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}


def host_masks(masks: dict[str, Any], params: dict[str, Any]) -> dict[str, np.ndarray]:
    """Copy the masks of what is prunable to the host."""
    return {path: np.asarray(m) for path, m in masks.items() if is_prunable(path, params[path])}


@partial(jax.jit, static_argnames="shape")
def one_round(params: Any, apply_fn: Any, masks: Masks, kept: Any, shape: tuple[int, ...]) -> Masks:
    """Score |θ| ⊙ ∂R/∂|θ|, sort, and keep the first `kept`."""
    leaves, treedef = by_path(params), jax.tree.structure(params)
    positive = {path: jnp.abs(leaf) for path, leaf in leaves.items()}
    positive |= {
        path: positive[path] * mask.astype(positive[path].dtype) for path, mask in masks.items()
    }

    def flow(positive: dict[str, jax.Array]) -> jax.Array:
        return plain_flow(treedef.unflatten([positive[path] for path in leaves]), apply_fn, shape)

    _, slopes = jax.value_and_grad(flow)(positive)
    scores = [(positive[path] * slopes[path]).ravel() for path in masks]
    order = jnp.argsort(-jnp.concatenate(scores))
    flags = jnp.zeros(order.shape, bool).at[order].set(jnp.arange(order.size) < kept)
    ends = np.cumsum([mask.size for mask in masks.values()])[:-1]
    parts = zip(masks.items(), jnp.split(flags, ends), strict=True)
    return {path: part.reshape(mask.shape) for (path, mask), part in parts}


def prune_naively(params: Any, apply_fn: Any, shape: tuple[int, ...], rounds: int) -> Masks:
    """Prune to ρ = 100 in `rounds` rounds of the exponential schedule."""
    masks = all_kept(params)
    prunable = sum(mask.size for mask in masks.values())
    for turn in range(1, rounds + 1):
        masks = one_round(params, apply_fn, masks, kept_after(turn, rounds, prunable), shape)
    return jax.block_until_ready(masks)


def all_kept(params: Any) -> Masks:
    """Keep every prunable leaf."""
    leaves = by_path(params).items()
    return {path: jnp.ones(leaf.shape, bool) for path, leaf in leaves if is_prunable(path, leaf)}


def temporaries_of(lowered: Any) -> int:
    """Compile, and read how many bytes the program needs beside its arguments and results."""
    sizes: Any = lowered.compile().memory_analysis()
    return int(sizes.temp_size_in_bytes)


def contend(name: str, device: str) -> Contender:  # noqa: ARG001
    """Prune the plain network in float32, with products in full float32 precision."""
    params, apply_fn, shape = loaded(name)
    leaves = by_path(params)

    @jax.default_matmul_precision("highest")
    def prune(rounds: int) -> Masks:
        return prune_naively(params, apply_fn, shape, rounds)

    @jax.default_matmul_precision("highest")
    def temporaries() -> int:
        lowered = one_round.lower(params, apply_fn, all_kept(params), 1, shape)
        return temporaries_of(lowered)

    weights = sum(leaf.size for leaf in leaves.values())
    prunable = sum(mask.size for mask in all_kept(params).values())
    return Contender(
        prune,
        lambda masks: host_masks(masks, leaves),
        weights,
        prunable,
        temporaries=temporaries,
    )
