"""Measurements of flow: of a network, of its layers, of its units, and whether it is conserved."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from synflow_jax.flow import is_source
from synflow_jax.plan import find_layers, is_prunable
from synflow_jax.saliency import absolute, highest_precision, sum_outputs, synflow_saliency
from synflow_jax.scaled import log2, scaled, unscale
from synflow_jax.trees import (
    ApplyFn,
    Masks,
    Params,
    Prunable,
    Scores,
    all_true,
    call_on_ones,
    check_finite,
    check_masks,
    is_floating,
    is_traced,
    named_leaves,
    pick,
    place,
    widen,
)


def prepare(params: Params, masks: Masks | None, apply_fn: ApplyFn, shape: Any) -> Any:
    """Check what a measurement is given; no masks are masks that keep all."""
    check_finite(params)
    if masks is None:
        masks = jax.tree.map(all_true, params)
    check_masks(params, masks)
    return masks, synflow_saliency(apply_fn, shape).fitted(params)


def log2_flow(params: Params, apply_fn: ApplyFn, shape: Any, masks: Masks | None = None) -> Any:
    """Measure log2 of the synaptic flow, R_SF = 1ᵀ (∏ₗ |θˡ|) 1.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      masks: measure the network as pruned.

    Returns:
      A floating scalar; −inf where no flow is left.

    Raises:
      ValueError: the flow is not finite in the params' dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> float(log2_flow({"w": jnp.array([[1.0, -7.0]])}, lambda p, x: x @ p["w"], (1,)))
      3.0

    Source: Tanaka et al. 2020, section 6, equation 4.
    """
    value = any_log2_flow(params, apply_fn, shape, masks)
    if not is_traced(value) and not value < jnp.inf:
        masks, saliency = prepare(params, masks, apply_fn, shape)
        raise ValueError(explain_flow(saliency, params, masks))
    return value


def any_log2_flow(params: Params, apply_fn: ApplyFn, shape: Any, masks: Masks | None) -> Any:
    """Measure log2 of the flow as it is: infinite beyond the dtype, NaN below 0."""
    masks, saliency = prepare(params, masks, apply_fn, shape)
    return log2(_flow(saliency, params, masks))


def explain_flow(saliency: Any, params: Params, masks: Masks) -> str:
    """Say what a flow is that is no positive number, and why that may be."""
    flow = unscale(*_flow(saliency, params, masks))
    said = f"the flow must be above 0 and finite, and it is {float(flow)}. "
    if flow < 0:
        return said + "A running mean that is subtracted, or an apply_fn that ignores its params?"
    if flow == 0:
        pairs = [(path, leaf) for path, leaf in named_leaves(params) if is_floating(leaf)]
        zeros = [p for p, leaf in pairs if not is_source(p, leaf) and not leaf.any()]
        return said + (f"Leaves that are all zero: {', '.join(zeros)}." if zeros else "")
    return said + (
        "Sums over paths of any depth are kept in range, so something else left it: an operation "
        "such as exp that only the value itself can enter, or weights of extreme size."
    )


_flow = jax.jit(lambda saliency, params, masks: saliency.flow(params, masks))
flow_scores = jax.jit(lambda saliency, params, masks: saliency(params, masks))


def layer_flow(
    params: Params, apply_fn: ApplyFn, shape: Any, masks: Masks | None = None
) -> dict[str, jax.Array]:
    """Sum the flow through every leaf, ΣS with S = |θ| ⊙ ∂R_SF/∂|θ|.

    In a chain without biases every layer carries R_SF; with biases,
    ΣS(W_{l+1}) = ΣS(W_l) + ΣS(b_l).

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      masks: measure the network as pruned.

    Returns:
      path -> ΣS, for every floating leaf; in units of a power of two near R where R itself is
      beyond the dtype (see `log2_flow` for how large it is).

    Raises:
      ValueError: an argument makes no sense.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"v": jnp.array([[3.0], [0.5]]), "w": jnp.array([[1.0, -2.0]])}
      >>> flows = layer_flow(weights, lambda p, x: x @ p["w"] @ p["v"], (1,))
      >>> {path: float(value) for path, value in flows.items()}
      {'v': 4.0, 'w': 4.0}

    Source: Tanaka et al. 2020, section 4, theorem 2.
    """
    masks, saliency = prepare(params, masks, apply_fn, shape)
    return _by_path(params, flow_scores(saliency, params, masks))


def _by_path(params: Params, scores: Scores) -> dict[str, jax.Array]:
    pairs = zip(named_leaves(params), jax.tree.leaves(scores), strict=True)
    return {path: jnp.sum(score) for (path, leaf), score in pairs if is_floating(leaf)}


class NeuronFlow(NamedTuple):
    """The flow through one kernel of shape (…, in, out), by unit."""

    into: jax.Array  # [out], into each unit that the kernel feeds
    out_of: jax.Array  # [in], out of each unit that feeds the kernel


def neuron_flow(
    params: Params,
    apply_fn: ApplyFn,
    shape: Any,
    masks: Masks | None = None,
    *,
    prunable: Prunable = is_prunable,
) -> dict[str, NeuronFlow]:
    """Sum the flow into and out of every unit: what enters a hidden unit leaves it.

    Kernels are read as Flax lays them out, (…, in, out): `into` sums over all axes but the last,
    `out_of` over all but the last but one. For a hidden unit between kernels W and V,
    into(W) + S(bias) = out_of(V); after a flatten, out_of(V) is by position and channel.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      masks: measure the network as pruned.
      prunable: (path, leaf) -> bool, the kernels to measure; of two or more axes.

    Returns:
      path -> NeuronFlow(into[out], out_of[in]).

    Raises:
      ValueError: an argument makes no sense.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"v": jnp.array([[3.0], [0.5]]), "w": jnp.array([[1.0, -2.0]])}
      >>> flows = neuron_flow(weights, lambda p, x: x @ p["w"] @ p["v"], (1,))
      >>> flows["w"].into.tolist(), flows["v"].out_of.tolist()
      ([3.0, 1.0], [3.0, 1.0])

    Source: Tanaka et al. 2020, section 4, theorem 1.
    """
    masks, saliency = prepare(params, masks, apply_fn, shape)
    layers = find_layers(params, prunable)
    scores = pick(flow_scores(saliency, params, masks), layers.prunable)
    pairs = zip(layers.paths, scores, strict=True)
    return {path: _neurons(score) for path, score in pairs if score.ndim >= 2}


def _neurons(score: jax.Array) -> NeuronFlow:
    axes = tuple(range(score.ndim))
    return NeuronFlow(jnp.sum(score, axes[:-1]), jnp.sum(score, (*axes[:-2], axes[-1])))


def conservation_gap(params: Params, apply_fn: ApplyFn, shape: Any) -> jax.Array:
    """Measure by how much the network breaks conservation: |⟨∂R/∂x, x⟩ + ΣS(sources) − R|/R.

    All flow starts at the input or at a source (a bias, a running mean, an embedding: leaves of
    one axis whose name holds no scale, var, gamma, weight, gain or alpha; embeddings), so for
    homogeneous networks the gap is 0 up to rounding, at any depth and with any skip. Softmax,
    LayerNorm, tanh, GELU and the like open it, and the theorems of the paper do not hold there.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      A floating scalar; about 1e-6 or less in float32 where flow is conserved.

    Raises:
      ValueError: an argument makes no sense.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = {"w": jnp.array([[0.5, -0.25]])}
      >>> round(float(conservation_gap(weights, lambda p, x: jax.nn.relu(x @ p["w"]), (1,))), 4)
      0.0
      >>> round(float(conservation_gap(weights, lambda p, x: jnp.tanh(x @ p["w"]), (1,))), 4)
      0.1115

    Source: Euler's theorem for R, homogeneous of degree 1 in input and sources together.
    """
    check_finite(params)
    saliency = synflow_saliency(apply_fn, shape)
    # Flow mode drops what is added to a signal; an embedding still starts one.
    keeps = saliency.network.sources
    pairs = named_leaves(params)
    sources = tuple(is_source(p, v) if keeps else p.endswith("embedding") for p, v in pairs)
    value, slope = _grown(widen(params), saliency, sources)
    return jnp.abs(slope.astype(value.dtype) - value) / jnp.abs(value)


@partial(jax.jit, static_argnames=("sources",))
@highest_precision
def _grown(params: Params, saliency: Any, sources: tuple[bool, ...]) -> tuple[Any, Any]:
    """Give R and its slope where input and sources grow together."""
    positive = absolute(saliency.network.prepare(params))

    @scaled
    def grown_flow(scale: jax.Array) -> jax.Array:
        def on_grown(p: Any, x: Any) -> Any:
            return saliency.network(p, jax.tree.map(lambda v: _scale(v, scale), x))

        grown = [_scale(leaf, scale) for leaf in pick(positive, sources)]
        state = place(positive, sources, grown, lambda leaf: leaf)
        return sum_outputs(call_on_ones(on_grown, state, saliency.inputs))

    (value, _), slope = jax.value_and_grad(grown_flow, has_aux=True)(jnp.ones(()))
    return value, slope


def _scale(leaf: jax.Array, scale: jax.Array) -> jax.Array:
    return leaf * scale.astype(leaf.dtype) if is_floating(leaf) else leaf


_flow_and_scores = jax.jit(lambda saliency, p, masks: saliency.flow_and_scores(p, masks))


def flow_shares(
    params: Params, apply_fn: ApplyFn, shape: Any, masks: Masks | None = None
) -> tuple[jax.Array, Scores]:
    """Measure log2 of the flow, and give every weight its share of it.

    That is S/R, and 0 where there is no flow.
    """
    masks, saliency = prepare(params, masks, apply_fn, shape)
    flow, scores = _flow_and_scores(saliency, params, masks)
    whole = jnp.where(flow.mantissa == 0, jnp.ones_like(flow.mantissa), flow.mantissa)
    return log2(flow), jax.tree.map(lambda score: score / whole.astype(score.dtype), scores)
