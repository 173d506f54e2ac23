"""What single methods promise beyond the contract, and what PruneInfo measures."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.nets import (
    CONV_SHAPE,
    SIZE,
    WIDTHS,
    batches,
    batches_like,
    equal,
    kept,
    mlp,
    mlp_params,
    residual,
    residual_params,
    squared_loss,
)

FLOAT32 = batches()


@pytest.mark.parametrize("nested", [False, True])
def test_snip_may_revive_what_nested_keeps_out(nested):
    revived = []

    class Watch(sf.saliency.Saliency):
        """SNIP, noting what the masks are each time it is asked."""

        on_host = True

        def scores(self, params, masks):
            revived.append(jax.tree.map(jnp.copy, masks))
            return snip.scores(params, masks)

    snip = sf.saliency.snip_saliency(squared_loss, FLOAT32)
    last, _ = sf.prune(mlp_params(9), Watch(), 6.0, 6, nested=nested)
    steps = itertools.pairwise([*revived, last])
    back = [
        bool((new["kernel"] & ~old["kernel"]).any())
        for before, after in steps
        for old, new in zip(before.values(), after.values(), strict=True)
    ]
    assert any(back) is not nested


def test_more_rounds_than_one_change_snip():
    params = mlp_params(10)
    one = sf.snip(params, squared_loss, FLOAT32, 6.0)
    four = sf.snip(params, squared_loss, FLOAT32, 6.0, rounds=4)
    assert not equal(one, four)
    assert kept(one) == kept(four)


def test_snip_sums_the_mean_losses_of_uneven_batches():
    params, (x, y) = mlp_params(11), FLOAT32[0]
    parts = [(x[:1], y[:1]), (x[1:], y[1:])]
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    got = sf.saliency.snip_saliency(squared_loss, parts)(params, ones)

    def total(p):
        return squared_loss(p, parts[0]) + squared_loss(p, parts[1])

    slope = jax.grad(total)(params)
    for name in params:
        want = jnp.abs(params[name]["kernel"] * slope[name]["kernel"])
        # One float32 sum in another order.
        np.testing.assert_allclose(got[name]["kernel"], want, rtol=1e-5, atol=1e-7)


def test_grasp_is_the_gradient_of_half_the_gradient_norm(x64):
    params = mlp_params(12, dtype=jnp.float64)
    loaded = batches_like(params)
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
    got = sf.saliency.grasp_saliency(squared_loss, loaded)(params, mask)
    for name in params:
        # float64 sums of some hundred terms in another order
        np.testing.assert_allclose(
            got[name]["kernel"], kernels[name] * want[name], rtol=1e-9, atol=1e-14
        )
    everything = jax.grad(lambda p: sf.saliency.gradient_norm(total, p, None))(params)
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


def counts_of(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "traced masks"])
def test_random_copies_the_counts_of_leaves_whatever_their_names_are(transform):
    shapes = {"patch_embed": (8, 16), "w": (16, 4), "bias": (4,), "scale": (4,)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    left = {"patch_embed": 28, "w": 64, "bias": 3, "scale": 4}
    masks = {
        name: jnp.arange(math.prod(shape)).reshape(shape) < left[name]
        for name, shape in shapes.items()
    }
    drawn = transform(lambda m: sf.random(jax.random.key(0), params, densities=m))(masks)
    assert counts_of(drawn) == left
    assert not equal(drawn, masks)


def test_random_copies_masks_that_prune_nothing():
    params = {"w": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    assert counts_of(sf.random(jax.random.key(0), params, densities=masks)) == {"w": 4, "bias": 2}


def test_random_takes_keys_of_the_old_kind():
    masks = sf.random(jax.random.PRNGKey(0), {"w": jnp.ones((4, 4))}, 2.0)
    assert int(masks["w"].sum()) == 8


def test_random_keeps_every_weight_equally_often():
    params = {"w": jnp.ones((4, 5))}
    draw = jax.vmap(lambda key: sf.random(key, params, 4.0)["w"])
    often = draw(jax.random.split(jax.random.key(0), 2000)).mean(0)
    # Each of 20 means of 2000 draws at p = 1/4 has deviation 0.0097; five of them.
    assert float(jnp.abs(often - 0.25).max()) < 0.05


@pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning")  # one_shot
@pytest.mark.parametrize("schedule", [sf.exponential, sf.linear, sf.one_shot])
def test_schedules_end_at_the_same_count(schedule):
    params = mlp_params(14)
    saliency = sf.synflow_saliency(mlp, WIDTHS[:1])
    _, info = sf.prune(params, saliency, 5.0, 6, schedule=schedule)
    n = 1 if schedule is sf.one_shot else 6
    steps = [schedule(k, n, 5.0) for k in range(1, n + 1)]
    assert np.asarray(info.kept).sum(1).tolist() == [math.ceil(SIZE * d - 1e-6) for d in steps]


def test_info_measures_what_it_says():
    params = mlp_params(15, bias=0.0)
    saliency = sf.synflow_saliency(mlp, WIDTHS[:1])
    with pytest.warns(sf.CollapseWarning, match="no flow reaches"):  # 15 weights, 4 outputs
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
    _, info = sf.prune(mlp_params(16), sf.saliency.magnitude_saliency(), 4.0, 2)
    assert bool(jnp.isnan(info.log2_flow).all()) and bool(jnp.isnan(info.share).all())
    assert int(info.collapsed_at) == 0


def test_a_flow_that_dies_is_named_by_round():
    params = mlp_params(17, bias=0.0)
    saliency = sf.synflow_saliency(mlp, WIDTHS[:1])
    with pytest.warns(sf.CollapseWarning, match="from round 1 of 1 on"):
        masks, info = sf.prune(params, saliency, 30.0, 1)
    assert int(info.collapsed_at) == 1
    assert kept(masks) == math.ceil(SIZE / 30)
    assert bool(jnp.isneginf(info.log2_flow[-1]))


def test_a_layer_without_scores_is_warned_of_by_name():
    dead = residual_params(0)
    dead["norm"] = jax.tree.map(jnp.zeros_like, dead["norm"]) | {"var": dead["norm"]["var"]}
    with pytest.warns(sf.CollapseWarning, match="all scores are 0 in down/kernel, up/kernel"):
        sf.synflow(dead, residual, CONV_SHAPE, 2.0, rounds=2)


def test_scores_of_numpy_are_scores():
    params = {"w": jnp.zeros((2, 3))}
    scores = {"w": np.array([[3.0, 1.0, 2.0], [6.0, 5.0, 4.0]])}  # float64
    masks, _ = sf.prune(params, lambda *_: scores, 2.0, 2)
    assert masks["w"].tolist() == [[False, False, False], [True, True, True]]
