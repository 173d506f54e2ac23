"""Leaves that all flow passes, against networks with one leaf at a time set to 0."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synflow_jax import linen
from synflow_jax.structure import read_network
from synflow_jax.trees import named_leaves, read_shape

WIDTH = 5


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def square(*names):
    return {name: normal(len(name) + ord(name[-1]), WIDTH, WIDTH) for name in names}


def chain(p, x):
    return jnp.maximum(x @ p["a"] * p["scale"][None] + p["bias"][None], 0) @ p["b"]


def residual(p, x):
    x = x @ p["stem"]
    x = x + jnp.tanh(x @ p["up"] * p["gamma"][None]) @ p["down"]
    return x @ p["head"]


def heads(p, x):
    x = x @ p["trunk"]
    return {"policy": x @ p["policy"], "value": jnp.tanh(x @ p["value"])}


def gated(p, x):
    h = x @ p["a"]
    return (h @ p["b"] * jax.nn.sigmoid(h @ p["c"])) @ p["d"] + x @ p["skip"]


def product_of_leaves(p, x):
    return x @ (p["w"] + p["low"] @ p["high"]) @ (p["u"] * p["scale"][None])


def joined(p, x):
    both = jnp.concatenate([x @ p["a"], x @ p["b"]], -1)
    return both.reshape(x.shape[0], 2, WIDTH).sum(1) @ p["c"]


def loops(p, x):
    def block(x, w):
        return x + jnp.tanh(x @ w["in"]) @ w["out"], None

    x, _ = jax.lax.scan(block, x @ p["stem"], {"in": p["ins"], "out": p["outs"]})
    x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, p["layers"])
    state, _ = jax.lax.scan(
        lambda s, _: (jnp.tanh(s @ p["again"] + x @ p["in"]), None),
        jnp.zeros_like(x),
        None,
        length=3,
    )
    return jax.lax.cond(p["flag"][0] > 0, lambda h: h @ p["one"], lambda h: h @ p["two"], state)


def shift_of_two(p, x):
    return x @ p["a"] * (1 + p["s"])[None]


NETS = {
    "chain": (
        chain,
        {**square("a", "b"), "scale": normal(1, WIDTH), "bias": jnp.zeros(WIDTH)},
        {"a", "scale", "b"},
    ),
    "residual": (
        residual,
        {**square("stem", "up", "down", "head"), "gamma": normal(2, WIDTH)},
        {"stem", "head"},
    ),
    "heads": (heads, square("trunk", "policy", "value"), {"trunk"}),
    "gated": (gated, square("a", "b", "c", "d", "skip"), set()),
    "product of leaves": (
        product_of_leaves,
        {**square("w", "low", "high", "u"), "scale": normal(3, WIDTH)},
        {"u", "scale"},
    ),
    "joined": (joined, square("a", "b", "c"), {"c"}),
    "loops": (
        loops,
        {
            **square("stem", "again", "in", "one", "two"),
            "ins": normal(5, 3, WIDTH, WIDTH),
            "outs": normal(6, 3, WIDTH, WIDTH),
            "layers": normal(7, 2, WIDTH, WIDTH),
            "flag": jnp.ones(1),
        },
        {"stem", "layers", "in"},
    ),
    "1 + s": (shift_of_two, {**square("a"), "s": jnp.ones(WIDTH)}, {"a", "s"}),
}


def needed(network, params, shape):
    uses = read_network(network, params, read_shape(shape)).uses
    return {use.path for use in uses if use.needed}


@pytest.mark.parametrize("name", NETS)
def test_every_output_is_zero_where_a_needed_leaf_is(name):
    network, params, want = NETS[name]
    assert needed(network, params, (WIDTH,)) == want
    for path, leaf in params.items():
        if path in ("s", "flag", "one"):  # 1 + s and a condition are no products; one way of two
            continue
        out = network({**params, path: jnp.zeros_like(leaf)}, jnp.ones((1, WIDTH)))
        zero = all(not np.any(array) for array in jax.tree.leaves(out))
        assert zero == (path in want), path


class Small(nn.Module):
    """A convolution with BatchNorm, a block of two, pooling and a head, without biases."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3), use_bias=False)(x)))
        y = nn.LayerNorm()(nn.Conv(4, (3, 3), use_bias=False)(x))
        x = nn.max_pool(x + nn.gelu(y), (2, 2), (2, 2))
        return nn.Dense(3)(jnp.mean(x, (1, 2)))


def test_layers_of_flax():
    params, network = linen.from_linen(
        Small(), Small().init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    )
    found = needed(network, params, (8, 8, 1))
    names = {path.removeprefix("params/") for path in found}
    assert {"Conv_0/kernel", "BatchNorm_0/scale", "Dense_0/kernel"} <= names
    assert not {"Conv_1/kernel", "LayerNorm_0/scale", "Dense_0/bias"} & names
    assert len(dict(named_leaves(params))) > len(found)
