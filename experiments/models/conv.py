"""The small convolutional network: two 3×3 convolutions of 32, Kaiming normal, biases 0.

The reference leaves this network at PyTorch's default, U(±1/√fan_in).
"""

import flax.linen as nn
from jax import Array

from experiments.models.layers import conv, dense, flatten, kaiming_fan_in


class Conv(nn.Module):
    """`depth` convolutions of `width` ReLU channels at full resolution and a linear layer."""

    classes: int
    width: int = 32
    depth: int = 2

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # noqa: ARG002
        """Map images (batch, height, width, channels) to logits (batch, classes)."""
        for _ in range(self.depth):
            x = nn.relu(conv(self.width, kernel_init=kaiming_fan_in)(x))
        return dense(self.classes)(flatten(x))
