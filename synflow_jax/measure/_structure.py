"""The structure of a network, read from its trace: stacked layers, their order, axes of kernels."""

from typing import Any, NamedTuple

from synflow_jax.plan import find_layers, read_structure
from synflow_jax.structure import Stack
from synflow_jax.trees import ApplyFn, Params, Prunable, converted


@converted("params", shapes=True)
def stacked_layers(params: Params, apply_fn: ApplyFn, shape: Any) -> dict[str, Stack]:
    """Find the leaves that hold several layers: those of which the network uses slice after slice.

    A leaf is followed from the params through calls, changes of dtype and changes of shape, to the
    scan that slices it or to the index that takes one slice.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      path -> L, in tree order; L is a whole number, and L.axis the axis along which layers lie.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def network(p, x):
      ...     return jax.lax.scan(lambda h, w: (h @ w, None), x, p["w"])[0]
      >>> found = stacked_layers({"w": jnp.ones((3, 2, 2))}, network, (2,))
      >>> found, found["w"].axis
      ({'w': 3}, 0)
    """
    return read_structure(params, apply_fn, shape).stacks


@converted("params", shapes=True)
def layer_order(
    params: Params, apply_fn: ApplyFn, shape: Any, *, prunable: Prunable | None = None
) -> tuple[str, ...]:
    """List the prunable leaves in the order in which the network uses them.

    A leaf is used where it, or a function of leaves alone (a cast, a product of two), first meets a
    value that depends on the input. matching(but=[order[0], order[-1]]) leaves out the first and
    the last layer.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the leaves to list.

    Returns:
      Paths, without those of leaves that the network does not use.

    Raises:
      ValueError: params has no prunable leaf, apply_fn fails on the shape, or it uses no leaf.
      TypeError: apply_fn is not a function, or shape is not a shape.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"in": jnp.ones((2, 3)), "a_head": jnp.ones((3, 1))}
      >>> layer_order(weights, lambda p, x: x @ p["in"] @ p["a_head"], (2,))
      ('in', 'a_head')
    """
    reading = read_structure(params, apply_fn, shape)
    layers = find_layers(params, prunable, reading)
    order = tuple(path for path in reading.order if path in layers.paths)
    if not order:
        raise ValueError(f"apply_fn must use its params, and uses none of {list(layers.paths)}")
    return order


class Sides(NamedTuple):
    """The axes of one kernel over which it has inputs and outputs."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def find_sides(params: Params, apply_fn: ApplyFn, shape: Any) -> dict[str, Sides]:
    """Read the input and output axes of each leaf from the products and convolutions that use it.

    A leaf that is used in none is taken to be in Flax's layout, (…, in, out).
    """
    return {
        use.path: Sides(use.inputs, use.outputs)
        for use in read_structure(params, apply_fn, shape).uses
    }
