"""VGG with five pools and three linear layers, for ImageNet and Tiny-ImageNet.

Five stages of 3×3 convolutions, each followed by a max-pool of 2: images of 224×224 give a 7×7 map,
those of 64×64 a 2×2 one. ImageNet's is torchvision's, without BatchNorm and with 4096 hidden units;
the reference's for Tiny-ImageNet has BatchNorm and 1024. Convolutions are Kaiming normal over the
fan out, linear layers N(0, 0.01), biases 0.
"""

from typing import Any

import flax.linen as nn
from jax import Array

from experiments.models.layers import batch_norm, conv, flatten, kaiming_fan_out

STAGES = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
STRIDE = 2**5
SMALL = 64  # larger images use XLA's own convolution: their patches take much memory
XLA: dict[str, Any] = {"conv_general_dilated_cls": None}


class VGGImageNet(nn.Module):
    """VGG of 11, 13, 16 or 19 layers; stages have 1, 2, 4, 8 and 8 times `width` channels."""

    classes: int
    depth: int = 19
    width: int = 64
    hidden: int = 4096
    dropout: float = 0.5
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Map images (batch, height, width, channels) to logits (batch, classes).

        Training draws from the key named "dropout"; evaluation needs none.
        """
        if min(x.shape[1:3]) < STRIDE:
            size = f"{STRIDE}×{STRIDE}"
            raise ValueError(f"VGG pools five times: images of {size} or more, got {x.shape[1:3]}")
        settings = XLA if max(x.shape[1:3]) > SMALL else {}
        for times, count in zip((1, 2, 4, 8, 8), STAGES[self.depth], strict=True):
            for _ in range(count):
                x = conv(times * self.width, kernel_init=kaiming_fan_out, **settings)(x)
                x = nn.relu(batch_norm(train)(x) if self.batch_norm else x)
            x = nn.max_pool(x, (2, 2), (2, 2))
        small = nn.initializers.normal(0.01)
        x = flatten(x)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=small)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, kernel_init=small)(x)
