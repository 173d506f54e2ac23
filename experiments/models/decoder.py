"""A LLaMA-style decoder: RMSNorm, rotary attention, SwiGLU, no biases, an untied head.

Tokens are (batch, length), int32; logits (batch, length, vocabulary). Kernels are prunable, the
embedding and the scales of the norms are not.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

WAVELENGTH = 10_000.0


def rotary(x: Array) -> Array:
    """Rotate pairs of features by angles proportional to position, (batch, length, heads, d)."""
    half = x.shape[-1] // 2
    rates = WAVELENGTH ** (-jnp.arange(half) / half)
    angles = (jnp.arange(x.shape[1])[:, None] * rates[None])[None, :, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


class Attention(nn.Module):
    """Causal self-attention with `heads` heads and a kernel each for q, k, v and out."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map the residual stream (batch, length, width) to the branch added to it."""
        split = (*x.shape[:2], self.heads, x.shape[-1] // self.heads)
        q, k, v = (nn.Dense(x.shape[-1], use_bias=False, name=name)(x) for name in "qkv")
        q, k, v = rotary(q.reshape(split)), rotary(k.reshape(split)), v.reshape(split)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)
        return nn.Dense(x.shape[-1], use_bias=False, name="out")(y)


class SwiGlu(nn.Module):
    """down(silu(gate(x)) · up(x)) with `hidden` units."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map the residual stream (batch, length, width) to the branch added to it."""
        gate, up = (nn.Dense(self.hidden, use_bias=False, name=name)(x) for name in ("gate", "up"))
        return nn.Dense(x.shape[-1], use_bias=False, name="down")(nn.silu(gate) * up)


class Decoder(nn.Module):
    """An embedding, `depth` blocks of attention and SwiGLU, a norm and a head."""

    vocabulary: int
    width: int = 64
    heads: int = 4
    hidden: int = 192
    depth: int = 2

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        """Map tokens (batch, length) to the logits of each next token."""
        x = nn.Embed(self.vocabulary, self.width, name="embed")(tokens)
        for i in range(self.depth):
            x = x + Attention(self.heads, name=f"attention{i}")(nn.RMSNorm()(x))
            x = x + SwiGlu(self.hidden, name=f"mlp{i}")(nn.RMSNorm()(x))
        return nn.Dense(self.vocabulary, use_bias=False, name="head")(nn.RMSNorm()(x))
