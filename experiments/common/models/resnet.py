"""Residual networks for CIFAR: ResNet-20 and ResNet-18 with a 3×3 stem.

Basic blocks, a 1×1 convolution with BatchNorm where a shortcut changes its shape, a global
average pool and one linear layer; the convolutions have no bias. ResNet-20 is Kaiming normal over
the fan in with a bias of 0, ResNet-18 over the fan out with a linear layer of U(±1/√fan_in).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from experiments.common.models.layers import batch_norm, conv, kaiming_fan_in, kaiming_fan_out

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform_bias(fan_in: int) -> Callable[..., Array]:
    """Build PyTorch's initialisation of a linear layer's bias, U(±1/√fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    features: int
    stride: int
    kernel_init: Callable[..., Any]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map (batch, height, width, in) to (batch, height/stride, width/stride, features)."""
        settings = {"use_bias": False, "kernel_init": self.kernel_init}
        y = conv(self.features, 3, self.stride, **settings)(x)
        y = conv(self.features, **settings)(nn.relu(batch_norm(train)(y)))
        if x.shape[-1] != self.features:
            x = batch_norm(train)(conv(self.features, 1, self.stride, **settings)(x))
        return nn.relu(batch_norm(train)(y) + x)


class ResNet(nn.Module):
    """Stages of `blocks` basic blocks at `features` channels; all but the first halve the map."""

    classes: int
    blocks: tuple[int, ...]
    features: tuple[int, ...]
    torch_linear: bool

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Map images (batch, height, width, channels) to logits (batch, classes)."""
        init = kaiming_fan_out if self.torch_linear else kaiming_fan_in
        x = conv(self.features[0], use_bias=False, kernel_init=init)(x)
        x = nn.relu(batch_norm(train)(x))
        for stage, (count, features) in enumerate(zip(self.blocks, self.features, strict=True)):
            for block in range(count):
                x = Block(features, 2 if stage and not block else 1, init)(x, train)
        return self._linear(jnp.mean(x, (1, 2)))

    def _linear(self, x: Array) -> Array:
        kernel = uniform_fan_in if self.torch_linear else kaiming_fan_in
        bias = uniform_bias(x.shape[-1]) if self.torch_linear else nn.initializers.zeros
        return nn.Dense(self.classes, kernel_init=kernel, bias_init=bias, name="linear")(x)


def resnet20(classes: int) -> ResNet:
    """Build ResNet-20: three stages of three blocks at 16, 32 and 64 channels."""
    return ResNet(classes, (3, 3, 3), (16, 32, 64), torch_linear=False)


def resnet18(classes: int) -> ResNet:
    """Build ResNet-18: four stages of two blocks at 64, 128, 256 and 512 channels."""
    return ResNet(classes, (2, 2, 2, 2), (64, 128, 256, 512), torch_linear=True)
