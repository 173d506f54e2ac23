"""Deep networks as plain Flax Linen modules, and their weights drawn without compiling anything.

Every kernel is Kaiming normal over its fan in, biases are 0 and BatchNorm is at its start, so that
one rule holds for all. The ImageNet networks have all their weights at an image of 64×64, too.
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

from experiments.models import MODELS, layers
from experiments.models.fc import FC
from experiments.models.layers import batch_norm, conv, dense
from experiments.models.resnet import cifar_resnet, resnet
from synflow_jax import linen


class DenseNet(nn.Module):
    """DenseNet with bottlenecks; each layer sees all before it. Huang et al. 2017, table 1."""

    blocks: tuple[int, ...]
    growth: int = 32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Map images (batch, height, width, channels) to logits (batch, 1000)."""
        x = nn.relu(batch_norm(train)(conv(2 * self.growth, 7, 2, use_bias=False)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, count in enumerate(self.blocks):
            if stage:
                x = nn.relu(batch_norm(train)(x))
                x = nn.avg_pool(conv(x.shape[-1] // 2, 1, use_bias=False)(x), (2, 2), (2, 2))
            for _ in range(count):
                x = jnp.concatenate([x, self._layer(x, train)], -1)
        x = nn.relu(batch_norm(train)(x))
        return dense(1000)(jnp.mean(x, (1, 2)))

    def _layer(self, x: Array, train: bool) -> Array:
        y = conv(4 * self.growth, 1, use_bias=False)(nn.relu(batch_norm(train)(x)))
        return conv(self.growth, use_bias=False)(nn.relu(batch_norm(train)(y)))


class UNet(nn.Module):
    """U-Net: halve the map `levels` times, and back, with a long skip at every size."""

    width: int = 64
    levels: int = 4

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # noqa: ARG002
        """Map images (batch, height, width, channels) to logits of two classes a pixel."""
        skips = []
        for level in range(self.levels):
            x = self._twice(x, self.width * 2**level)
            skips.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = self._twice(x, self.width * 2**self.levels)
        for level in reversed(range(self.levels)):
            x = nn.ConvTranspose(self.width * 2**level, (2, 2), (2, 2))(x)
            x = self._twice(jnp.concatenate([skips[level], x], -1), self.width * 2**level)
        return conv(2, 1)(x)

    def _twice(self, x: Array, features: int) -> Array:
        return nn.relu(conv(features)(nn.relu(conv(features)(x))))


class ResidualMLP(nn.Module):
    """Blocks x + W₂ relu(W₁ x) between two linear layers."""

    blocks: int
    width: int = 64

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # noqa: ARG002
        """Map vectors (batch, features) to logits (batch, 10)."""
        x = dense(self.width)(x)
        for _ in range(self.blocks):
            x = x + dense(self.width)(nn.relu(dense(self.width)(x)))
        return dense(10)(x)


@dataclass(frozen=True)
class Network:
    """A model, the shape of one example, which layers are cuts, and what is affordable."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (32, 32, 3)
    cuts: tuple[str, ...] = ("Conv_0", "linear")  # layers that all flow crosses; empty: all layers
    gradient: bool = True


NETWORKS = {
    "vgg16": Network(lambda: MODELS["vgg16"](10), cuts=()),
    "resnet20": Network(lambda: MODELS["resnet20"](10)),
    "resnet56": Network(lambda: MODELS["resnet56"](10)),
    "resnet110": Network(lambda: MODELS["resnet110"](10)),
    "mlp1000": Network(lambda: FC(10, width=32, depth=999), (8, 8, 1), cuts=()),
    "residual_mlp400": Network(lambda: ResidualMLP(400), (64,), ("Dense_0", "Dense_801")),
    "resnet50": Network(lambda: resnet(1000, 50, imagenet=True), (64, 64, 3)),
    "resnet101": Network(lambda: resnet(1000, 101, imagenet=True), (64, 64, 3)),
    "resnet152": Network(lambda: resnet(1000, 152, imagenet=True), (64, 64, 3)),
    "densenet121": Network(lambda: DenseNet((6, 12, 24, 16)), (64, 64, 3), ("Conv_0", "Dense_0")),
    "unet": Network(UNet, (64, 64, 3), ("Conv_0", "Conv_18")),
    "resnet1202": Network(lambda: cifar_resnet(10, 1202), gradient=False),
}


def draw(network: Network, seed: int = 0, dtype: Any = np.float32) -> tuple[Any, Any]:
    """Draw the weights of a network.

    Args:
      network: an entry of NETWORKS.
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
    """R_SF as anyone would write it down, of weights that are positive already."""
    return jnp.sum(apply_fn(params, jnp.ones((1, *shape), jax.tree.leaves(params)[0].dtype)))


def convolving(way: Callable[..., Array]) -> Any:
    """Let all networks convolve in one way in a `with` block, while they are traced."""
    return mock.patch.object(layers, "quick_conv", return_value=way)


def xla_convolution() -> Any:
    """Use XLA's own convolution, as a user's network has it, in a `with` block.

    The one by patches is quicker in a loop on CPUs, but ten rounds do not pay for compiling it.
    """
    return convolving(lax.conv_general_dilated)
