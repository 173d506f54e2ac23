"""What every method must do alike, in every way of calling it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.nets import (
    SIZE,
    WIDTHS,
    batches,
    batches_like,
    equal,
    kept,
    mlp,
    mlp_params,
    squared_loss,
)

# Tiny networks at these ratios lose outputs and layers, which the check says.
pytestmark = pytest.mark.filterwarnings("ignore:check of the network")
KEY = jax.random.key(0)
FLOAT32 = batches()

METHODS = {
    "synflow": lambda params, rho, **kw: sf.synflow(params, mlp, WIDTHS[:1], rho, rounds=7, **kw),
    "synflow_l2": lambda params, rho, **kw: sf.synflow_l2(
        params, mlp, WIDTHS[:1], rho, rounds=7, **kw
    ),
    "magnitude": sf.magnitude,
    "random": lambda params, rho, **kw: sf.random(KEY, params, rho, **kw),
    "snip": lambda params, rho, **kw: sf.snip(
        params, squared_loss, batches_like(params), rho, **kw
    ),
    "grasp": lambda params, rho, **kw: sf.grasp(
        params, squared_loss, batches_like(params), rho, **kw
    ),
    "grasp, three rounds": lambda params, rho, **kw: sf.grasp(
        params, squared_loss, batches_like(params), rho, rounds=3, **kw
    ),
    "own objective": lambda params, rho, **kw: sf.prune(
        params, sf.gradient_saliency(sf.saliency.weight_energy), rho, 1, **kw
    )[0],
    "own function": lambda params, rho, **kw: sf.prune(params, smallest, rho, 2, **kw)[0],
}
each_method = pytest.mark.parametrize("name", METHODS)


def smallest(params, masks):
    del masks
    return jax.tree.map(lambda leaf: -jnp.abs(leaf), params)


@each_method
@pytest.mark.parametrize("rho", [1.0, 1.5, 4.0, SIZE / 3, float(SIZE)])
def test_keeps_exactly_the_asked_number(name, rho, recwarn):
    params = mlp_params(1)
    before = jax.tree.map(np.array, params)
    masks = METHODS[name](params, rho)
    assert kept(masks) == math.ceil(SIZE / rho - 1e-6)
    assert jax.tree.structure(masks) == jax.tree.structure(params)
    assert all(m.dtype == jnp.bool_ for m in jax.tree.leaves(masks))
    assert all(bool(layer["bias"].all()) for layer in masks.values())
    assert equal(before, params)


@each_method
def test_jit_gives_the_masks_of_eager(name):
    params = mlp_params(2)
    method = METHODS[name]
    assert equal(method(params, 4.0), jax.jit(lambda p: method(p, 4.0))(params))
    assert equal(method(params, 4.0), jax.jit(lambda r: method(params, r))(jnp.float32(4.0)))


@each_method
def test_vmap_over_seeds_gives_the_masks_of_each(name):
    seeds = [mlp_params(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    method = METHODS[name]
    together = jax.vmap(lambda p: method(p, 4.0))(stacked)
    for i, params in enumerate(seeds):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        assert equal(one, method(params, 4.0))


@pytest.mark.parametrize("name", ["synflow", "synflow_l2", "magnitude", "random"])
def test_vmap_over_rho_gives_the_masks_of_each(name):
    params, method = mlp_params(3), METHODS[name]
    ratios = jnp.array([1.0, 2.0, 5.0, 20.0])
    together = jax.vmap(lambda r: method(params, r))(ratios)
    for i, rho in enumerate(ratios):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        assert equal(one, method(params, float(rho)))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "bfloat16") for name in METHODS),
        *((name, "float16") for name in ("synflow", "synflow_l2")),
    ],
)
def test_half_precision_is_scored_in_float32(name, dtype):
    params = mlp_params(4, dtype=dtype)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    masks = METHODS[name](params, 4.0)
    assert equal(masks, METHODS[name](wide, 4.0))
    assert kept(masks) == math.ceil(SIZE / 4)


@each_method
def test_float64(name, x64):
    params = mlp_params(5, dtype=jnp.float64)
    masks = METHODS[name](params, 4.0)
    assert kept(masks) == math.ceil(SIZE / 4)
    if name in ("magnitude", "own function"):  # 1 + 2^-40 is 1 in float32: a tie there
        close = {"w": jnp.array([[1.0, 1.0 + 2.0**-40]])}
        assert METHODS[name](close, 2.0)["w"].tolist() == [
            [name != "magnitude", name == "magnitude"]
        ]


@each_method
@pytest.mark.parametrize("scope", [sf.layerwise, sf.erk])
def test_layerwise_scopes_keep_their_counts(name, scope):
    params = mlp_params(6)
    word = "densities" if name == "random" else "scope"
    masks = METHODS[name](params, 4.0, **{word: scope})
    # A quarter of 35, 42 and 24, rounded up; and 26 weights in the ratio 12 : 13 : 10.
    want = {sf.layerwise: [9, 11, 6], sf.erk: [9, 10, 7]}[scope]
    assert [int(masks[n]["kernel"].sum()) for n in params] == want


@each_method
def test_prunable_chooses_the_leaves(name):
    params = mlp_params(7)
    masks = METHODS[name](params, 2.0, prunable=lambda path, leaf: path == "layer1/kernel")
    assert bool(masks["layer0"]["kernel"].all())
    assert int(masks["layer1"]["kernel"].sum()) == WIDTHS[1] * WIDTHS[2] // 2


def layers(params):
    return {name: leaf for name, leaf in params.items() if name.startswith("layer")}


def mixed_mlp(params, x):
    return mlp(layers(params), x)


def mixed_loss(params, batch):
    return squared_loss(layers(params), batch)


MIXED = {
    "synflow": lambda p: sf.synflow(p, mixed_mlp, WIDTHS[:1], 4.0, rounds=7),
    "synflow_l2": lambda p: sf.synflow_l2(p, mixed_mlp, WIDTHS[:1], 4.0, rounds=7),
    "magnitude": lambda p: sf.magnitude(p, 4.0),
    "random": lambda p: sf.random(KEY, p, 4.0),
    "snip": lambda p: sf.snip(p, mixed_loss, FLOAT32, 4.0),
    "grasp": lambda p: sf.grasp(p, mixed_loss, FLOAT32, 4.0),
}


@pytest.mark.parametrize("name", MIXED)
def test_counts_and_keys_pass_through(name):
    params = {**mlp_params(8), "count": jnp.int32(3), "rng": jax.random.key(1)}
    masks = MIXED[name](params)
    assert bool(masks["count"]) and bool(masks["rng"].all())
    assert kept(layers(masks)) == math.ceil(SIZE / 4)
    assert equal(layers(masks), METHODS[name](mlp_params(8), 4.0)) or name == "random"
