"""Flax NNX: the same layers, as objects."""

from functools import partial
from typing import Any

import jax
import optax
from flax import nnx

from benchmarks.zoo.cases import STEPS, Case, Network, draw, loss_of
from synflow_jax import apply_masks, keep_masks
from synflow_jax.nnx import from_nnx


def glue(model: nnx.Module) -> Any:
    """Make params and a function of them."""
    return from_nnx(model)


def train(make: Any, shape: Any, masks: Any) -> Any:
    """Take five steps with nnx.Optimizer."""
    model = make(nnx.Rngs(0))
    nnx.update(model, apply_masks(from_nnx(model)[0], masks))
    optimizer = nnx.Optimizer(model, keep_masks(optax.adamw(1e-3), masks), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: Any) -> None:
        grads = nnx.grad(lambda model: loss_of(model(x)))(model)
        optimizer.update(model, grads)

    for seed in range(STEPS):
        step(model, optimizer, draw(seed, shape))
    return from_nnx(model)[0]


def build(make: Any, shape: Any) -> Case:
    """Build a model and adapt it."""
    params, apply_fn = glue(make(nnx.Rngs(0)))
    return Case(params, apply_fn, shape, partial(train, make, shape))


class Encoder(nnx.Module):
    """A transformer's encoder of nnx.MultiHeadAttention."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(12, 32, rngs=rngs)
        self.norm = nnx.LayerNorm(32, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 32, decode=False, rngs=rngs)
        self.second = nnx.LayerNorm(32, rngs=rngs)
        self.up, self.down = nnx.Linear(32, 64, rngs=rngs), nnx.Linear(64, 32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits."""
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        x = x + self.down(nnx.gelu(self.up(self.second(x))))
        return self.head(x.mean(-2))


class Recurrent(nnx.Module):
    """An nnx.RNN and a head."""

    def __init__(self, cell: Any, rngs: nnx.Rngs) -> None:
        self.rnn = nnx.RNN(cell(12, 32, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits."""
        return self.head(self.rnn(x)[:, -1])


class Convolutions(nnx.Module):
    """Convolutions with BatchNorm and dropout."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(3, 16, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits."""
        x = nnx.relu(self.norm(self.first(x)))
        return self.head(self.drop(nnx.relu(self.second(x))).mean((1, 2)))


NETWORKS = [
    Network("nnx attention", "flax", partial(build, Encoder, (8, 12)), (glue,)),
    Network("nnx GRU", "flax", partial(build, partial(Recurrent, nnx.GRUCell), (8, 12)), (glue,)),
    Network("nnx BatchNorm", "flax", partial(build, Convolutions, (12, 12, 3)), (glue,)),
]
