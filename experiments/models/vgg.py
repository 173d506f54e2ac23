"""VGG for CIFAR: 3×3 convolutions with bias, with or without BatchNorm, and one linear layer.

The last max-pool is left out; the average pool of 2 that follows covers the whole 2×2 map of a
32×32 image and is written as a mean over the map. Kaiming normal over the fan in, biases 0.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from experiments.models.layers import batch_norm, conv, dense, kaiming_fan_in

PLANS = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512),
    13: (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512),
    16: (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3),
    19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4),
}


class VGG(nn.Module):
    """VGG of 11, 13, 16 or 19 layers; "M" in its plan is a max-pool of 2."""

    classes: int
    depth: int = 11
    batch_norm: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Map images (batch, height, width, channels) to logits (batch, classes)."""
        if min(x.shape[1:3]) < 16:
            raise ValueError(f"VGG pools four times: images of 16×16 or more, got {x.shape[1:3]}")
        for step in PLANS[self.depth]:
            if isinstance(step, str):
                x = nn.max_pool(x, (2, 2), (2, 2))
            else:
                x = conv(step, kernel_init=kaiming_fan_in)(x)
                x = nn.relu(batch_norm(train)(x) if self.batch_norm else x)
        return dense(self.classes)(jnp.mean(x, (1, 2)))
