"""Recipes of training: zeros stay exact, and kept weights train as if they were all there is.

The reference of each is the same network with its kept weights alone as parameters, a vector a
leaf, under the plain optimiser: what is pruned has no entry in it.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.dynamic_scale import DynamicScale

import synflow_jax as sf
from tests.support.nets import mlp, mlp_params
from tests.support.recipes import STEPS, kept_only, second_gradient, spread, trained

WIDTHS = (5, 9, 4)
X = np.random.default_rng(0).standard_normal((16, WIDTHS[0]))


@pytest.fixture(autouse=True)
def _promotes(flax_promotes):
    """Optax and Flax mix dtypes."""


def loss(params, x=X):
    return jnp.mean(jnp.square(jnp.tanh(mlp(params, jnp.asarray(x))) - 0.5))


def check_path(path, reference, masks, rtol=1e-9):
    """Exact zeros at every step, and the kept weights of the reference."""
    leaves = [jax.tree.leaves(tree) for tree in (path, reference, masks)]
    for got, want, mask in zip(*leaves, strict=True):
        flat, kept = np.asarray(got).reshape(len(got), -1), np.asarray(mask).ravel()
        assert not flat[:, ~kept].any()
        # Sums over a leaf run over zeros as well, and in another order.
        np.testing.assert_allclose(flat[:, kept], want, rtol=rtol, atol=rtol * 1e-3)
        assert (flat[-1][kept] != flat[0][kept]).any()


def line_search(loss, value, slope):
    return {"value": value, "grad": slope, "value_fn": loss}


def sam(**settings):
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    return optax.contrib.sam(optax.adam(1e-2), ascent, **settings)


RECIPES = {
    "adamw": (optax.adamw(1e-2, weight_decay=0.1), {}),
    "lion": (optax.lion(1e-3, weight_decay=0.1), {}),
    "lamb": (optax.lamb(1e-2), {}),
    "clipped": (optax.chain(optax.clip_by_global_norm(0.05), optax.adam(1e-2)), {}),
    "accumulated": (optax.MultiSteps(optax.adamw(1e-2), 2).gradient_transformation(), {}),
    "averaged": (optax.chain(optax.sgd(0.1), optax.ema(0.9)), {}),
    "sam": (sam(), {}),
    "sam of three gradients": (
        sam(opaque_mode=True, sync_period=3),
        {"extras": second_gradient},
    ),
    "schedule-free": (optax.contrib.schedule_free_adamw(1e-2, weight_decay=0.1), {}),
    "line search": (
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)),
        {"extras": line_search},
    ),
    "l-bfgs": (optax.lbfgs(memory_size=3), {"extras": line_search}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_kept_weights_train_as_if_they_were_all_there_is(name, x64):
    tx, rest = RECIPES[name]
    params = mlp_params(0, widths=WIDTHS, dtype=jnp.float64)
    masks = sf.magnitude(params, 3.0)
    params = sf.apply_masks(params, masks)
    path, _ = trained(sf.keep_masks(tx, masks), params, loss, **rest)
    vectors = kept_only(params, masks)
    reference, _ = trained(tx, vectors, lambda v: loss(spread(v, masks)), **rest)
    check_path(path, reference, masks)


def test_curvature_is_that_of_the_kept_weights():
    """With one weight kept, Hutchinson's estimate has no noise: it is the entry of the diagonal."""
    hessian = jnp.array([[2.0, 5.0, 7.0], [5.0, 3.0, 1.0], [7.0, 1.0, 4.0]])
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    masks = {"w": jnp.array([True, False, False])}

    def energy(params):
        return 0.5 * params["w"] @ hessian @ params["w"]

    tx = sf.keep_masks(optax.contrib.hutchinson_estimator_diag_hessian(), masks)
    found, _ = tx.update(jax.grad(energy)(params), tx.init(params), params, obj_fn=energy)
    assert found["w"].tolist() == [2.0, 2.0, -3.0]


@pytest.mark.parametrize(("scaled", "factor"), [(True, 1.0), (False, np.sqrt(8.0))])
def test_adafactors_means_count_zeros(scaled, factor):
    """At density 1/8 in each row and column: steps √8 times as large, unless scaled by the RMS."""
    size = 128
    offsets = (np.arange(size)[None, :] - np.arange(size)[:, None]) % size
    mask = jnp.asarray(offsets < size // 8)
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (size, size)), jnp.float32)
    inner = optax.adafactor(0.01, multiply_by_parameter_scale=scaled, clipping_threshold=None)
    tx = sf.keep_masks(inner, {"w": mask})
    params = {"w": jnp.where(mask, signs, 0.0)}
    steps, _ = tx.update({"w": 3.0 * signs}, tx.init(params), params)
    want = -0.01 * factor * np.asarray(signs) * np.asarray(mask)
    # Means of 128 float32 numbers, and square roots of them.
    np.testing.assert_allclose(steps["w"], want, rtol=1e-5)
    dense = {"w": signs}
    steps, _ = inner.update({"w": 3.0 * signs}, inner.init(dense), dense)
    np.testing.assert_allclose(steps["w"], -0.01 * np.asarray(signs), rtol=1e-5)


def test_adafactor_below_the_size_that_is_factored_steps_by_the_rms_of_the_leaf():
    mask = jnp.asarray(np.arange(16).reshape(4, 4) < 4)
    tx = sf.keep_masks(optax.adafactor(0.01, clipping_threshold=None), {"w": mask})
    params = {"w": jnp.where(mask, 1.0, 0.0)}
    steps, _ = tx.update({"w": jnp.full((4, 4), 3.0)}, tx.init(params), params)
    # √d = 1/2 of the rate: the RMS of a leaf of ones, a quarter of them kept.
    np.testing.assert_allclose(steps["w"], np.where(mask, -0.005, 0.0), rtol=1e-5)


def test_lookahead_goes_around(x64):
    params = mlp_params(0, widths=WIDTHS, dtype=jnp.float64)
    masks = sf.magnitude(params, 3.0)
    params = sf.apply_masks(params, masks)

    def run(inner, params, loss):
        tx = optax.lookahead(inner, 3, 0.5)

        def step(carry, _):
            pair, state = carry
            updates, state = tx.update(jax.grad(loss)(pair.fast), state, pair)
            pair = optax.apply_updates(pair, updates)
            return (pair, state), pair

        pair = optax.LookaheadParams.init_synced(params)
        start = (pair, tx.init(pair))
        return jax.jit(lambda s: jax.lax.scan(step, s, None, STEPS)[1])(start)

    got = run(sf.keep_masks(optax.adam(1e-2), masks), params, loss)
    vectors = kept_only(params, masks)
    want = run(optax.adam(1e-2), vectors, lambda v: loss(spread(v, masks)))
    check_path(got, want, optax.LookaheadParams(masks, masks))


def test_a_pruned_weights_overflow_stops_no_step_and_a_kept_weights_does():
    params = {"w": jnp.array([1.0, 2.0])}
    masks = {"w": jnp.array([True, False])}
    tx = sf.keep_masks(optax.apply_if_finite(optax.sgd(0.5), 5), masks)
    state = tx.init(params)
    pruned, _ = tx.update({"w": jnp.array([1.0, jnp.inf])}, state, params)
    kept, _ = tx.update({"w": jnp.array([jnp.nan, 1.0])}, state, params)
    assert pruned["w"].tolist() == [-0.5, -2.0]
    assert kept["w"].tolist() == [0.0, -2.0]


def test_dynamic_scale_leaves_zeros_where_they_are(x64):
    params = mlp_params(0, widths=WIDTHS, dtype=jnp.float32)
    masks = sf.magnitude(params, 3.0)
    tx = sf.keep_masks(optax.adam(1e-2), masks)
    scale, params = DynamicScale(scale=2.0**17), sf.apply_masks(params, masks)
    state, finite = tx.init(params), []

    def in_half(params):
        return loss(jax.tree.map(lambda p: p.astype(jnp.float16), params), X.astype(np.float16))

    @jax.jit
    def step(scale, params, state):
        scale, finite, _, slope = scale.value_and_grad(in_half)(params)
        updates, new = tx.update(slope, state, params)
        stepped = (optax.apply_updates(params, updates), new)
        left_out = jax.tree.map(lambda a, b: jnp.where(finite, a, b), stepped, (params, state))
        return scale, *left_out, finite

    for _ in range(6):
        before = params
        scale, params, state, hit = step(scale, params, state)
        finite.append(bool(hit))
        chex.assert_trees_all_equal(params, sf.apply_masks(params, masks))
        same = jax.tree.map(lambda a, b: bool((a == b).all()), params, before)
        assert finite[-1] != jax.tree.all(same)
    assert set(finite) == {True, False}
