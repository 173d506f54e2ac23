"""Networks in Linen that the tests share."""

import flax.linen as nn
import jax
import jax.numpy as jnp

CLASSES, FEATURES = 4, 12
TOKENS = jax.ShapeDtypeStruct((4,), jnp.int32)


class Classifier(nn.Module):
    """Dense, BatchNorm, ReLU, dropout, dense."""

    hidden: int = 32

    @nn.compact
    def __call__(self, x, train: bool):
        """Return the logits."""
        x = nn.Dense(self.hidden)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


class Unusual(nn.Module):
    """Draws, counts and sows in evaluation too."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        """Return the outputs and how much was drawn."""
        x = nn.Dense(4, use_bias=False)(x)
        count = self.variable("cache", "count", lambda: jnp.zeros((), jnp.int32))
        count.value += 1
        noise = jax.random.uniform(self.make_rng("noise"), x.shape)
        self.sow("intermediates", "hidden", x)
        return nn.Dense(2, use_bias=False)(x + noise), 1000.0 * count.value.astype(x.dtype)


class Tokens(nn.Module):
    """A small language model: embedding, GELU, a norm."""

    @nn.compact
    def __call__(self, tokens):
        """Return a logit for each token of the vocabulary."""
        x = nn.Embed(7, 6)(tokens)
        x = x + nn.Dense(6)(nn.gelu(nn.Dense(12)(nn.LayerNorm()(x))))
        return nn.Dense(7)(x)
