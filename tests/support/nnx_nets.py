"""Networks in NNX that the tests share."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class Calls(nnx.Variable):
    """How often a network was called."""


class Net(nnx.Module):
    """Linear, BatchNorm, dropout, linear; counts its calls."""

    traces = 0

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.first = nnx.Linear(6, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)
        self.calls = Calls(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        """Return the logits."""
        type(self).traces += 1
        self.calls[...] += 1
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


def arrays(tree):
    return jax.tree.map(np.array, nnx.to_pure_dict(tree))


class Two(nnx.Module):
    """Token ids and features in, two heads out, and an encoder of its own."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(7, 6, rngs=rngs)
        self.dense = nnx.Linear(5, 6, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(6, 2, rngs=rngs), nnx.Linear(6, 3, rngs=rngs)])

    def encode(self, tokens, features, *, weigh=1.0):
        """Add up what the two say."""
        return self.embed(tokens).sum(1) + weigh * self.dense(features)

    def __call__(self, tokens, features, *, weigh=1.0):
        """Return two heads."""
        hidden = self.encode(tokens, features, weigh=weigh)
        return {"a": self.heads[0](hidden), "b": (self.heads[1](hidden),)}
