"""One small network in five frameworks, with the same weights: (params, apply_fn, its kernels)."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from synflow_jax.linen import from_linen
from synflow_jax.nnx import from_nnx

SIDE, CHANNELS, CLASSES = 5, 6, 4
SHAPE = (SIDE, SIDE, 3)


def weights():
    """The weights of a convolution, a BatchNorm with statistics, and a dense layer."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape)
    positive = lambda *shape: rng.uniform(0.5, 2.0, shape)
    return {
        "conv": normal(3, 3, 3, CHANNELS),
        "conv_bias": normal(CHANNELS),
        "scale": positive(CHANNELS),
        "shift": normal(CHANNELS),
        "mean": 0.1 * positive(CHANNELS),
        "var": positive(CHANNELS),
        "dense": normal(CHANNELS, CLASSES),
        "dense_bias": normal(CLASSES),
    }


def plain(w):
    """Write the network out."""
    params = {name: jnp.asarray(w[name]) for name in w if name not in ("mean", "var")}

    def apply_fn(p, x):
        pad = ((1, 1), (1, 1))
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), pad, dimension_numbers=numbers)
        x = (x + p["conv_bias"] - w["mean"]) / np.sqrt(w["var"] + 1e-5) * p["scale"] + p["shift"]
        return jax.nn.relu(x).mean((1, 2)) @ p["dense"] + p["dense_bias"]

    return params, apply_fn, lambda t: (t["conv"], t["dense"])


class LinenNet(nn.Module):
    """The network in Linen."""

    @nn.compact
    def __call__(self, x, train):
        """Return the logits."""
        x = nn.Conv(CHANNELS, (3, 3), name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(CLASSES, name="dense")(x)


def in_linen(w):
    variables = {
        "params": {
            "conv": {"kernel": w["conv"], "bias": w["conv_bias"]},
            "norm": {"scale": w["scale"], "bias": w["shift"]},
            "dense": {"kernel": w["dense"], "bias": w["dense_bias"]},
        },
        "batch_stats": {"norm": {"mean": w["mean"], "var": w["var"]}},
    }
    variables = jax.tree.map(jnp.asarray, variables)
    pair = from_linen(LinenNet(), variables, train=False)
    return *pair, lambda t: (t["conv"]["kernel"], t["dense"]["kernel"])


class NnxNet(nnx.Module):
    """The network in NNX."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, CHANNELS, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(CHANNELS, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(CHANNELS, CLASSES, rngs=rngs)

    def __call__(self, x):
        """Return the logits."""
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        return self.dense(self.drop(x))


def in_nnx(w):
    model = NnxNet(nnx.Rngs(0))
    found = {
        "conv": model.conv.kernel,
        "conv_bias": model.conv.bias,
        "scale": model.norm.scale,
        "shift": model.norm.bias,
        "mean": model.norm.mean,
        "var": model.norm.var,
        "dense": model.dense.kernel,
        "dense_bias": model.dense.bias,
    }
    for name, variable in found.items():
        variable.set_value(jnp.asarray(w[name]))
    return *from_nnx(model), lambda t: (t["conv"]["kernel"], t["dense"]["kernel"])


class EquinoxNet(eqx.Module):
    """The network in Equinox: one example at a time, channels first."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    dense: eqx.nn.Linear

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(3, CHANNELS, 3, padding=1, key=key)
        self.norm = eqx.nn.BatchNorm(CHANNELS, "batch", mode="ema")
        self.drop = eqx.nn.Dropout(0.5)
        self.dense = eqx.nn.Linear(CHANNELS, CLASSES, key=key)

    def __call__(self, x, state):
        """Return the logits."""
        x, state = self.norm(self.conv(x), state)
        return self.dense(self.drop(jax.nn.relu(x).mean((1, 2)))), state


def in_equinox(w):
    model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0))
    new = [
        w["conv"].transpose(3, 2, 0, 1),
        w["conv_bias"][:, None, None],
        w["scale"],
        w["shift"],
        w["dense"].T,
        w["dense_bias"],
    ]
    where = lambda m: [
        m.conv.weight, m.conv.bias, m.norm.weight, m.norm.bias, m.dense.weight, m.dense.bias
    ]  # fmt: skip
    model = eqx.nn.inference_mode(eqx.tree_at(where, model, [jnp.asarray(v) for v in new]))
    stats = (jnp.asarray(w["mean"]), jnp.asarray(w["var"]))
    state = state.set(model.norm.ema_state_index, stats)
    state = state.set(model.norm.ema_first_time_index, jnp.array(False))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def apply_fn(params, x):
        model = eqx.combine(params, static)
        first = jnp.moveaxis(x, -1, 1)
        return jax.vmap(lambda one: model(one, state)[0], axis_name="batch")(first)

    return params, apply_fn, lambda t: (t.conv.weight.transpose(2, 3, 1, 0), t.dense.weight.T)


def in_haiku(w):
    def forward(x, is_training):
        x = hk.Conv2D(CHANNELS, 3, name="conv")(x)
        x = hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training)
        x = jax.nn.relu(x).mean((1, 2))
        x = hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x
        return hk.Linear(CLASSES, name="dense")(x)

    network = hk.transform_with_state(forward)
    params, state = network.init(jax.random.key(0), jnp.ones((1, *SHAPE)), True)
    params = {
        "conv": {"w": w["conv"], "b": w["conv_bias"]},
        "norm": {n: w[m].reshape(params["norm"][n].shape) for n, m in NORM.items()},
        "dense": {"w": w["dense"], "b": w["dense_bias"]},
    }
    for name in ("mean", "var"):
        held = state[f"norm/~/{name}_ema"]
        held["average"] = jnp.asarray(w[name]).reshape(held["average"].shape)
    apply_fn = lambda p, x: network.apply(p, state, None, x, False)[0]
    return jax.tree.map(jnp.asarray, params), apply_fn, lambda t: (t["conv"]["w"], t["dense"]["w"])


NORM = {"scale": "scale", "offset": "shift"}
FRAMEWORKS = {"linen": in_linen, "nnx": in_nnx, "equinox": in_equinox, "haiku": in_haiku}
