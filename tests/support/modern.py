"""Modern networks in plain Flax, small: what flow mode must make homogeneous."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

VOCABULARY, TOKENS, WIDTH, HEADS = 11, 6, 16, 2
IMAGE = (8, 8, 3)
TEXT = jax.ShapeDtypeStruct((TOKENS,), jnp.int32)


class Mlp(nn.Module):
    """Dense, GELU, dense."""

    hidden: int = 2 * WIDTH

    @nn.compact
    def __call__(self, x):
        """Return x's width again."""
        return nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(self.hidden)(x)))


class ViT(nn.Module):
    """Patches, a class token, learned positions, a pre-norm block, a head on the class token."""

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        x = nn.Conv(WIDTH, (4, 4), (4, 4), name="patches")(x)
        x = x.reshape(x.shape[0], -1, WIDTH)
        cls = self.param("cls", nn.initializers.zeros, (1, 1, WIDTH))
        x = jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, WIDTH)), x], 1)
        x = x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, x.shape[1], WIDTH))
        x = x + nn.MultiHeadDotProductAttention(HEADS)(nn.LayerNorm()(x))
        x = x + Mlp()(nn.LayerNorm()(x))
        return nn.Dense(3, name="head")(nn.LayerNorm()(x)[:, 0])


class Gpt(nn.Module):
    """GPT-2: tied embedding, learned positions, one kernel for q, k and v, a causal mask."""

    @nn.compact
    def __call__(self, tokens):
        """Return the logits."""
        embed = nn.Embed(VOCABULARY, WIDTH, name="wte")
        x = embed(tokens) + nn.Embed(TOKENS, WIDTH, name="wpe")(jnp.arange(TOKENS)[None])
        y = nn.Dense(3 * WIDTH, name="qkv")(nn.LayerNorm()(x))
        q, k, v = (a.reshape(*a.shape[:2], HEADS, -1) for a in jnp.split(y, 3, axis=-1))
        y = nn.dot_product_attention(q, k, v, mask=nn.make_causal_mask(tokens))
        x = x + nn.Dense(WIDTH, name="out")(y.reshape(x.shape))
        x = x + Mlp(name="mlp")(nn.LayerNorm()(x))
        return embed.attend(nn.LayerNorm()(x))


def rotary(x):
    """Turn pairs of features by an angle that grows with the position."""
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-jnp.arange(half) / half)
    angles = (jnp.arange(x.shape[1])[:, None] * rates[None])[None, :, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


class LlamaBlock(nn.Module):
    """RMSNorm, rotary attention with one key head for two queries, SwiGLU."""

    @nn.compact
    def __call__(self, x, _=None):
        """Return the residual stream."""
        h, dim = nn.RMSNorm()(x), WIDTH // HEADS
        dense = lambda n, name: nn.Dense(n, use_bias=False, name=name)
        q = rotary(dense(WIDTH, "q")(h).reshape(*x.shape[:2], HEADS, dim))
        k = rotary(dense(dim, "k")(h).reshape(*x.shape[:2], 1, dim))
        v = dense(dim, "v")(h).reshape(*x.shape[:2], 1, dim)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + dense(WIDTH, "o")(y.reshape(x.shape))
        h = nn.RMSNorm()(x)
        y = nn.silu(dense(2 * WIDTH, "gate")(h)) * dense(2 * WIDTH, "up")(h)
        return x + dense(WIDTH, "down")(y), None


class Llama(nn.Module):
    """A decoder of LLaMA's kind; `scanned` has three blocks, in one scan."""

    scanned: bool = False

    @nn.compact
    def __call__(self, tokens):
        """Return the logits."""
        x = nn.Embed(VOCABULARY, WIDTH)(tokens)
        if self.scanned:
            split = {"params": True}
            layers = nn.scan(LlamaBlock, variable_axes={"params": 0}, split_rngs=split, length=3)
            x, _ = layers(name="layers")(x, None)
        else:
            x, _ = LlamaBlock(name="block")(x)
        return nn.Dense(VOCABULARY, use_bias=False, name="head")(nn.RMSNorm()(x))


class Mixer(nn.Module):
    """MLP-Mixer: MLPs over tokens and over channels."""

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        x = nn.Conv(WIDTH, (4, 4), (4, 4))(x)
        x = x.reshape(x.shape[0], -1, WIDTH)
        y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
        x = x + jnp.swapaxes(Mlp(8)(y), 1, 2)
        x = x + Mlp()(nn.LayerNorm()(x))
        return nn.Dense(3)(nn.LayerNorm()(x).mean(1))


class ConvNeXt(nn.Module):
    """Depthwise convolution, LayerNorm, GELU MLP, a layer scale of 1e-6."""

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        x = nn.LayerNorm()(nn.Conv(WIDTH, (4, 4), (4, 4))(x))
        y = nn.Conv(WIDTH, (3, 3), feature_group_count=WIDTH)(x)
        scale = self.param("gamma", nn.initializers.constant(1e-6), (WIDTH,))
        x = x + Mlp()(nn.LayerNorm()(y)) * scale
        return nn.Dense(3)(nn.LayerNorm()(x.mean((1, 2))))


class ResNet(nn.Module):
    """Two residual blocks whose last BatchNorm starts at scale 0."""

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        norm = lambda **settings: nn.BatchNorm(use_running_average=True, **settings)
        x = nn.relu(norm()(nn.Conv(8, (3, 3), (2, 2), use_bias=False)(x)))
        for i in range(2):
            y = nn.Conv(8, (3, 3), use_bias=False, name=f"a{i}")(x)
            y = nn.Conv(8, (3, 3), use_bias=False, name=f"b{i}")(nn.relu(norm()(y)))
            x = nn.relu(x + norm(scale_init=nn.initializers.zeros)(y))
        return nn.Dense(3)(x.mean((1, 2)))


class MoE(nn.Module):
    """A residual layer of four experts, routed to the best two by a softmax."""

    experts: int = 4

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        x = nn.Dense(WIDTH)(x)
        chances = nn.softmax(nn.Dense(self.experts, use_bias=False, name="router")(x))
        best, index = jax.lax.top_k(chances, 2)
        best = best / best.sum(-1, keepdims=True)
        combine = jnp.einsum("bk,bke->be", best, jax.nn.one_hot(index, self.experts))
        init = nn.initializers.lecun_normal(batch_axis=(0,))
        up = self.param("up", init, (self.experts, WIDTH, WIDTH))
        down = self.param("down", init, (self.experts, WIDTH, WIDTH))
        y = jnp.einsum("beh,ehd->bed", nn.gelu(jnp.einsum("bd,edh->beh", x, up)), down)
        x = x + jnp.einsum("be,bed->bd", combine, y)
        return nn.Dense(3, name="head")(nn.LayerNorm()(x))


class LoRA(nn.Module):
    """A dense layer with a low-rank correction that starts at 0."""

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        down = nn.Dense(3, use_bias=False, name="lora_a")(x)
        zero = nn.initializers.zeros
        up = nn.Dense(WIDTH, use_bias=False, kernel_init=zero, name="lora_b")(down)
        return nn.Dense(3, name="head")(nn.silu(nn.Dense(WIDTH, name="base")(x) + up))


class ReZero(nn.Module):
    """Residual blocks behind a scalar that starts at 0."""

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        x = nn.Dense(WIDTH)(x)
        for i in range(2):
            x = x + self.param(f"alpha{i}", nn.initializers.zeros, ()) * Mlp()(x)
        return nn.Dense(3)(x)


class Gru(nn.Module):
    """A recurrent cell over a sequence: gates, and a scan."""

    @nn.compact
    def __call__(self, x):
        """Return the logits."""
        return nn.Dense(3)(nn.RNN(nn.GRUCell(WIDTH))(x)[:, -1])


NETWORKS: dict[str, tuple[nn.Module, Any]] = {
    "vit": (ViT(), IMAGE),
    "gpt": (Gpt(), TEXT),
    "llama": (Llama(), TEXT),
    "llama_scanned": (Llama(scanned=True), TEXT),
    "mixer": (Mixer(), IMAGE),
    "convnext": (ConvNeXt(), IMAGE),
    "resnet": (ResNet(), IMAGE),
    "moe": (MoE(), (8,)),
    "lora": (LoRA(), (8,)),
    "rezero": (ReZero(), (8,)),
    "gru": (Gru(), (4, 8)),
}
