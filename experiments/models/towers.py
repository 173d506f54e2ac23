"""Two towers as in CLIP, small: one for images, one for names, and the similarity of their outputs.

Radford et al. 2021. The image tower is a residual MLP on pixels, the text tower a transformer on
characters with the decoder's blocks. Both end in a norm and a projection to vectors of length 1;
the logits are their products times a learned scale that starts at 1/0.07.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from experiments.models.decoder import Attention, SwiGlu

SCALE = math.log(1 / 0.07)


class ImageTower(nn.Module):
    """A linear layer on all pixels, `depth` residual blocks, a norm and a projection."""

    width: int
    depth: int
    joint: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Map images (batch, height, width, channels) to vectors (batch, joint)."""
        x = nn.Dense(self.width, name="stem")(images.reshape(images.shape[0], -1))
        for i in range(self.depth):
            hidden = nn.gelu(nn.Dense(2 * self.width, name=f"up{i}")(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width, name=f"down{i}")(hidden)
        return nn.Dense(self.joint, use_bias=False, name="project")(nn.LayerNorm()(x))


class TextTower(nn.Module):
    """An embedding, `depth` blocks of attention and MLP, the mean of positions, a projection."""

    vocabulary: int
    width: int
    depth: int
    joint: int

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """Map tokens (batch, length) to vectors (batch, joint)."""
        x = nn.Embed(self.vocabulary, self.width, name="embed")(tokens)
        for i in range(self.depth):
            x = x + Attention(4, name=f"attention{i}")(nn.RMSNorm()(x))
            x = x + SwiGlu(2 * self.width, name=f"mlp{i}")(nn.RMSNorm()(x))
        x = jnp.mean(nn.RMSNorm()(x), 1)
        return nn.Dense(self.joint, use_bias=False, name="project")(x)


class Towers(nn.Module):
    """Both towers; as a classifier it compares every image with every one of `names`.

    `names` are tokens of names of one length, one name a class.
    """

    names: tuple[tuple[int, ...], ...]
    vocabulary: int
    width: int = 64
    depth: int = 2
    joint: int = 32

    def setup(self) -> None:
        """Build the towers and the scale."""
        self.image = ImageTower(self.width, self.depth, self.joint)
        self.text = TextTower(self.vocabulary, self.width, self.depth, self.joint)
        self.scale = self.param("scale", nn.initializers.constant(SCALE), ())

    def __call__(self, images: Array, train: bool = False) -> Array:  # noqa: ARG002
        """Map images (batch, height, width, channels) to logits over the names."""
        return self.similarity({"image": images, "text": jnp.array(self.names, jnp.int32)})

    def similarity(self, pair: dict[str, Array]) -> Array:
        """Map images and tokens (texts, length) to their similarities (batch, texts)."""
        image, text = _unit(self.image(pair["image"])), _unit(self.text(pair["text"]))
        return jnp.exp(self.scale) * (image @ text.T)


def _unit(x: Array) -> Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
