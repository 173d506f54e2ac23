"""Networks whose weights are drawn without compiling, and the way that they convolve.

Every kernel is Kaiming normal over its fan in, biases are 0 and BatchNorm is at its start: one rule
for all networks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments.models import layers
from synflow_jax import linen


@dataclass(frozen=True)
class Network:
    """A model and the shape of one example."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (32, 32, 3)


def draw(network: Network, seed: int = 0, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Draw the weights of a network.

    Args:
      network: a model and the shape of one example.
      seed: of NumPy's generator.
      dtype: of all leaves; the numbers are those of float32.

    Returns:
      params and apply_fn(params, x), in evaluation mode.
    """
    model, rng = network.build(), np.random.default_rng(seed)
    ones = jax.ShapeDtypeStruct((1, *network.shape), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), ones)

    def start(path: Any, leaf: Any) -> jax.Array:
        name = path[-1].key
        if name != "kernel":
            return jnp.full(leaf.shape, float(name in ("scale", "var")), dtype)
        values = rng.standard_normal(leaf.shape, np.float32)
        values *= np.sqrt(2 / np.prod(leaf.shape[:-1])).astype(np.float32)
        return jnp.asarray(values.astype(dtype))

    variables = jax.tree_util.tree_map_with_path(start, shapes)
    return linen.from_linen(model, variables, train=False)


def plain_flow(params: Any, apply_fn: Any, shape: tuple[int, ...]) -> jax.Array:
    """Compute R_SF in plain JAX, of weights that are already positive."""
    return jnp.sum(apply_fn(params, jnp.ones((1, *shape), jax.tree.leaves(params)[0].dtype)))


def convolving(way: Callable[..., Array]) -> Any:
    """Make networks that are traced in a `with` block convolve by a given function."""
    return mock.patch.object(layers, "quick_conv", return_value=way)


def xla_convolution() -> Any:
    """Use XLA's own convolution, as a user's network does, in a `with` block.

    The convolution by patches is faster in a loop on CPUs, but compiling it takes longer than ten
    rounds save.
    """
    return convolving(lax.conv_general_dilated)
