"""Complex weights: every method ranks them, by the modulus or by the slope of a real mask."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import synflow_jax as sf
from synflow_jax.measure import conservation_gap, layer_flow
from synflow_jax.saliency import gradient_norm, grasp_saliency, snip_saliency, weight_energy
from tests.support.fno import SHAPE, fno, fno_by_hand, fno_params, slopes_by_hand
from tests.support.nets import all_true

FLOAT64 = partial(fno_params, dtype=np.float64)
# Tiny networks at these ratios lose outputs and layers, which the check says.
pytestmark = pytest.mark.filterwarnings("ignore:check of the network", "ignore:apply_fn takes")
DATA = np.random.default_rng(5).standard_normal((2, 4, *SHAPE))
# Central differences of step 1e-6 in float64 are right to about 1e-9 of the largest score.
ATOL = 1e-7


def moduli(params):
    return jax.tree.map(np.abs, params)


def compare(got, want, atol=ATOL):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert jnp.issubdtype(mine.dtype, jnp.floating)
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=atol)


def loss(params, x):
    return jnp.mean(jnp.square(fno(params, x) - 1))


def test_the_operator_by_hand_is_the_operator(x64):
    params = FLOAT64(0)
    np.testing.assert_allclose(fno(params, DATA[0]), fno_by_hand(params, DATA[0]), atol=1e-12)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("mode", ["plain", "flow mode"])
def test_flow_scores_are_those_of_moduli(mode, power, x64):
    params = FLOAT64(1)
    network = sf.flow_mode(fno, branches=None) if mode == "flow mode" else fno
    build = sf.synflow_saliency if power == 1 else sf.saliency.synflow_l2_saliency
    got = build(network, SHAPE)(params, all_true(params))

    def flow(weights):
        return fno_by_hand(weights, np.ones((1, *SHAPE)), absolute=mode == "flow mode").sum()

    entering = jax.tree.map(lambda p: np.abs(p) ** power, params)
    compare(got, slopes_by_hand(flow, entering))
    if mode == "flow mode":
        assert min(float(s.min()) for s in jax.tree.leaves(got)) > 0
        assert float(conservation_gap(params, network, SHAPE)) < 1e-9
        total = 2.0 ** float(sf.log2_flow(params, network, SHAPE))
        np.testing.assert_allclose(total, flow(moduli(params)), rtol=1e-9)
        by_layer = layer_flow(params, network, SHAPE)
        block = by_layer["block0/kernel"] + by_layer["block0/spectral"]
        np.testing.assert_allclose(block, total, rtol=1e-9)


def test_snip_is_the_slope_of_a_real_mask(x64):
    params = FLOAT64(2)
    got = snip_saliency(loss, list(DATA))(params, all_true(params))

    def by_hand(weights):
        return sum(np.mean((fno_by_hand(weights, x) - 1) ** 2) for x in DATA)

    compare(got, jax.tree.map(np.abs, slopes_by_hand(by_hand, params)))


def test_grasp_is_that_of_the_real_and_imaginary_parts(x64):
    params = FLOAT64(3, blocks=1)
    x = DATA[0]
    got = grasp_saliency(loss, [x])(params, all_true(params))
    parts = jax.tree.map(lambda p: [p.real, p.imag] if np.iscomplexobj(p) else [p], params)
    flat, build = ravel_pytree(parts)

    def of_parts(vector):
        leaves = build(vector)
        whole = jax.tree.map(
            lambda p, own: jax.lax.complex(*own) if np.iscomplexobj(p) else own[0], params, leaves
        )
        return loss(whole, x)

    product = jax.hessian(of_parts)(flat) @ jax.grad(of_parts)(flat)
    want = jax.tree.map(lambda p, own: sum(own), params, build(flat * product))
    compare(got, want, atol=1e-9)
    norm = 0.5 * jnp.sum(jax.grad(of_parts)(flat) ** 2)
    np.testing.assert_allclose(gradient_norm(loss, params, x), norm, rtol=1e-9)


def test_magnitude_ranks_by_modulus():
    params = fno_params(4)
    masks = sf.magnitude(params, 4.0)
    sizes = np.concatenate([np.abs(p).ravel() for p in jax.tree.leaves(params)])
    kept = np.concatenate([np.asarray(m).ravel() for m in jax.tree.leaves(masks)])
    want = -(-sizes.size // 4)
    assert kept.sum() == want
    assert sizes[kept].min() >= np.sort(sizes)[-want]
    np.testing.assert_allclose(weight_energy(params), 0.5 * np.sum(sizes**2), rtol=1e-5)


METHODS = {
    "synflow": lambda p, rho: sf.synflow(p, sf.flow_mode(fno), SHAPE, rho),
    "synflow plain": lambda p, rho: sf.synflow(p, fno, SHAPE, rho, rounds=5),
    "swept": lambda p, rho: sf.synflow(p, sf.flow_mode(fno), SHAPE, rho, rounds=5, sweep=True),
    "certified": lambda p, rho: sf.synflow(
        p, sf.flow_mode(fno), SHAPE, rho, schedule=sf.certified()
    ),
    "magnitude": sf.magnitude,
    "random": lambda p, rho: sf.random(jax.random.key(0), p, rho),
    "traced": jax.jit(lambda p, rho: sf.random(jax.random.key(0), p, rho)),
    "snip": lambda p, rho: sf.snip(p, loss, [DATA[0].astype(np.float32)], rho),
    "grasp": lambda p, rho: sf.grasp(p, loss, [DATA[0].astype(np.float32)], rho),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_count_of_all_weights(method):
    params = fno_params(5)
    masks = METHODS[method](params, 3.0)
    total = sum(p.size for p in jax.tree.leaves(params))
    assert total == 6 + 3 + 2 * (9 + 27)
    assert sum(int(m.sum()) for m in jax.tree.leaves(masks)) == -(-total // 3)
    assert not np.asarray(masks["block0"]["spectral"]).all()


def test_extreme_weights_and_deep_operators_keep_their_flow():
    params = fno_params(6, blocks=12)
    sizes = moduli(FLOAT64(6, blocks=12))
    grown = jax.tree.map(lambda p: (p * 2**13).astype(p.dtype), params)
    h = np.ones((1, *SHAPE)) @ sizes["lift"]["kernel"]
    power, exponent = 2**13, 26
    for name in sorted(name for name in sizes if name.startswith("block")):
        spectrum = h.sum(1)[:, None, :].repeat(3, 1)
        mixed = np.einsum("bmi,mio->bmo", spectrum, sizes[name]["spectral"])
        far = (mixed * np.array([1, 2, 2])[:, None]).sum(1, keepdims=True) / 8
        h = (far + h @ sizes[name]["kernel"]) * power
        exponent, h = exponent + np.log2(h.max()), h / h.max()
    want = exponent + np.log2((h @ sizes["project"]["kernel"]).sum())
    got = float(sf.log2_flow(grown, sf.flow_mode(fno), SHAPE))
    assert want > 150  # beyond float32
    assert got == pytest.approx(want, abs=0.01)
    masks, usual = (sf.synflow(p, sf.flow_mode(fno), SHAPE, 1.5, rounds=9) for p in (grown, params))
    for mine, theirs in zip(jax.tree.leaves(masks), jax.tree.leaves(usual), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_pruned_complex_weights_stay_zero_in_training(flax_promotes):
    params = jax.tree.map(jnp.asarray, fno_params(7))
    masks = sf.magnitude(params, 4.0)
    tx = sf.keep_masks(optax.adamw(0.1), masks)
    state, x = tx.init(params), jnp.asarray(DATA[0], jnp.float32)
    for _ in range(3):
        gradients = jax.tree.map(jnp.conj, jax.grad(loss)(params, x))
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    for leaf, mask in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True):
        assert (np.asarray(leaf)[~np.asarray(mask)] == 0).all()
        assert (np.asarray(leaf)[np.asarray(mask)] != 0).all()


def test_masks_of_complex_leaves_are_applied_and_measured():
    params = fno_params(8)
    masks = sf.synflow(params, sf.flow_mode(fno), SHAPE, 4.0, rounds=20)
    pruned = sf.apply_masks(params, masks)
    gone = ~np.asarray(masks["block0"]["spectral"])
    assert (np.asarray(pruned["block0"]["spectral"])[gone] == 0).all()
    assert pruned["block0"]["spectral"].dtype == jnp.complex64
    assert "block0/spectral" in str(sf.report(params, masks, sf.flow_mode(fno), SHAPE))
    small = sf.compact(params, masks, fno, SHAPE)
    x = jnp.asarray(DATA[0], jnp.float32)
    np.testing.assert_allclose(small.apply_fn(small.params, x), fno(pruned, x), atol=1e-5)


@pytest.mark.parametrize("number", [np.nan + 0j, 1j * np.inf])
def test_a_complex_leaf_that_is_not_finite_is_named(number):
    params = fno_params(9)
    params["block1"]["spectral"][0, 0, 0] = number
    with pytest.raises(ValueError, match="NaN or infinity in block1/spectral"):
        sf.magnitude(params, 2.0)


def test_a_complex_kernel_of_zeros_is_opened():
    params = fno_params(10)
    params["block1"]["spectral"][...] = 0
    assert sf.flow.closed_leaves(params) == ("block1/spectral",)
    opened = sf.flow_mode(fno).prepare(params)["block1"]["spectral"]
    np.testing.assert_allclose(opened, np.full(opened.shape, 9**-0.5 + 0j), rtol=1e-6)
