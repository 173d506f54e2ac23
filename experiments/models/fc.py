"""The fully connected network: five hidden layers of 100 units, Kaiming normal, biases 0.

The reference leaves this network at PyTorch's default, U(±1/√fan_in).
"""

import flax.linen as nn
from jax import Array

from experiments.models.layers import dense, flatten


class FC(nn.Module):
    """Flatten, then `depth` hidden layers of `width` ReLU units and a linear layer."""

    classes: int
    width: int = 100
    depth: int = 5

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # noqa: ARG002
        """Map images (batch, height, width, channels) to logits (batch, classes)."""
        x = flatten(x)
        for _ in range(self.depth):
            x = nn.relu(dense(self.width)(x))
        return dense(self.classes)(x)
