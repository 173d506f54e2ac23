"""Which layers and paths a mask has cut, and how much compression a method bears."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax._types import ApplyFn, Masks, Params, Prunable
from synflow_jax.diagnostics import flow_scores, is_source, prepare
from synflow_jax.errors import CollapseWarning, check_masks
from synflow_jax.masks import masked
from synflow_jax.tree import find_layers, is_prunable, named_leaves, pick, place, widen


def collapsed_layers(masks: Masks) -> tuple[str, ...]:
    """Name the layers without a kept weight.

    Args:
      masks: bool tree, True = keep.

    Returns:
      Paths, in tree order.

    Raises:
      TypeError: a leaf is not bool.

    Example:
      >>> import jax.numpy as jnp
      >>> collapsed_layers({"a": jnp.array([True, False]), "b": jnp.array([False])})
      ('b',)

    Source: Tanaka et al. 2020, section 3.
    """
    check_masks(masks, masks)
    pairs = [(path, leaf) for path, leaf in named_leaves(masks) if leaf.size]
    return tuple(path for path, leaf in pairs if not leaf.any())


def _live(params: Params, masks: Masks, apply_fn: ApplyFn, shape: Any, prunable: Prunable) -> Any:
    """Name the layers and find the kept weights that lie on a path from input to output."""
    masks, saliency = prepare(params, masks, apply_fn, shape)
    layers = find_layers(params, prunable)
    kept = pick(masked(widen(params), masks), layers.chosen)
    plain = place(widen(params), layers.chosen, [_average(leaf) for leaf in kept], lambda p: p)
    pairs = zip(named_leaves(plain), layers.chosen, strict=True)
    sources = tuple(is_source(path, leaf) and not hit for (path, leaf), hit in pairs)
    plain = place(plain, sources, [jnp.zeros_like(x) for x in pick(plain, sources)], lambda p: p)
    scores = pick(flow_scores(saliency, plain, masks), layers.chosen)
    return layers, [score > 0 for score in scores]


def _average(leaf: jax.Array) -> jax.Array:
    """Scale a kernel so that units sum to about 1: paths then neither overflow nor underflow."""
    absolute = jnp.abs(leaf)
    total = jnp.sum(absolute)
    units = jnp.sum(jnp.sum(absolute, axis=tuple(range(leaf.ndim - 1))) > 0).astype(leaf.dtype)
    return absolute * (units / jnp.where(total > 0, total, jnp.ones_like(total)))


def effective_density(
    params: Params,
    masks: Masks,
    apply_fn: ApplyFn,
    shape: Any,
    *,
    prunable: Prunable = is_prunable,
) -> float:
    """Count only kept weights on a path from input to output, over all prunable weights.

    Biases start no path: a weight that only biases feed is dead.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the weights to count.

    Returns:
      Effective density, at most the density.

    Raises:
      ValueError: an argument makes no sense.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"v": jnp.ones((2, 1)), "w": jnp.ones((1, 2))}
      >>> masks = {"v": jnp.array([[True], [False]]), "w": jnp.array([[True, True]])}
      >>> effective_density(weights, masks, lambda p, x: x @ p["w"] @ p["v"], (1,))
      0.5

    Source: Vysogorets and Kempe 2021 (arXiv 2107.02306).
    """
    layers, live = _live(params, masks, apply_fn, shape, prunable)
    return sum(int(leaf.sum()) for leaf in live) / sum(layers.sizes)


def dead_branches(
    params: Params,
    masks: Masks,
    apply_fn: ApplyFn,
    shape: Any,
    *,
    prunable: Prunable = is_prunable,
) -> tuple[str, ...]:
    """Name the layers that no path from input to output crosses, while others carry flow.

    In a residual network a branch can die and the skip keep the flow alive: no layer collapse by
    the flow's measure, and yet layers that compute nothing. Where the whole network is dead the
    answer is empty: that is layer collapse.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the layers to look at.

    Returns:
      Paths, in tree order.

    Raises:
      ValueError: an argument makes no sense.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"up": jnp.ones((2, 2)), "down": jnp.ones((2, 2)), "out": jnp.ones((2, 1))}
      >>> net = lambda p, x: (x + x @ p["up"] @ p["down"]) @ p["out"]
      >>> masks = {"up": jnp.zeros((2, 2), bool), "down": jnp.ones((2, 2), bool),
      ...          "out": jnp.ones((2, 1), bool)}
      >>> dead_branches(weights, masks, net, (2,))
      ('down', 'up')
    """
    layers, live = _live(params, masks, apply_fn, shape, prunable)
    alive = [bool(leaf.any()) for leaf in live]
    pairs = zip(layers.paths, alive, strict=True)
    return tuple(path for path, lives in pairs if not lives) if any(alive) else ()


def max_compression(params: Params, *, prunable: Prunable = is_prunable) -> float:
    """Name the largest ρ that any method could reach on a plain chain without collapse, N/L.

    Args:
      params: any pytree of arrays.
      prunable: (path, leaf) -> bool, the weights to count.

    Returns:
      ρ_max, one weight in each of the L layers.

    Raises:
      ValueError: params has no prunable leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> max_compression({"v": jnp.ones((10, 10)), "w": jnp.ones((10, 2))})
      60.0

    Source: Tanaka et al. 2020, section 3.
    """
    layers = find_layers(params, prunable)
    return sum(layers.sizes) / len(layers.sizes)


def critical_compression(
    method: Callable[[float], Masks],
    params: Params,
    *,
    tolerance: float = 0.01,
    prunable: Prunable = is_prunable,
) -> float:
    """Find the largest ρ at which a method empties no layer, by bisection, without training.

    Args:
      method: rho -> masks, such as lambda rho: magnitude(params, rho).
      params: any pytree of arrays.
      tolerance: width, in decades of ρ, at which the search ends.
      prunable: (path, leaf) -> bool, the layers to watch.

    Returns:
      ρ_cr, at most `tolerance` decades below the first collapse, and at most ρ_max. Where a method
      collapses, recovers and collapses again, one of its collapses is found.

    Raises:
      ValueError: tolerance is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import magnitude
      >>> weights = {"v": jnp.ones((10, 10)), "w": 2.0 * jnp.ones((10, 10))}
      >>> round(critical_compression(lambda rho: magnitude(weights, rho), weights), 1)
      2.0

    Source: Tanaka et al. 2020, section 3.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance}")
    layers = find_layers(params, prunable)

    def survives(log10_rho: float) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)
            masks = method(10.0**log10_rho)
        return all(bool(leaf.any()) for leaf in pick(masks, layers.chosen))

    low, high = 0.0, math.log10(max_compression(params, prunable=prunable))
    if survives(high):
        return 10.0**high
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if survives(middle) else (low, middle)
    return 10.0**low
