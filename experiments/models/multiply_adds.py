"""Multiply-adds of a network for one example, by layer."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from synflow_jax.plan import is_prunable


def multiply_adds(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Count the dense multiply-adds of one example: weights × output positions.

    A convolution uses each weight once an output position, for any stride and number of groups.
    Products with padded zeros count, as in published figures; biases, norms and pools do not. A
    masked layer takes its count times its density.

    Args:
      model: a Linen model of `nn.Dense` and `nn.Conv` layers; no weights are made.
      shape: one example without the batch axis, such as (32, 32, 3).

    Returns:
      The count by the path of a prunable leaf, "Conv_0/kernel", in the order of the calls.

    Raises:
      ValueError: a prunable leaf belongs to another kind of layer.

    Example:
      >>> multiply_adds(nn.Dense(10), (784,))
      {'kernel': 7840}
      >>> multiply_adds(nn.Conv(8, (3, 3), strides=2), (32, 32, 3))
      {'kernel': 55296}
    """
    found: dict[str, int] = {}

    def count(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y, layer = call(*args, **kwargs), context.module
        if isinstance(layer, nn.Dense | nn.Conv) and context.method_name == "__call__":
            path = "/".join((*layer.path, "kernel"))
            used = layer.variables["params"]["kernel"].size * math.prod(y.shape[:-1])
            found[path] = found.get(path, 0) + used
        return y

    ones = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    with nn.intercept_methods(count):
        variables = jax.eval_shape(model.init, jax.random.key(0), ones)
    _check(variables["params"], found)
    return found


def _check(params: Any, found: dict[str, int]) -> None:
    leaves = traverse_util.flatten_dict(params, sep="/")
    missing = [p for p, x in leaves.items() if is_prunable(p, x) and p not in found]
    if missing:
        raise ValueError(f"model must be of nn.Dense and nn.Conv layers, got a leaf {missing[0]}")
