"""Flax Linen: layers of Flax itself, put together as its guides do."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import optax
from flax.training.train_state import TrainState

from benchmarks.zoo.cases import STEPS, Case, Network, draw, loss_of, ones
from synflow_jax import apply_masks, keep_masks
from synflow_jax.linen import from_linen


def glue(model: nn.Module, variables: Any) -> Any:
    """Make params and a function of them."""
    return from_linen(model, variables)


def train(params: Any, apply: Callable[..., Any], shape: Any, masks: Any) -> Any:
    """Take five steps with Flax's TrainState."""
    tx = keep_masks(optax.adamw(1e-3), masks)
    state = TrainState.create(apply_fn=apply, params=apply_masks(params, masks), tx=tx)

    @jax.jit
    def step(state: TrainState, x: Any) -> TrainState:
        grads = jax.grad(lambda params: loss_of(state.apply_fn(params, x)))(state.params)
        return state.apply_gradients(grads=grads)

    for seed in range(STEPS):
        state = step(state, draw(seed, shape))
    return state.params


def build(make: Callable[[], nn.Module], shape: Any) -> Case:
    """Initialise a model and adapt it."""
    model = make()
    variables = model.init(jax.random.key(0), ones(shape))
    params, apply_fn = glue(model, variables)
    return Case(params, apply_fn, shape, partial(train, params, apply_fn, shape))


class Encoder(nn.Module):
    """A transformer's encoder of MultiHeadDotProductAttention, as in Flax's examples."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits."""
        x = nn.Dense(32)(x)
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
            x = x + nn.Dense(32)(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x))))
        return nn.Dense(10)(nn.LayerNorm()(x).mean(-2))


class Recurrent(nn.Module):
    """Two layers of nn.RNN and a head."""

    cell: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits."""
        for _ in range(2):
            x = nn.RNN(self.cell(32))(x)
        return nn.Dense(10)(x[:, -1])


class Normalised(nn.Module):
    """Convolutions under SpectralNorm and WeightNorm."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits."""
        x = nn.relu(nn.SpectralNorm(nn.Conv(16, (3, 3)))(x, update_stats=False))
        x = nn.relu(nn.WeightNorm(nn.Conv(32, (3, 3), strides=2))(x))
        return nn.Dense(10)(x.mean((1, 2)))


class Residual(nn.Module):
    """Residual blocks with BatchNorm, and a convolution for each group of channels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits."""
        norm = partial(nn.BatchNorm, use_running_average=True)
        x = nn.relu(norm()(nn.Conv(16, (3, 3), use_bias=False)(x)))
        for _ in range(2):
            y = nn.relu(norm()(nn.Conv(32, (1, 1), use_bias=False)(x)))
            y = nn.relu(norm()(nn.Conv(32, (3, 3), feature_group_count=32, use_bias=False)(y)))
            x = x + norm(scale_init=nn.initializers.zeros)(nn.Conv(16, (1, 1), use_bias=False)(y))
        return nn.Dense(10)(x.mean((1, 2)))


NETWORKS = [
    Network("linen attention", "flax", partial(build, Encoder, (8, 12)), (glue,)),
    Network(
        "linen LSTM",
        "flax",
        partial(build, partial(Recurrent, nn.OptimizedLSTMCell), (8, 12)),
        (glue,),
    ),
    Network("linen GRU", "flax", partial(build, partial(Recurrent, nn.GRUCell), (8, 12)), (glue,)),
    Network(
        "linen SpectralNorm, WeightNorm", "flax", partial(build, Normalised, (12, 12, 3)), (glue,)
    ),
    Network("linen MBConv", "flax", partial(build, Residual, (12, 12, 3)), (glue,)),
]
