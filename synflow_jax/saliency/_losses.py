"""What a network has lost once it is masked: outputs and inputs without flow, signal, gradients.

One program runs the network and its derivative. At |θ| on ones it shows which outputs have flow and
which inputs have an effect; at θ itself on random inputs, whether a signal and gradients pass. Both
are computed on mantissas and powers of two, so that nothing overflows or underflows at any depth.
The program is compiled with few optimisations, since it runs a few times only, and only where a
cheap sign says that something may be lost. What the dense network lacks as well is not a loss.
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
from synflow_jax.saliency._protocol import Pruned
from synflow_jax.scaled import scaled
from synflow_jax.structure import Reading
from synflow_jax.trees import (
    QUICK,
    Inputs,
    Masks,
    Params,
    Shape,
    all_true,
    as_function,
    call_traced,
    floating_dtype,
    is_floating,
    is_weight,
    listed_names,
    path_string,
    pick,
    place,
    widen,
)

DRAWS = 9  # of inputs: in one draw alone, ReLUs may happen to be closed


class Response(NamedTuple):
    """What is not 0, in bools: lists of arrays by entry of one example, and one array by layer."""

    outputs: list[Any]  # of the outputs
    inputs: list[Any]  # of the derivatives by the floating inputs
    gradients: Any  # of the derivatives by the kept weights of each layer


def find_losses(saliency: Any, pruned: Pruned) -> tuple[str, ...]:
    """Describe what the masks cut of a network, one phrase each; see `Saliency.losses`."""
    params = pruned.params
    if not all(getattr(leaf, "is_fully_addressable", True) for leaf in jax.tree.leaves(params)):
        return ()  # other hosts hold a part of it
    shapes = output_shapes(saliency, params)
    said: tuple[str, ...] = ()
    reading = saliency.reading(params)
    if pruned.known or _may_be_cut(pruned.masks, pruned.layers, reading, saliency.inputs):
        said += _without_flow(saliency, pruned, shapes)
    closed: tuple[str, ...] = ()
    if saliency.network.homogeneous:
        closed = find_closed(params, reading)
    # Where all layers have flow and no branch is closed, signals pass at the network's own values
    # too: they could only cancel.
    if pruned.known or closed:
        said += _without_signal(saliency, pruned, shapes, closed)
    return said


@highest_precision
def output_shapes(saliency: Any, params: Params) -> list[tuple[str, Shape]]:
    """List (path, shape) of the floating outputs; the network has been traced already."""
    wide = jax.eval_shape(widen, params)
    outputs = jax.eval_shape(
        call_traced, saliency.held, wide, saliency.inputs.ones(floating_dtype(wide))
    )
    pairs = jax.tree_util.tree_flatten_with_path(outputs)[0]
    return [(path_string(path), leaf.shape) for path, leaf in pairs if is_floating(leaf)]


def _example(shape: Shape) -> Shape:
    """Return the shape of one output without the batch axis, where it has one."""
    return shape[1:] if shape[:1] == (1,) else shape


def _floating_inputs(inputs: Inputs) -> list[Shape]:
    """List the shapes of the floating inputs of one example."""
    return [shape for shape, dtype in inputs.specs if dtype is None]


def _may_be_cut(masks: Masks, layers: Layers, reading: Reading, inputs: Inputs) -> bool:
    """Whether an input of a first layer, or an output of a last one, has no kept weight.

    Single entries of a vector are cut at any usual compression, and are not looked for.
    """
    entries = all(len(shape) < 2 for shape in _floating_inputs(inputs))
    leaves, axes = [], []
    for path, leaf, at in zip(
        layers.paths, pick(masks, layers.prunable), layers.layouts, strict=True
    ):
        own = at.inputs if path in reading.first and not entries else ()
        own += at.outputs if path in reading.last else ()
        if own:
            leaves.append(leaf)
            axes.append(own)
    return bool(leaves) and bool(_has_empty_slice(leaves, tuple(axes)))


@partial(jax.jit, static_argnums=1, compiler_options=QUICK)
def _has_empty_slice(masks: Sequence[jax.Array], axes: tuple[tuple[int, ...], ...]) -> jax.Array:
    found = [
        ~jnp.any(mask, axis=tuple(k for k in range(mask.ndim) if k != axis)).all()
        for mask, own in zip(masks, axes, strict=True)
        for axis in own
    ]
    return jnp.stack(found).any()


@partial(jax.jit, static_argnames=("axes",))
def have_gradient(
    gradients: Sequence[jax.Array], kept: Sequence[jax.Array], axes: tuple[tuple[int, ...], ...]
) -> jax.Array:
    """Return, for each layer, whether a kept weight has a gradient other than 0.

    Args:
      gradients: of the prunable leaves.
      kept: their masks.
      axes: the axes of each leaf along which it holds several layers.
    """
    found = [
        jnp.any((gradient != 0) & mask, axis=tuple(k for k in range(mask.ndim) if k not in own))
        for gradient, mask, own in zip(gradients, kept, axes, strict=True)
    ]
    return jnp.concatenate([jnp.ravel(has) for has in found])


@partial(jax.jit, static_argnames=("layers",), compiler_options=QUICK)
@highest_precision
def _respond(
    saliency: Any,
    params: Params,
    masks: Masks,
    x: Any,
    cotangents: list[Any],
    flow: Any,
    layers: Layers,
) -> Response:
    """Run the masked network and its derivative, on mantissas and powers of two.

    Args:
      saliency: holds the network.
      params: the dense ones.
      masks: bool tree.
      x: the inputs.
      cotangents: by what each floating output is weighted.
      flow: whether the network is run at |θ| without sources, or at θ.
      layers: the prunable leaves.
    """
    prunable = layers.prunable
    plain = saliency.from_input_alone(params, prunable)
    positive = saliency.entering_weights(plain, masks)
    own = saliency.masked_weights(params, masks)
    start = jax.tree.map(lambda a, b: jnp.where(flow, a, b) if is_weight(a) else b, positive, own)
    floating = tuple(is_floating(leaf) for leaf in jax.tree.leaves(x))
    sizes = saliency.sizes and (*saliency.sizes, *[0.0] * len(floating))

    def run(leaves: list[jax.Array], floats: list[jax.Array]) -> list[jax.Array]:
        state = place(start, prunable, leaves, lambda leaf: leaf)
        given = place(x, floating, floats, lambda leaf: leaf)
        evaluated = scaled(partial(_floating_outputs, saliency.held), sizes)
        return [output.mantissa for output in evaluated(state, given)]

    outputs, back = jax.vjp(run, pick(start, prunable), pick(x, floating))
    weights = [jnp.asarray(w, y.dtype) for w, y in zip(cotangents, outputs, strict=True)]
    gradients, slopes = back(weights)
    return Response(
        [leaf.reshape(_example(leaf.shape)) != 0 for leaf in outputs],
        [leaf[0] != 0 for leaf in slopes],
        have_gradient(gradients, pick(masks, prunable), layers.axes),
    )


def _floating_outputs(held: Any, params: Params, x: Any) -> list[jax.Array]:
    return [leaf for leaf in jax.tree.leaves(call_traced(held, params, x)) if is_floating(leaf)]


def _without_flow(
    saliency: Any, pruned: Pruned, shapes: list[tuple[str, Shape]]
) -> tuple[str, ...]:
    """Name outputs that flow no longer reaches, and inputs that no longer have an effect."""
    params = pruned.params
    x = saliency.inputs.ones(floating_dtype(jax.eval_shape(widen, params)))
    ones = [np.ones(shape, np.float32) for _, shape in shapes]

    def respond(masks: Masks) -> Response:
        found = _respond(saliency, params, masks, x, ones, np.bool_(True), pruned.layers)
        return jax.tree.map(np.asarray, found)

    dense, after = respond(jax.tree.map(all_true, params)), respond(pruned.masks)
    said = []
    for (path, _), had, has in zip(shapes, dense.outputs, after.outputs, strict=True):
        lost = _lost(had, has, f"output {path!r}" if path else "the output")
        said += [f"no flow reaches {lost}"] if lost else []
    pairs = jax.tree_util.tree_flatten_with_path(x)[0]
    paths = [path_string(path) for path, leaf in pairs if is_floating(leaf)]
    for path, had, has in zip(paths, dense.inputs, after.inputs, strict=True):
        # Single entries are cut at any usual compression, as hidden units are.
        lost = _lost(had, has, f"input {path!r}" if path else "the input", single=False)
        said += [f"no output depends on {lost}"] if lost else []
    remedy = "pass a smaller rho, or leave the layers at that end out by `prunable`"
    return (f"{' and '.join(said)} ({remedy})",) if said else ()


def _lost(before: np.ndarray, after: np.ndarray, name: str, single: bool = True) -> str:
    """Write which entries of an array are lost, "" where none are.

    Where all entries are lost of some slices along an axis, a channel or a position, these are
    named, along the axis on which they hold most of what is lost.

    Args:
      before: whether each entry has flow, or an effect, in the dense network.
      after: the same of the pruned one.
      name: of the array.
      single: whether entries that make up no slice of several are named too.
    """
    lost = before & ~after
    if not lost.any():
        return ""
    if not after.any():
        return f"{name}, none of its entries" if lost.size > 1 else name
    found: list[tuple[int, int, np.ndarray]] = []
    for axis, size in enumerate(lost.shape):
        others = tuple(k for k in range(lost.ndim) if k != axis)
        slices = np.flatnonzero(before.any(others) & ~after.any(others))
        if slices.size and (single or lost.size > size):
            found.append((int(lost.take(slices, axis).sum()), axis, slices))
    if found:
        _, axis, slices = max(found, key=lambda one: one[0])
        owner = f"axis {axis} of {name}" if lost.ndim > 1 else name
        numbers = listed_names([str(k) for k in slices])
        return f"{slices.size} of {lost.shape[axis]} entries of {owner} ({numbers})"
    return f"{lost.sum()} of {lost.size} entries of {name}" if single else ""


def _without_signal(
    saliency: Any, pruned: Pruned, shapes: list[tuple[str, Shape]], closed: tuple[str, ...]
) -> tuple[str, ...]:
    """Describe a network that, at its own values, passes no signal or lacks gradients in layers."""
    params, layers = pruned.params, pruned.layers
    own = saliency
    if saliency.network.homogeneous:
        own = replace(own, held=as_function(as_network(saliency.network.plain), "apply_fn"))
    everything = jax.tree.map(all_true, params)
    open_layers = np.array([name not in pruned.known for name in layers.names])
    signals, gradients = np.zeros((2, 1), bool), np.zeros((2, len(layers.names)), bool)
    for draw in range(DRAWS):
        x, cotangents = _draw(saliency.inputs, params, shapes, draw)
        for at, some in enumerate((pruned.masks, everything)):
            found = _respond(own, params, some, x, cotangents, np.bool_(False), layers)
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
            f"input{shut} ({pruned.remedy}, or score and train from values at which branches are "
            "open)",
        )
    names = [name for name, none in zip(layers.names, missing, strict=True) if none]
    return (
        f"at its own values it has no gradient in {listed_names(names)}, so that training "
        f"cannot change them ({pruned.remedy})",
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
