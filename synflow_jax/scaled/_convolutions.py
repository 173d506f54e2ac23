"""Convolutions of a batch of one as matrix products, which are faster on the CPU.

XLA's own convolutions have slow cases there, and inside a loop they run on one thread. As patches
of the input times the kernel as a matrix they run on all cores. Only the order of summation
changes.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def is_better_as_product(eqn: Any, x: jax.Array, kernel: jax.Array) -> bool:
    """Whether a convolution runs faster as a matrix product, on the backend in use."""
    p, out = eqn.params, eqn.outvars[0].aval
    batch = x.shape[p["dimension_numbers"].lhs_spec[0]]
    usual = p["batch_group_count"] == 1 and x.dtype == kernel.dtype and x.ndim > 2
    # Over Explicit mesh axes a convolution names the sharding of its result, a reshape cannot.
    replicated = not any(
        any(each.sharding.spec) for each in (jax.typeof(x), jax.typeof(kernel), out)
    )
    usual = usual and 0 not in out.shape and replicated
    return jax.default_backend() == "cpu" and batch == 1 and usual


def as_product(eqn: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Evaluate a convolution as patches times a matrix.

    Args:
      eqn: an equation of the primitive conv_general_dilated.
      x: its input, a batch of one.
      kernel: its kernel.

    Returns:
      The result of the equation, up to rounding.
    """
    p = eqn.params
    lhs, rhs, out = p["dimension_numbers"]
    x = jnp.transpose(x, (lhs[0], *lhs[2:], lhs[1]))
    kernel = jnp.transpose(kernel, (*rhs[2:], rhs[1], rhs[0]))
    # With the checkpoint a derivative stores x, not its patches: they are as many times larger as
    # the window has places, and loops and branches would copy them. Elsewhere XLA merges the two
    # computations of the patches.
    result = jax.checkpoint(partial(_conv, p=p), prevent_cse=False)(x, kernel)
    order = (out[0], *out[2:], out[1])  # where each of batch, space and feature goes
    return jnp.transpose(result, [order.index(axis) for axis in range(result.ndim)])


def _conv(x: jax.Array, kernel: jax.Array, p: Any) -> jax.Array:
    """Convolve x[1, *space, in] with kernel[*window, in / groups, out]."""
    window, (depth, features) = kernel.shape[:-2], kernel.shape[-2:]
    groups, places = p["feature_group_count"], math.prod(window)
    patches = _patches(x, window, p)
    space = patches.shape[1 : -len(window) - 1]
    patches = patches.reshape(math.prod(space), places, groups, depth)
    kernel = kernel.reshape(places, depth, groups, features // groups)
    precise = {"precision": p["precision"], "preferred_element_type": p["preferred_element_type"]}
    if groups == 1:
        left, right = patches.reshape(math.prod(space), -1), kernel.reshape(-1, features)
        found = lax.dot_general(left, right, (((1,), (0,)), ((), ())), **precise)
    elif depth == 1:
        # Half precision is summed in float32, as in a matrix product.
        wide = kernel.dtype if jnp.finfo(kernel.dtype).bits >= 32 else jnp.float32
        found = jnp.sum(patches.astype(wide) * kernel[None, :, 0].astype(wide), axis=1)
        found = found.astype(p["preferred_element_type"] or kernel.dtype)
    else:
        dimensions = (((1, 3), (0, 1)), ((2,), (2,)))
        found = lax.dot_general(patches, kernel, dimensions, **precise).transpose(1, 0, 2)
    return found.reshape(1, *space, features)


def _patches(x: jax.Array, window: tuple[int, ...], p: Any) -> jax.Array:
    """Collect the entries that the window sees at each place: [1, *space, *window, in]."""
    gaps = zip(p["padding"], p["lhs_dilation"], strict=True)
    inner = [(low, high, step - 1) for (low, high), step in gaps]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    # One axis after the other, the last first: fewer slices to compile than one a place.
    for axis in range(len(window), 0, -1):
        size, dilation, stride = (
            v[axis - 1] for v in (window, p["rhs_dilation"], p["window_strides"])
        )
        end = x.shape[axis] - (size - 1) * dilation
        seen = [
            lax.slice_in_dim(x, i * dilation, i * dilation + end, stride, axis) for i in range(size)
        ]
        x = jnp.concatenate([jnp.expand_dims(s, len(window) + 1) for s in seen], len(window) + 1)
    return x
