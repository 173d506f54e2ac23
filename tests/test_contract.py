"""What every method must do alike, in every way of calling it."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import WIDTHS, batches, kept, mlp, mlp_params, squared_loss

import synflow_jax as sf

N = sum(a * b for a, b in itertools.pairwise(WIDTHS))
KEY = jax.random.key(0)
FLOAT32 = batches()

METHODS = {
    "synflow": lambda params, rho, **kw: sf.synflow(params, mlp, WIDTHS[:1], rho, rounds=7, **kw),
    "magnitude": sf.magnitude,
    "random": lambda params, rho, **kw: sf.random(KEY, params, rho, **kw),
    "snip": lambda params, rho, **kw: sf.snip(params, squared_loss, data(params), rho, **kw),
    "grasp": lambda params, rho, **kw: sf.grasp(params, squared_loss, data(params), rho, **kw),
    "grasp, three rounds": lambda params, rho, **kw: sf.grasp(
        params, squared_loss, data(params), rho, rounds=3, **kw
    ),
    "own objective": lambda params, rho, **kw: sf.prune(
        params, sf.gradient_saliency(sf.weight_energy), rho, 1, **kw
    )[0],
    "own function": lambda params, rho, **kw: sf.prune(params, smallest, rho, 2, **kw)[0],
}
each_method = pytest.mark.parametrize("name", METHODS)


def smallest(params, masks):
    del masks
    return jax.tree.map(lambda leaf: -jnp.abs(leaf), params)


def data(params):
    dtype = params["layer0"]["kernel"].dtype
    return (
        FLOAT32
        if dtype == jnp.float32
        else [jax.tree.map(lambda a: a.astype(dtype), b) for b in FLOAT32]
    )


def equal(one, two):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, two))


@each_method
@pytest.mark.parametrize("rho", [1.0, 1.5, 4.0, N / 3, float(N)])
def test_keeps_exactly_the_asked_number(name, rho, recwarn):
    params = mlp_params(1)
    before = jax.tree.map(np.array, params)
    masks = METHODS[name](params, rho)
    assert kept(masks) == math.ceil(N / rho - 1e-6)
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


@pytest.mark.parametrize("name", ["synflow", "magnitude", "random"])
def test_vmap_over_rho_gives_the_masks_of_each(name):
    params, method = mlp_params(3), METHODS[name]
    ratios = jnp.array([1.0, 2.0, 5.0, 20.0])
    together = jax.vmap(lambda r: method(params, r))(ratios)
    for i, rho in enumerate(ratios):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        assert equal(one, method(params, float(rho)))


@each_method
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_scored_in_float32(name, dtype):
    params = mlp_params(4, dtype=dtype)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    masks = METHODS[name](params, 4.0)
    assert equal(masks, METHODS[name](wide, 4.0))
    assert kept(masks) == math.ceil(N / 4)


@each_method
def test_float64(name, x64):
    params = mlp_params(5, dtype=jnp.float64)
    masks = METHODS[name](params, 4.0)
    assert kept(masks) == math.ceil(N / 4)


@each_method
@pytest.mark.parametrize("scope", [sf.layerwise, sf.erk])
def test_layerwise_scopes_keep_their_counts(name, scope):
    params = mlp_params(6)
    word = "densities" if name == "random" else "scope"
    masks = METHODS[name](params, 4.0, **{word: scope})
    shapes = tuple(params[n]["kernel"].shape for n in params)
    want = scope(shapes, np.array([0.25]))[0]
    assert [int(masks[n]["kernel"].sum()) for n in params] == want.tolist()


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
    assert kept(layers(masks)) == math.ceil(N / 4)
    assert equal(layers(masks), METHODS[name](mlp_params(8), 4.0)) or name == "random"


def test_snip_may_revive_what_nested_keeps_out():
    def count_back(nested):
        params = mlp_params(9)
        _, info = sf.prune(params, sf.snip_saliency(squared_loss, FLOAT32), 6.0, 4, nested=nested)
        return np.diff(np.asarray(info.kept), axis=0)

    assert (count_back(True) <= 0).all()


def test_more_rounds_than_one_change_snip():
    params = mlp_params(10)
    one = sf.snip(params, squared_loss, FLOAT32, 6.0)
    four = sf.snip(params, squared_loss, FLOAT32, 6.0, rounds=4)
    assert not equal(one, four)
    assert kept(one) == kept(four)


def test_snip_sums_gradients_over_batches():
    params = mlp_params(11)
    whole = [jax.tree.map(lambda *parts: jnp.concatenate(parts), *FLOAT32)]
    assert equal(
        sf.snip(params, squared_loss, FLOAT32, 4.0), sf.snip(params, squared_loss, whole, 4.0)
    )


def test_grasp_is_the_gradient_of_half_the_gradient_norm(x64):
    params = mlp_params(12, dtype=jnp.float64)
    loaded = data(params)
    mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)

    def total(p, _):
        return sum(squared_loss(p, batch) for batch in loaded)

    def energy(kernels):
        state = {n: {**params[n], "kernel": kernels[n]} for n in params}
        grads = jax.grad(lambda k: total({n: {**state[n], "kernel": k[n]} for n in k}, None))(
            kernels
        )
        return 0.5 * sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads))

    kernels = {n: params[n]["kernel"] for n in params}
    want = jax.grad(energy)(kernels)
    got = sf.grasp_saliency(squared_loss, loaded)(params, mask)
    for name in params:
        # float64 sums of some hundred terms in another order
        np.testing.assert_allclose(
            got[name]["kernel"], kernels[name] * want[name], rtol=1e-9, atol=1e-14
        )
    everything = jax.grad(lambda p: sf.gradient_norm(total, p, None))(params)
    assert jax.tree.structure(everything) == jax.tree.structure(params)


def test_random_copies_the_counts_of_masks_and_differs_by_key():
    params = mlp_params(13)
    masks = sf.synflow(params, mlp, WIDTHS[:1], 4.0)
    one, two = (sf.random(jax.random.key(i), params, densities=masks) for i in range(2))
    for name in params:
        counts = {int(m[name]["kernel"].sum()) for m in (masks, one, two)}
        assert len(counts) == 1
    assert not equal(one, two)
    assert equal(one, sf.random(jax.random.key(0), params, densities=masks))


def test_random_keeps_every_weight_equally_often():
    params = {"w": jnp.ones((4, 5))}
    draw = jax.vmap(lambda key: sf.random(key, params, 4.0)["w"])
    often = draw(jax.random.split(jax.random.key(0), 2000)).mean(0)
    # Each of 20 means of 2000 draws at p = 1/4 has deviation 0.0097; five of them.
    assert float(jnp.abs(often - 0.25).max()) < 0.05


@pytest.mark.parametrize("schedule", [sf.exponential, sf.linear, sf.one_shot])
def test_schedules_end_at_the_same_count(schedule):
    params = mlp_params(14)
    saliency = sf.synflow_saliency(mlp, WIDTHS[:1])
    _, info = sf.prune(params, saliency, 5.0, 6, schedule=schedule)
    n = 1 if schedule is sf.one_shot else 6
    steps = [schedule(k, n, 5.0) for k in range(1, n + 1)]
    assert np.asarray(info.kept).sum(1).tolist() == [math.ceil(N * d - 1e-6) for d in steps]


def test_info_measures_what_it_says():
    params = mlp_params(15, bias=0.0)
    saliency = sf.synflow_saliency(mlp, WIDTHS[:1])
    masks, info = sf.prune(params, saliency, 6.0, 3)
    assert info.layers == ("layer0/kernel", "layer1/kernel", "layer2/kernel")
    assert info.kept[-1].tolist() == [int(masks[n]["kernel"].sum()) for n in params]
    np.testing.assert_allclose(info.density[-1], info.kept[-1] / np.array(info.sizes), rtol=1e-6)
    dense, pruned = (float(sf.log2_flow(params, mlp, WIDTHS[:1], m)) for m in (None, masks))
    assert float(info.log2_flow[0]) == pytest.approx(dense, abs=1e-5)
    assert float(info.log2_flow[-1]) == pytest.approx(pruned, abs=1e-5)
    assert info.log2_flow.shape == (4,)
    first, _ = sf.prune(params, saliency, 6.0 ** (1 / 3), 1)
    scores = saliency(params, jax.tree.map(lambda m: jnp.ones_like(m), masks))
    lost = sum(
        float(jnp.sum(jnp.where(first[n]["kernel"], 0.0, scores[n]["kernel"]))) for n in params
    )
    assert float(info.share[0]) == pytest.approx(lost / 2.0**dense, rel=1e-4)
    assert int(info.collapsed_at) == 0


def test_info_of_methods_without_flow_has_no_flow():
    _, info = sf.prune(mlp_params(16), sf.magnitude_saliency(), 4.0, 2)
    assert bool(jnp.isnan(info.log2_flow).all()) and bool(jnp.isnan(info.share).all())
    assert int(info.collapsed_at) == 0


def test_a_flow_that_dies_is_named_by_round():
    params = mlp_params(17, bias=0.0)
    saliency = sf.synflow_saliency(mlp, WIDTHS[:1])
    with pytest.warns(sf.CollapseWarning, match="from round 1 of 1 on"):
        masks, info = sf.prune(params, saliency, 30.0, 1)
    assert int(info.collapsed_at) == 1
    assert kept(masks) == math.ceil(N / 30)
    assert bool(jnp.isneginf(info.log2_flow[-1]))
