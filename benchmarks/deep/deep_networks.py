"""The deep networks that are measured, as plain Flax Linen modules.

The ImageNet networks take images of 64×64, at which they have all their weights.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from benchmarks.shared.networks import Network
from experiments.models import MODELS
from experiments.models.fc import FC
from experiments.models.layers import batch_norm, conv, dense
from experiments.models.resnet import cifar_resnet, resnet


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
class DeepNetwork(Network):
    """A network, the layers that all of its flow crosses, and whether its gradient is computed."""

    cuts: tuple[str, ...] = ("Conv_0", "linear")  # empty: all layers
    gradient: bool = True


NETWORKS = {
    "vgg16": DeepNetwork(lambda: MODELS["vgg16"](10), cuts=()),
    "resnet20": DeepNetwork(lambda: MODELS["resnet20"](10)),
    "resnet56": DeepNetwork(lambda: MODELS["resnet56"](10)),
    "resnet110": DeepNetwork(lambda: MODELS["resnet110"](10)),
    "mlp1000": DeepNetwork(lambda: FC(10, width=32, depth=999), (8, 8, 1), cuts=()),
    "residual_mlp400": DeepNetwork(lambda: ResidualMLP(400), (64,), ("Dense_0", "Dense_801")),
    "resnet50": DeepNetwork(lambda: resnet(1000, 50, imagenet=True), (64, 64, 3)),
    "resnet101": DeepNetwork(lambda: resnet(1000, 101, imagenet=True), (64, 64, 3)),
    "resnet152": DeepNetwork(lambda: resnet(1000, 152, imagenet=True), (64, 64, 3)),
    "densenet121": DeepNetwork(
        lambda: DenseNet((6, 12, 24, 16)), (64, 64, 3), ("Conv_0", "Dense_0")
    ),
    "unet": DeepNetwork(UNet, (64, 64, 3), ("Conv_0", "Conv_18")),
    "resnet1202": DeepNetwork(lambda: cifar_resnet(10, 1202), gradient=False),
}
