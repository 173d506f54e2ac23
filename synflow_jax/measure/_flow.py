"""Measurements of flow: of a network, its layers and its units, and how well it is conserved."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from synflow_jax.flow import Outputs, Untied, choose_outputs, only_added
from synflow_jax.measure._slices import layers_of
from synflow_jax.plan import Layout, find_layers
from synflow_jax.saliency import (
    absolute,
    grow,
    highest_precision,
    sum_outputs,
    synflow_saliency,
)
from synflow_jax.scaled import log2, scaled, unscale
from synflow_jax.structure import Reading, Stack, describe
from synflow_jax.trees import (
    ApplyFn,
    Masks,
    Params,
    Prunable,
    Scores,
    all_true,
    as_function,
    call_on_ones,
    check_finite,
    check_masks,
    converted,
    is_traced,
    is_weight,
    named_leaves,
    pick,
    place,
    widen,
)

CLOSED = (
    "No layer is all zero, and the trace shows no subtraction. Likely causes: a negative signal "
    "before a ReLU, a ReLU or a comparison that is closed on an input of ones, or an apply_fn that "
    "ignores its params"
)


@converted("params", "masks")
def log2_flow(
    params: Params,
    apply_fn: ApplyFn,
    shape: Any,
    masks: Masks | None = None,
    *,
    outputs: Outputs | None = None,
) -> Any:
    """Measure log2 of the synaptic flow, R_SF = 1ᵀ (∏ₗ |θˡ|) 1.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      masks: bool tree with the treedef of params, True = keep; None measures the dense network.
      outputs: y -> the outputs that count, or their weights by path, as `flow.choose_outputs` takes
        them; None for all.

    Returns:
      A floating scalar; −inf if no flow is left.

    Raises:
      ValueError: the flow is not finite in the params' dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> float(log2_flow({"w": jnp.array([[1.0, -7.0]])}, lambda p, x: x @ p["w"], (1,)))
      3.0

    Source: Tanaka et al. 2020, section 6, equation 4.
    """
    apply_fn = choose_outputs(apply_fn, outputs)
    value = any_log2_flow(params, apply_fn, shape, masks)
    if not is_traced(value) and not value < jnp.inf:
        masks, saliency = prepare(params, masks, apply_fn, shape)
        raise ValueError(explain_flow(saliency, params, masks))
    return value


@converted("params", "masks")
def layer_flow(
    params: Params,
    apply_fn: ApplyFn,
    shape: Any,
    masks: Masks | None = None,
    *,
    outputs: Outputs | None = None,
) -> dict[str, jax.Array]:
    """Sum the flow through every leaf, ΣS with S = |θ| ⊙ ∂R_SF/∂|θ|.

    In a chain without biases ΣS is R_SF for every layer; with biases,
    ΣS(W_{l+1}) = ΣS(W_l) + ΣS(b_l).

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      masks: bool tree with the treedef of params, True = keep; None measures the dense network.
      outputs: y -> the outputs that count, or their weights by path, as `flow.choose_outputs` takes
        them; None for all.

    Returns:
      path -> ΣS, for every floating leaf; in units of a power of two near R if R itself is beyond
      the dtype (`log2_flow` measures it then).

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
    apply_fn = choose_outputs(apply_fn, outputs)
    masks, saliency = prepare(params, masks, apply_fn, shape)
    return _by_path(params, flow_scores(saliency, params, masks))


class NeuronFlow(NamedTuple):
    """The flow through one kernel, by unit.

    Attributes:
      into: [out], the flow into each output unit of the kernel.
      out_of: [in], the flow out of each input unit of the kernel.

    A kernel with several axes of outputs or inputs, as those of attention, has as many here; a
    stack of layers has their axis in front.
    """

    into: jax.Array
    out_of: jax.Array


@converted("params", "masks")
def neuron_flow(
    params: Params,
    apply_fn: ApplyFn,
    shape: Any,
    masks: Masks | None = None,
    *,
    outputs: Outputs | None = None,
    prunable: Prunable | None = None,
) -> dict[str, NeuronFlow]:
    """Sum the flow into and out of every unit; the two are equal for a hidden unit.

    The trace of the network shows which axes of a kernel are those of outputs and of inputs: `into`
    sums over all but the former, `out_of` over all but the latter. Of a grouped convolution both
    are the axis of outputs. For a hidden unit between kernels W and V, into(W) + S(bias) =
    out_of(V). After a flatten, out_of(V) has an entry a position and channel.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      masks: bool tree with the treedef of params, True = keep; None measures the dense network.
      prunable: (path, leaf) -> bool, the kernels to measure; those of fewer than two axes (a layer)
        are left out.
      outputs: y -> the outputs that count, or their weights by path, as `flow.choose_outputs` takes
        them; None for all.

    Returns:
      path -> NeuronFlow(into[out], out_of[in]), of a stack of L layers (into[L, out],
      out_of[L, in]).

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
    apply_fn = choose_outputs(apply_fn, outputs)
    masks, saliency = prepare(params, masks, apply_fn, shape)
    layers = find_layers(params, prunable, saliency.reading(params))
    saliency = saliency.fitted(params, layers.prunable)
    scores = pick(flow_scores(saliency, params, masks), layers.prunable)
    trios = zip(layers.paths, scores, layers.layouts, strict=True)
    return {path: _neurons(score, at) for path, score, at in trios if _rank(score, at) >= 2}


@converted("params")
def conservation_gap(
    params: Params, apply_fn: ApplyFn, shape: Any, *, outputs: Outputs | None = None
) -> jax.Array:
    """Measure how far a network is from conserving flow: |⟨∂R/∂x, x⟩ + ΣS(sources) − R|/R.

    All flow starts at the input or at a source, which the trace shows: a leaf that is added to a
    signal, such as a bias or a running mean, or that is looked up, as an embedding is; of a tied
    embedding the lookup is one, and its use as a head is not. For a
    homogeneous network the gap is therefore 0 up to rounding, at any depth and with skips. Softmax,
    LayerNorm, tanh and GELU are not homogeneous: the gap is larger, and the theorems do not hold.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      outputs: y -> the outputs that count, or their weights by path, as `flow.choose_outputs` takes
        them; None for all.

    Returns:
      A floating scalar; about 1e-6 or less in float32 where flow is conserved.

    Raises:
      ValueError: an argument makes no sense, or R is 0 or not finite.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = {"w": jnp.array([[0.5, -0.25]])}
      >>> round(float(conservation_gap(weights, lambda p, x: jax.nn.relu(x @ p["w"]), (1,))), 4)
      0.0
      >>> round(float(conservation_gap(weights, lambda p, x: jnp.tanh(x @ p["w"]), (1,))), 4)
      0.1115

    Source: Euler's theorem for R, homogeneous of degree 1 in input and sources together.
    """
    apply_fn = choose_outputs(apply_fn, outputs)
    check_finite(params)
    saliency = synflow_saliency(apply_fn, shape)
    network, uses = saliency.network, saliency.reading(params).uses
    tied = tuple(use.role == "table" and "kernel" in use.roles for use in uses)
    # Flow mode drops summands, so that only embeddings are sources.
    sources = tuple(
        (use.role == "table" and not both) or (network.sources and use.roles == {"added"})
        for use, both in zip(uses, tied, strict=True)
    )
    value, slope = _grown(widen(params), saliency, sources, tied)
    gap = jnp.abs(slope.astype(value.dtype) - value) / jnp.abs(value)
    if not is_traced(gap) and not jnp.isfinite(gap):
        raise ValueError(explain_flow(saliency, params, jax.tree.map(all_true, params)))
    return gap


def flow_shares(
    params: Params, apply_fn: ApplyFn, shape: Any, masks: Masks | None = None
) -> tuple[jax.Array, Scores]:
    """Return log2 of the flow R, and each weight's share S/R of it, 0 if there is no flow."""
    masks, saliency = prepare(params, masks, apply_fn, shape)
    flow, scores = _flow_and_scores(saliency, params, masks)
    total = jnp.where(flow.mantissa == 0, jnp.ones_like(flow.mantissa), flow.mantissa)
    return log2(flow), jax.tree.map(lambda score: score / total.astype(score.dtype), scores)


def any_log2_flow(params: Params, apply_fn: ApplyFn, shape: Any, masks: Masks | None) -> Any:
    """Measure log2 of the flow without refusing any: ∞ beyond the dtype, NaN below 0."""
    masks, saliency = prepare(params, masks, apply_fn, shape)
    return log2(_flow(saliency, params, masks))


def explain_flow(saliency: Any, params: Params, masks: Masks) -> str:
    """Write the message on a flow that is not positive and finite, with its likely cause."""
    flow = unscale(*_flow(saliency, params, masks))
    start = f"the flow must be above 0 and finite, and it is {float(flow)}. "
    reading = saliency.reading(params)
    if reading is None or saliency.homogeneous or not reading.breaks:
        return start + _cause(flow, params, reading, saliency.homogeneous)
    return (
        f"{start}apply_fn is not homogeneous: {describe(reading.breaks)}; pass "
        "flow_mode(apply_fn), which replaces such operations"
    )


def _cause(flow: jax.Array, params: Params, reading: Reading | None, in_flow_mode: bool) -> str:
    """Write what takes the flow of a homogeneous network below 0, to 0, or out of range."""
    lines = describe(reading.subtractions) if reading is not None else ""
    found = [] if reading is None else [b for b in reading.breaks if b.breaks == "elementwise"]
    where = f" ({describe(found)})" if found else ""
    if flow <= 0 and not in_flow_mode and (flow < 0 or lines) and not _zeros(params, reading):
        return (
            f"Something is subtracted from the signal, or the signal is negated"
            f"{f': {lines}' if lines else ''}. flow_mode(apply_fn) leaves running means out"
        )
    if flow == 0:
        zeros = _zeros(params, reading)
        if zeros:
            remedy = "" if in_flow_mode else " flow_mode(apply_fn) scores as open what they close."
            return f"Leaves that are all zero: {', '.join(zeros)}.{remedy}"
        if reading is not None and reading.detached:
            return f"No gradient passes {describe(reading.detached)}."
        if in_flow_mode and found:
            return f"A function that is 0 at so large a signal{where}: leave it out at the output."
        return CLOSED if in_flow_mode else f"{CLOSED}; flow_mode(apply_fn) opens closed ReLUs"
    return (
        "Sums over paths of any depth are kept in range, so something else left it: an operation "
        f"such as exp{where} that is evaluated on the value itself, or weights of extreme size."
    )


def _zeros(params: Params, reading: Reading | None) -> list[str]:
    """List the layers and leaves that are all zero, without those that are only added."""
    stacks = {} if reading is None else reading.stacks
    triples = zip(named_leaves(params), only_added(params, reading), strict=True)
    some = [(path, leaf) for (path, leaf), added in triples if is_weight(leaf) and not added]
    return [
        name
        for path, leaf in some
        for name, part in _whole_or_slices(path, leaf, stacks.get(path))
        if not part.any()
    ]


def _whole_or_slices(path: str, leaf: Any, stack: Stack | None) -> list[tuple[str, Any]]:
    """List the layers of a leaf that holds several; the leaf itself where it is all zero."""
    return layers_of(path, leaf, () if stack is None or not leaf.any() else stack.axes)


def prepare(params: Params, masks: Masks | None, apply_fn: ApplyFn, shape: Any) -> Any:
    """Check the arguments of a measurement; return masks (all True for None) and the saliency."""
    check_finite(params)
    if masks is None:
        masks = jax.tree.map(all_true, params)
    check_masks(params, masks)
    return masks, synflow_saliency(apply_fn, shape).fitted(params)


_flow = jax.jit(lambda saliency, params, masks: saliency.flow(params, masks))


flow_scores = jax.jit(lambda saliency, params, masks: saliency(params, masks))


_flow_and_scores = jax.jit(lambda saliency, p, masks: saliency.flow_and_scores(p, masks))


def _by_path(params: Params, scores: Scores) -> dict[str, jax.Array]:
    """Sum the scores of each floating leaf."""
    pairs = zip(named_leaves(params), jax.tree.leaves(scores), strict=True)
    return {path: jnp.sum(score) for (path, leaf), score in pairs if is_weight(leaf)}


def _rank(leaf: Any, layout: Layout) -> int:
    """Count the axes of one layer of a leaf."""
    return len(layout.shape_of_layer(leaf.shape))


def _neurons(score: jax.Array, layout: Layout) -> NeuronFlow:
    """Sum the scores of one kernel by output unit and by input unit."""
    if layout.layers:
        score = jnp.moveaxis(score, layout.layers, range(len(layout.layers)))
        each = partial(_neurons, layout=layout.of_layer())
        for _ in layout.layers:
            each = jax.vmap(each)
        return NeuronFlow(*each(score))
    known = {*layout.sums, *layout.outputs}  # leaves out the window of a convolution by patches
    sides = (layout.outputs, [axis for axis in layout.inputs if axis in known])
    others = [tuple(k for k in range(score.ndim) if k not in side) for side in sides]
    return NeuronFlow(*(jnp.sum(score, axes) for axes in others))


@partial(jax.jit, static_argnames=("sources", "tied"))
@highest_precision
def _grown(
    params: Params, saliency: Any, sources: tuple[bool, ...], tied: tuple[bool, ...]
) -> tuple[Any, Any]:
    """Return R and dR/ds at s = 1, where input and sources are both scaled by s.

    A tied table is both a source, where it is looked up, and a kernel, which is not scaled.
    """
    network: Any = saliency.network
    signed = network.signed(params, saliency.inputs)
    positive = absolute(network.prepare(params, saliency.inputs), signed)
    if any(tied):
        plain = as_function(network.plain, "apply_fn")
        network = network.over(Untied(plain, tied))

    @scaled
    def grown_flow(scale: jax.Array) -> jax.Array:
        def on_grown(p: Any, x: Any) -> Any:
            return network(p, jax.tree.map(lambda v: grow(v, scale), x))

        grown = [grow(leaf, scale) for leaf in pick(positive, sources)]
        state: Any = place(positive, sources, grown, lambda leaf: leaf)
        if any(tied):
            state = (state, [grow(leaf, scale) for leaf in pick(positive, tied)])
        return sum_outputs(call_on_ones(on_grown, state, saliency.inputs))

    (value, _), slope = jax.value_and_grad(grown_flow, has_aux=True)(jnp.ones(()))
    return value, slope
