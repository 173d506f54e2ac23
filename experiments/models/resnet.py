"""Residual networks: CIFAR's of 6n + 2 layers, and those of 18 to 152 layers with either stem.

He et al. 2016. Convolutions without bias and with BatchNorm, a 1×1 convolution with BatchNorm where
a shortcut changes its shape, a global average pool and one linear layer. CIFAR's family is Kaiming
normal over the fan in with a bias of 0; the others are Kaiming normal over the fan out, with a
linear layer of U(±1/√fan_in).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from experiments.models.layers import batch_norm, conv, kaiming_fan_in, kaiming_fan_out

BORDER: Any = ((1, 1), (1, 1))  # max_pool takes pairs, but its annotation is str
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform_bias(fan_in: int) -> Callable[..., Array]:
    """Build PyTorch's initialisation of a linear layer's bias, U(±1/√fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def join(
    x: Array, y: Array, stride: int, train: bool, closed: bool, settings: dict[str, Any]
) -> Array:
    """End a block: add its branch y to x, projected by a 1×1 convolution if needed, then ReLU.

    Call it in a module's compact method; the layers belong to that module. With `closed` the last
    scale of the branch starts at 0.
    """
    if x.shape[-1] != y.shape[-1]:
        x = batch_norm(train)(conv(y.shape[-1], 1, stride, **settings)(x))
    scale = nn.initializers.zeros if closed else nn.initializers.ones
    return nn.relu(batch_norm(train, scale_init=scale)(y) + x)


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    features: int
    stride: int
    kernel_init: Callable[..., Any]
    closed: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map (batch, height, width, in) to (batch, height/stride, width/stride, features)."""
        settings = {"use_bias": False, "kernel_init": self.kernel_init}
        y = conv(self.features, 3, self.stride, **settings)(x)
        y = conv(self.features, **settings)(nn.relu(batch_norm(train)(y)))
        return join(x, y, self.stride, train, self.closed, settings)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut; the stride is in the 3×3 one."""

    features: int
    stride: int
    kernel_init: Callable[..., Any]
    closed: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map (batch, height, width, in) to (batch, height/stride, width/stride, 4·features)."""
        settings = {"use_bias": False, "kernel_init": self.kernel_init}
        y = nn.relu(batch_norm(train)(conv(self.features, 1, **settings)(x)))
        y = conv(self.features, 3, self.stride, **settings)(y)
        y = conv(4 * self.features, 1, **settings)(nn.relu(batch_norm(train)(y)))
        return join(x, y, self.stride, train, self.closed, settings)


class ResNet(nn.Module):
    """Stages of `blocks` blocks at `features` channels; all but the first halve the map.

    The stem is a 3×3 convolution, or with `imagenet` a 7×7 one of stride 2 and a max-pool. With
    `closed` the last scale of every block starts at 0, so that the block starts as its shortcut.
    """

    classes: int
    blocks: tuple[int, ...]
    features: tuple[int, ...]
    torch_linear: bool
    block: type[Block] | type[Bottleneck] = Block
    imagenet: bool = False
    closed: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Map images (batch, height, width, channels) to logits (batch, classes)."""
        init = kaiming_fan_out if self.torch_linear else kaiming_fan_in
        size, stride = (7, 2) if self.imagenet else (3, 1)
        x = conv(self.features[0], size, stride, use_bias=False, kernel_init=init)(x)
        x = nn.relu(batch_norm(train)(x))
        if self.imagenet:
            x = nn.max_pool(x, (3, 3), (2, 2), BORDER)
        for stage, (count, features) in enumerate(zip(self.blocks, self.features, strict=True)):
            for block in range(count):
                stride = 2 if stage and not block else 1
                x = self.block(features, stride, init, self.closed)(x, train)
        return self._linear(jnp.mean(x, (1, 2)))

    def _linear(self, x: Array) -> Array:
        kernel = uniform_fan_in if self.torch_linear else kaiming_fan_in
        bias = uniform_bias(x.shape[-1]) if self.torch_linear else nn.initializers.zeros
        return nn.Dense(self.classes, kernel_init=kernel, bias_init=bias, name="linear")(x)


STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def cifar_resnet(classes: int, depth: int, width: int = 16, closed: bool = False) -> ResNet:
    """Build CIFAR's ResNet: three stages of (depth − 2) / 6 blocks.

    Args:
      classes: how many logits.
      depth: layers on the longest path, 6n + 2.
      width: channels of the first stage; the next have twice and four times as many. The wide
        networks of this family have 32.
      closed: whether the last scale of every block starts at 0.

    Returns:
      The model.

    Raises:
      ValueError: depth is not 6n + 2 for an n of 1 or more.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6n + 2, from 8 up, got {depth}")
    blocks, features = ((depth - 2) // 6,) * 3, (width, 2 * width, 4 * width)
    return ResNet(classes, blocks, features, torch_linear=False, closed=closed)


def resnet(classes: int, depth: int, imagenet: bool = False) -> ResNet:
    """Build a ResNet of four stages at 64, 128, 256 and 512 channels.

    18 and 34 layers are of basic blocks, the deeper ones of bottlenecks. The reference's wide
    ResNet-18 is this one: its basic block takes a width and does not use it.

    Args:
      classes: how many logits.
      depth: 18, 34, 50, 101 or 152.
      imagenet: use ImageNet's stem, for images of 224×224. The other stem is CIFAR's, which the
        reference also uses for Tiny-ImageNet's 64×64.

    Returns:
      The model.

    Raises:
      ValueError: depth is none of these.
    """
    if depth not in STAGES:
        raise ValueError(f"depth must be one of {list(STAGES)}, got {depth}")
    block = Block if depth < 50 else Bottleneck
    return ResNet(classes, STAGES[depth], (64, 128, 256, 512), True, block, imagenet)
