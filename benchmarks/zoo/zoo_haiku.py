"""Haiku: its own networks, and one of its recurrent core."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.zoo.cases import STEPS, Case, Network, draw, loss_of, ones
from synflow_jax import apply_masks, keep_masks


def glue(model: Any, params: Any, state: Any) -> Any:
    """Leave out state and keys."""

    def apply_fn(params: Any, x: Any) -> Any:
        return model.apply(params, state, None, x, False)[0]

    return params, apply_fn


def train(model: Any, variables: Any, shape: Any, masks: Any) -> Any:
    """Take five steps in training mode, as Haiku's examples do."""
    params, state = variables
    tx = keep_masks(optax.adamw(1e-3), masks)
    params = apply_masks(params, masks)
    opt_state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, opt_state: Any, x: Any) -> Any:
        def loss(params: Any) -> Any:
            out, new = model.apply(params, state, None, x, True)
            return loss_of(out), new

        grads, state = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state

    for seed in range(STEPS):
        params, state, opt_state = step(params, state, opt_state, draw(seed, shape))
    return params


def build(forward: Callable[..., Any], shape: Any) -> Case:
    """Initialise a function of Haiku's modules and adapt it."""
    import haiku as hk

    model = hk.transform_with_state(forward)
    variables = model.init(jax.random.key(0), ones(shape), True)
    params, apply_fn = glue(model, *variables)
    return Case(params, apply_fn, shape, partial(train, model, variables, shape))


def resnet(x: Any, training: bool) -> Any:
    """ResNet-18, pre-activation, with a quarter of the channels or less."""
    import haiku as hk

    return hk.nets.ResNet(
        (2, 2, 2, 2),
        10,
        resnet_v2=True,
        bottleneck=False,
        channels_per_group=(16, 16, 32, 32),
        initial_conv_config={"output_channels": 16},
    )(x, training)


def mobilenet(x: Any, training: bool) -> Any:
    """MobileNetV1 with a quarter of the channels and few blocks."""
    import haiku as hk

    net = hk.nets.MobileNetV1(strides=(1, 2, 1), channels=(16, 32, 32), num_classes=10, use_bn=True)
    return net(x, training)


def quantized(x: Any, training: bool) -> Any:
    """An autoencoder with VectorQuantizer between its MLPs."""
    import haiku as hk

    code = hk.nets.MLP([32, 16])(x)
    found = hk.nets.VectorQuantizer(16, 24, 0.25)(code, training)
    return hk.nets.MLP([32, 12])(found["quantize"])


def recurrent(x: Any, training: bool) -> Any:
    """A deep recurrent core of LSTMs, unrolled over time."""
    import haiku as hk

    del training
    core = hk.DeepRNN([hk.Linear(32), jax.nn.relu, hk.LSTM(32), hk.GRU(32)])
    out, _ = hk.dynamic_unroll(core, jnp.swapaxes(x, 0, 1), core.initial_state(x.shape[0]))
    return hk.Linear(10)(out[-1])


def attention(x: Any, training: bool) -> Any:
    """A block of MultiHeadAttention over embedded tokens."""
    import haiku as hk

    del training
    x = hk.Embed(48, 32)(x)
    y = hk.LayerNorm(-1, True, True)(x)
    x = x + hk.MultiHeadAttention(4, 8, w_init=hk.initializers.VarianceScaling())(y, y, y)
    return hk.Linear(48)(x)


TOKENS = jax.ShapeDtypeStruct((8,), jnp.int32)
NETWORKS = [
    Network(f"haiku {name}", "dm-haiku", partial(build, forward, shape), (glue,))
    for name, forward, shape in (
        ("ResNet", resnet, (32, 32, 3)),
        ("MobileNetV1", mobilenet, (16, 16, 3)),
        ("VectorQuantizer", quantized, (12,)),
        ("DeepRNN", recurrent, (6, 12)),
        ("MultiHeadAttention", attention, TOKENS),
    )
]
