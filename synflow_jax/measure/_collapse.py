"""Collapsed layers, weights that lie on no path, and the compression at which layers collapse."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.flow import Outputs, choose_outputs
from synflow_jax.measure._flow import flow_scores, prepare
from synflow_jax.measure._slices import each_layer, layers_of
from synflow_jax.plan import Layers, find_layers, find_stacks, read_structure
from synflow_jax.selection import count_kept, sum_counts
from synflow_jax.trees import (
    ApplyFn,
    CollapseWarning,
    Masks,
    Params,
    Prunable,
    check_bool,
    check_masks,
    converted,
    masked,
    named_leaves,
    pick,
    place,
    uniform_like,
    widen,
)

DRAWS = 32  # of random weights, in the search for weights on a path


@converted("masks")
def collapsed_layers(masks: Masks, *, stacked: Any = ()) -> tuple[str, ...]:
    """List the layers without a kept weight.

    Args:
      masks: bool tree, True = keep.
      stacked: leaves that hold several layers: what `stacked_layers` returns, or a list of paths
        of leaves of shape [layers, …].

    Returns:
      Paths, in tree order; path[i] for slice i of a stacked leaf.

    Raises:
      TypeError: a leaf is not bool, or stacked is no list of paths.
      ValueError: stacked names what is no leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> collapsed_layers({"a": jnp.array([True, False]), "b": jnp.array([False])})
      ('b',)

    Source: Tanaka et al. 2020, section 3.
    """
    check_bool(masks)
    pairs = named_leaves(masks)
    stacks = find_stacks(pairs, stacked)
    full = [(path, leaf) for path, leaf in pairs if leaf.size]
    return tuple(
        name
        for path, leaf in full
        for name, kept in layers_of(path, leaf, stacks.get(path, ()))
        if not kept.any()
    )


@converted("params", "masks")
def effective_density(
    params: Params,
    masks: Masks,
    apply_fn: ApplyFn,
    shape: Any,
    *,
    outputs: Outputs | None = None,
    prunable: Prunable | None = None,
) -> float:
    """Compute the share of prunable weights that are kept and on a path from input to output.

    A path starts at the input, not at a bias: a weight that is fed by biases alone does not count.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the weights to count.
      outputs: y -> the outputs that count, or their weights by path, as `flow.choose_outputs` takes
        them; None for all.

    Returns:
      The effective density, at most the density.

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
    layers, live = _live(params, masks, choose_outputs(apply_fn, outputs), shape, prunable)
    return sum_counts(count_kept(live)) / sum(layers.sizes)


@converted("params", "masks")
def dead_branches(
    params: Params,
    masks: Masks,
    apply_fn: ApplyFn,
    shape: Any,
    *,
    outputs: Outputs | None = None,
    prunable: Prunable | None = None,
    stacked: Any = (),
) -> tuple[str, ...]:
    """List the layers that lie on no path from input to output: they have no effect.

    A layer without a kept weight is one of them, and so is every layer that only leads to it or
    from it. In a residual network a branch can be cut while the skip carries the flow. In a chain
    one empty layer cuts all, so that all layers are listed.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the layers to examine.
      outputs: y -> the outputs that count, or their weights by path, as `flow.choose_outputs` takes
        them; None for all.
      stacked: leaves that hold several layers, as in `max_compression`.

    Returns:
      Paths, in tree order; path[i] for layer i of a leaf that holds several.

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
    network = choose_outputs(apply_fn, outputs)
    layers, live = _live(params, masks, network, shape, prunable, stacked)
    return tuple(name for name, part in each_layer(layers, live) if not part.any())


@converted("params", shapes=True)
def max_compression(
    params: Params,
    apply_fn: ApplyFn | None = None,
    shape: Any = None,
    *,
    prunable: Prunable | None = None,
    stacked: Any = (),
) -> float:
    """Compute the largest ρ that a method can reach on a plain chain without collapse, N/L.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y; with it and shape, the trace shows which leaves are
        kernels and which hold several layers, each of which counts.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the weights to count.
      stacked: leaves that hold several layers: what `stacked_layers` returns, or a list of paths
        of leaves of shape [layers, …]; by default those that the trace shows.

    Returns:
      ρ_max, one weight in each of the L layers.

    Raises:
      ValueError: params has no prunable leaf, or only one of apply_fn and shape is given.

    Example:
      >>> import jax.numpy as jnp
      >>> max_compression({"v": jnp.ones((10, 10)), "w": jnp.ones((10, 2))})
      60.0

    Source: Tanaka et al. 2020, section 3.
    """
    sizes = _layers(params, apply_fn, shape, prunable, stacked).sizes
    return sum(sizes) / len(sizes)


@converted("params")
def critical_compression(
    method: Callable[[float], Masks],
    params: Params,
    apply_fn: ApplyFn | None = None,
    shape: Any = None,
    *,
    tolerance: float = 0.01,
    prunable: Prunable | None = None,
    stacked: Any = (),
) -> float:
    """Find the largest ρ at which a method leaves every layer a weight, by bisection.

    Args:
      method: rho -> masks, such as lambda rho: magnitude(params, rho).
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y; with it and shape, the trace shows which leaves are
        kernels and which hold several layers, each of which must keep a weight.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      tolerance: width of the bracket, in decades of ρ, at which the search ends.
      prunable: (path, leaf) -> bool, the layers to examine.
      stacked: leaves that hold several layers, as in `max_compression`.

    Returns:
      ρ_cr, at most `tolerance` decades below a ρ with layer collapse, and at most ρ_max. If masks
      collapse in several intervals of ρ, the search may end at any of them.

    Raises:
      ValueError: tolerance is not above 0, or only one of apply_fn and shape is given.

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
    layers = _layers(params, apply_fn, shape, prunable, stacked)

    def survives(log10_rho: float) -> bool:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapseWarning)
            masks = method(10.0**log10_rho)
        check_masks(params, masks, "method(rho)")
        parts = each_layer(layers, pick(masks, layers.prunable))
        return all(bool(part.any()) for _, part in parts)

    low, high = 0.0, math.log10(sum(layers.sizes) / len(layers.sizes))
    if survives(high):
        return 10.0**high
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if survives(middle) else (low, middle)
    return 10.0**low


def _layers(
    params: Params, apply_fn: ApplyFn | None, shape: Any, prunable: Prunable | None, stacked: Any
) -> Layers:
    """List the layers, by the trace of the network where it is given."""
    if (apply_fn is None) != (shape is None):
        raise ValueError("apply_fn and shape must be given together, or neither of them")
    reading = None if apply_fn is None else read_structure(params, apply_fn, shape)
    return find_layers(params, prunable, reading, stacked)


def live_weights(params: Params, saliency: Any, layers: Layers, masks: Masks) -> list[jax.Array]:
    """Find the kept weights that lie on a path from input to output, a bool array a layer.

    A weight lies on a path if its score is above 0 at one of DRAWS random weights, drawn between ½
    and 1½ over the mean number of kept weights that feed a unit. Sums then neither overflow nor
    underflow, and each input of a max-pool is the largest in some draw.
    """
    plain = saliency.from_input_alone(widen(params), layers.prunable)
    kept = [leaf != 0 for leaf in pick(masked(plain, masks), layers.prunable)]
    live = [jnp.zeros_like(leaf) for leaf in kept]
    for draw in range(DRAWS):
        keys = jax.random.split(jax.random.key(draw), len(kept))
        drawn = [_draw(key, leaf) for key, leaf in zip(keys, kept, strict=True)]
        cast = [d.astype(p.dtype) for d, p in zip(drawn, pick(plain, layers.prunable), strict=True)]
        scores = flow_scores(saliency, place(plain, layers.prunable, cast, lambda p: p), masks)
        pairs = zip(live, pick(scores, layers.prunable), strict=True)
        # One draw at a time: programs with collectives that are dispatched before the last one has
        # ended can deadlock a busy CPU with many virtual devices.
        live = jax.block_until_ready([one | (score > 0) for one, score in pairs])
    return live


def _live(
    params: Params,
    masks: Masks,
    apply_fn: ApplyFn,
    shape: Any,
    prunable: Prunable | None,
    stacked: Any = (),
) -> Any:
    """Return the layers, and for each the kept weights that lie on a path from input to output."""
    masks, saliency = prepare(params, masks, apply_fn, shape)
    layers = find_layers(params, prunable, saliency.reading(params), stacked)
    saliency = saliency.fitted(params, layers.prunable)
    return layers, live_weights(params, saliency, layers, masks)


@jax.jit
def _draw(key: jax.Array, kept: jax.Array) -> jax.Array:
    """Draw the weights of one layer, 0 where they are pruned."""
    live = jnp.any(kept, axis=tuple(range(kept.ndim - 1)))
    weights_kept, units = (jnp.sum(mask, dtype=jnp.float32) for mask in (kept, live))
    feeding = jnp.maximum(weights_kept, 1) / jnp.maximum(units, 1)
    weights = uniform_like(key, kept, 0.5, 1.5) / feeding
    return jnp.where(kept, weights, jnp.zeros_like(weights))
