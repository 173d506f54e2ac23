"""What a network has lost once it is masked: outputs and inputs without flow, signal, gradients.

One program runs the network and its derivative. At |θ| on ones it shows which outputs have flow and
which inputs have an effect; at θ itself on random inputs, whether a signal and gradients pass. It
is compiled with few optimisations, since it runs a few times only, and only where a cheap sign says
that something may be lost. What the dense network lacks as well is not a loss.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.flow import as_network, find_closed
from synflow_jax.plan import Layers
from synflow_jax.saliency._gradient import highest_precision
from synflow_jax.saliency._objectives import absolute
from synflow_jax.saliency._protocol import Pruned
from synflow_jax.trees import (
    Inputs,
    Masks,
    Params,
    Shape,
    all_true,
    as_function,
    call_traced,
    floating_dtype,
    is_floating,
    listed_names,
    path_string,
    pick,
    place,
    widen,
)

DRAWS = 9  # of inputs: in one draw alone, ReLUs may happen to be closed
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Response(NamedTuple):
    """What is not 0, in bools: a list of arrays by entry, and one array by layer."""

    outputs: list[Any]  # of the outputs, each along its channels
    inputs: list[Any]  # of the derivatives by the floating inputs, each along its channels
    gradients: Any  # of the derivatives by the kept weights of each layer


def find_losses(saliency: Any, pruned: Pruned) -> tuple[str, ...]:
    """Describe what the masks cut of a network, one phrase each; see `Saliency.losses`."""
    params = pruned.params
    if not all(getattr(leaf, "is_fully_addressable", True) for leaf in jax.tree.leaves(params)):
        return ()  # other hosts hold a part of it
    shapes = _output_shapes(saliency, params)
    said: tuple[str, ...] = ()
    if pruned.known or _may_be_cut(pruned.masks, pruned.layers, saliency.inputs, shapes):
        said += _without_flow(saliency, pruned, shapes)
    closed: tuple[str, ...] = ()
    if saliency.network.homogeneous:
        closed = find_closed(params, saliency.reading(params))
    if pruned.known or closed:  # else what has flow has a signal, but for chance
        said += _without_signal(saliency, pruned, shapes, closed)
    return said


@highest_precision
def _output_shapes(saliency: Any, params: Params) -> list[tuple[str, Shape]]:
    """List (path, shape) of the floating outputs; the network has been traced already."""
    wide = jax.eval_shape(widen, params)
    outputs = jax.eval_shape(
        call_traced, saliency.held, wide, saliency.inputs.ones(floating_dtype(wide))
    )
    pairs = jax.tree_util.tree_flatten_with_path(outputs)[0]
    return [(path_string(path), leaf.shape) for path, leaf in pairs if is_floating(leaf)]


def _channel_axis(shape: Shape) -> int:
    """Return the axis of an example along which its entries differ in kind: channels, features."""
    return -len(shape) if len(shape) > 2 and shape[0] < shape[-1] else -1


def _example(shape: Shape) -> Shape:
    """Return the shape of one output without the batch axis, where it has one."""
    return shape[1:] if shape[:1] == (1,) else shape


def _floating_inputs(inputs: Inputs) -> list[Shape]:
    """List the shapes of the floating inputs of one example."""
    return [shape for shape, dtype in inputs.specs if dtype is None]


def _may_be_cut(
    masks: Masks, layers: Layers, inputs: Inputs, outputs: list[tuple[str, Shape]]
) -> bool:
    """Whether a slice without a kept weight lies along an axis as long as an output or input has.

    An output that a layer no longer feeds shows so, and an input channel that feeds none.
    """
    examples = [_example(shape) for _, shape in outputs]
    examples += [shape for shape in _floating_inputs(inputs) if len(shape) > 1]
    sizes = {shape[_channel_axis(shape)] for shape in examples if shape} - {1}
    leaves = pick(masks, layers.prunable)
    axes = tuple(tuple(k for k, n in enumerate(leaf.shape) if n in sizes) for leaf in leaves)
    some = [(leaf, own) for leaf, own in zip(leaves, axes, strict=True) if own]
    return bool(some) and bool(_has_empty_slice(*map(tuple, zip(*some, strict=True))))


@partial(jax.jit, static_argnums=1, compiler_options=QUICK)
def _has_empty_slice(masks: Sequence[jax.Array], axes: tuple[tuple[int, ...], ...]) -> jax.Array:
    found = [
        ~jnp.any(mask, axis=tuple(k for k in range(mask.ndim) if k != axis)).all()
        for mask, own in zip(masks, axes, strict=True)
        for axis in own
    ]
    return jnp.stack(found).any()


@jax.jit
def have_gradient(gradients: Sequence[jax.Array], kept: Sequence[jax.Array]) -> jax.Array:
    """Tell, for each layer, whether a kept weight has a gradient other than 0."""
    pairs = zip(gradients, kept, strict=True)
    return jnp.stack([jnp.any((gradient != 0) & mask) for gradient, mask in pairs])


@partial(jax.jit, static_argnames=("prunable",), compiler_options=QUICK)
@highest_precision
def _respond(
    saliency: Any,
    params: Params,
    masks: Masks,
    x: Any,
    cotangents: list[Any],
    flow: Any,
    scale: Any,
    prunable: tuple[bool, ...],
) -> Response:
    """Run the masked network and its derivative.

    Args:
      saliency: holds the network.
      params: the dense ones.
      masks: bool tree.
      x: the inputs.
      cotangents: by what each floating output is weighted.
      flow: whether the network is run at |θ| without sources, or at θ.
      scale: in the former case, the layers are multiplied by it, so that no sum overflows.
      prunable: whether each leaf is a layer.
    """
    plain = saliency.from_input_alone(params, prunable)
    positive = absolute(saliency.entering_weights(plain, masks))
    scaled = [leaf * jnp.asarray(scale, leaf.dtype) for leaf in pick(positive, prunable)]
    positive = place(positive, prunable, scaled, lambda leaf: leaf)
    own = replace(saliency, power=1).entering_weights(params, masks)
    start = jax.tree.map(lambda a, b: jnp.where(flow, a, b) if is_floating(a) else b, positive, own)
    floating = tuple(is_floating(leaf) for leaf in jax.tree.leaves(x))

    def run(leaves: list[jax.Array], floats: list[jax.Array]) -> list[jax.Array]:
        state = place(start, prunable, leaves, lambda leaf: leaf)
        given = place(x, floating, floats, lambda leaf: leaf)
        outputs = jax.tree.leaves(call_traced(saliency.held, state, given))
        return [leaf for leaf in outputs if is_floating(leaf)]

    outputs, back = jax.vjp(run, pick(start, prunable), pick(x, floating))
    weights = [jnp.asarray(w, y.dtype) for w, y in zip(cotangents, outputs, strict=True)]
    gradients, slopes = back(weights)
    return Response(
        [_along(leaf, _example(leaf.shape)) for leaf in outputs],
        [_along(leaf, leaf.shape[1:]) for leaf in slopes],
        have_gradient(gradients, pick(masks, prunable)),
    )


def _along(leaf: jax.Array, example: Shape) -> jax.Array:
    """Tell, for each channel, whether any entry is other than 0."""
    if not example:
        return jnp.any(leaf != 0)[None]
    channel = leaf.ndim + _channel_axis(example)
    return jnp.any(leaf != 0, axis=tuple(k for k in range(leaf.ndim) if k != channel))


def _without_flow(
    saliency: Any, pruned: Pruned, shapes: list[tuple[str, Shape]]
) -> tuple[str, ...]:
    """Name outputs that flow no longer reaches, and inputs that no longer have an effect."""
    params, layers = pruned.params, pruned.layers
    x = saliency.inputs.ones(floating_dtype(jax.eval_shape(widen, params)))
    ones = [np.ones(shape, np.float32) for _, shape in shapes]
    saliency = replace(saliency, sizes=())

    def respond(masks: Masks, log2_flow: float) -> Response:
        share = -log2_flow / len(layers.paths) if np.isfinite(log2_flow) else 0.0
        scale = np.float32(2.0**share)
        rest = (np.bool_(True), scale)
        found = _respond(saliency, params, masks, x, ones, *rest, layers.prunable)
        return jax.tree.map(np.asarray, found)

    dense = respond(jax.tree.map(all_true, params), pruned.log2_flows[0])
    after_masks = respond(pruned.masks, pruned.log2_flows[1])
    said = []
    for (path, _), before, after in zip(shapes, dense.outputs, after_masks.outputs, strict=True):
        lost = before & ~after
        name = f"output {path!r}" if path else "the output"
        if lost.any():
            said.append(f"no flow reaches {_entries(lost, name)}")
    examples = _floating_inputs(saliency.inputs)
    for shape, before, after in zip(examples, dense.inputs, after_masks.inputs, strict=True):
        lost = before & ~after
        # Some entries of a vector are cut at any usual compression, as hidden units are.
        if lost.all() or (lost.any() and len(shape) > 1):
            axis = f"axis {len(shape) + _channel_axis(shape)} of " if len(shape) > 1 else ""
            said.append(f"no output depends on {_entries(lost, f'{axis}the input')}")
    remedy = "pass a smaller rho, or leave the layers at that end out by `prunable`"
    return (f"{' and '.join(said)} ({remedy})",) if said else ()


def _entries(lost: Any, name: str) -> str:
    """Write which entries are lost, and how many of how many."""
    if lost.all():
        return f"{name}, none of its entries" if lost.size > 1 else name
    numbers = [str(k) for k in np.flatnonzero(lost)]
    return f"{len(numbers)} of {lost.size} entries of {name} ({listed_names(numbers)})"


def _without_signal(
    saliency: Any, pruned: Pruned, shapes: list[tuple[str, Shape]], closed: tuple[str, ...]
) -> tuple[str, ...]:
    """Describe a network that, at its own values, passes no signal or lacks gradients in layers."""
    params, layers = pruned.params, pruned.layers
    own = replace(saliency, sizes=())
    if saliency.network.homogeneous:
        own = replace(own, held=as_function(as_network(saliency.network.plain), "apply_fn"))
    everything = jax.tree.map(all_true, params)
    open_layers = np.array([path not in pruned.known for path in layers.paths])
    signals, gradients = np.zeros((2, 1), bool), np.zeros((2, len(layers.paths)), bool)
    for draw in range(DRAWS):
        x, cotangents = _draw(saliency.inputs, params, shapes, draw)
        for at, some in enumerate((pruned.masks, everything)):
            rest = (np.bool_(False), np.float32(1))
            found = _respond(own, params, some, x, cotangents, *rest, layers.prunable)
            signals[at] |= any(bool(np.any(part)) for part in found.inputs)
            gradients[at] |= np.asarray(found.gradients)
            if at == 0 and signals[0] | (not found.inputs) and gradients[0][open_layers].all():
                return ()
        mute = bool(signals[1] & ~signals[0])
        missing = gradients[1] & ~gradients[0] & open_layers
        if not mute and not missing.any():
            return ()
    if mute:
        shut = f" ({listed_names(closed)} close their branches)" if closed else ""
        return (
            "at its own values it passes no signal, so that its outputs do not depend on the "
            f"input{shut}: keep the branches that are open at the start (min_keep=1), or score "
            "and train from values at which none is closed",
        )
    names = [path for path, none in zip(layers.paths, missing, strict=True) if none]
    return (
        f"at its own values it has no gradient in {listed_names(names)}, so that training "
        "cannot change them (pass min_keep=1, more rounds or a smaller rho)",
    )


def _draw(inputs: Inputs, params: Params, shapes: list[tuple[str, Shape]], seed: int) -> Any:
    """Draw normal inputs, whole numbers being ones, and a weight for each output."""
    rng = np.random.default_rng(seed)
    ones = inputs.ones(floating_dtype(jax.eval_shape(widen, params)))

    def one(leaf: Any) -> Any:
        return (
            np.asarray(rng.standard_normal(leaf.shape), leaf.dtype) if is_floating(leaf) else leaf
        )

    weights = [rng.standard_normal(shape).astype(np.float32) for _, shape in shapes]
    return jax.tree.map(one, ones), weights
