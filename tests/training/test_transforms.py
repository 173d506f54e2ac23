"""Masks that hold: exact zeros under every optimiser, and after a checkpoint."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import synflow_jax as sf
from tests.support.nets import WIDTHS, mlp, mlp_params

PARAMS = mlp_params(0)
MASKS = sf.magnitude(PARAMS, 4.0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((16, WIDTHS[0])), jnp.float32)


@pytest.fixture(autouse=True)
def _optax_promotes():
    """Optax itself mixes dtypes (its bias correction, its accumulators): let it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


OPTIMISERS = {
    "sgd with momentum": optax.sgd(0.05, momentum=0.9, nesterov=True),
    "adamw with decay": optax.adamw(1e-2, weight_decay=0.1),
    "adafactor": optax.adafactor(1e-2),
    "lion": optax.lion(1e-3, weight_decay=0.1),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-2)),
    "accumulated": optax.MultiSteps(optax.adamw(1e-2), every_k_schedule=4),
    "noisy": optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(0.1)),
    "lamb": optax.lamb(1e-2),
    "muon": optax.contrib.muon(1e-2),
}


def loss(params):
    return jnp.mean(jnp.square(mlp(params, X) - 1.0))


def train(tx, params, state, steps):
    def step(carry, _):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        leaked = sum(
            jnp.sum(jnp.where(m, 0.0, jnp.abs(p)))
            for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(MASKS), strict=True)
        )
        return (params, state), (value, leaked)

    return jax.jit(lambda p, s: jax.lax.scan(step, (p, s), None, steps))(params, state)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_exact_zeros_over_a_hundred_steps_from_dense_params(name):
    tx = sf.keep_masks(OPTIMISERS[name], MASKS)
    (params, _), (values, leaked) = train(tx, PARAMS, tx.init(PARAMS), 100)
    assert float(leaked.max()) == 0.0
    assert float(values[-1]) < float(values[0])
    moved = jax.tree.map(lambda a, b, m: bool((m & (a != b)).any()), params, PARAMS, MASKS)
    assert jax.tree.all(moved)


def test_without_it_decay_and_momentum_leak():
    tx = optax.sgd(0.05, momentum=0.9)
    _, (_, leaked) = train(tx, sf.apply_masks(PARAMS, MASKS), tx.init(PARAMS), 5)
    assert float(leaked.max()) > 0


def test_kept_weights_train_as_if_the_rest_were_not_there():
    inner = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-2, weight_decay=0.1))
    tx = sf.keep_masks(inner, MASKS)
    params = sf.apply_masks(PARAMS, MASKS)
    (got, _), _ = train(tx, params, tx.init(params), 20)
    state = inner.init(params)
    for _ in range(20):  # the same training, written out by hand
        gradients = sf.apply_masks(jax.grad(loss)(params), MASKS)
        updates, state = inner.update(gradients, state, params)
        params = sf.apply_masks(optax.apply_updates(params, updates), MASKS)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(params), strict=True):
        # Two compilations of the same float32 arithmetic, twenty steps long.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_zeros_survive_orbax(tmp_path):
    tx = sf.keep_masks(optax.adamw(1e-2, weight_decay=0.1), MASKS)
    (params, state), _ = train(tx, PARAMS, tx.init(PARAMS), 10)
    (want, _), _ = train(tx, params, state, 10)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "one", {"params": params, "state": state, "masks": MASKS})
        saver.wait_until_finished()
        empty = jax.tree.map(jnp.zeros_like, {"params": params, "state": state, "masks": MASKS})
        loaded = saver.restore(tmp_path / "one", empty)
    (got, _), (_, leaked) = train(tx, loaded["params"], loaded["state"], 10)
    assert float(leaked.max()) == 0.0
    chex.assert_trees_all_equal(got, want)
    chex.assert_trees_all_equal(loaded["masks"], MASKS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_params_reach_exact_zero(dtype):
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    tx = sf.keep_masks(optax.sgd(0.1, accumulator_dtype=jnp.float32, momentum=0.9), MASKS)
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    new = optax.apply_updates(params, updates)
    for p, m in zip(jax.tree.leaves(new), jax.tree.leaves(MASKS), strict=True):
        assert not bool(jnp.where(m, 0, p).any())


def test_extra_arguments_reach_the_inner_transform():
    def update(updates, state, params=None, *, value, **rest):
        del params, rest
        return jax.tree.map(lambda g: g * value, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda p: optax.EmptyState(), update)
    tx = sf.keep_masks(inner, MASKS)
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(ones, tx.init(PARAMS), PARAMS, value=jnp.float32(7.0))
    assert float(updates["layer0"]["bias"][0]) == 7.0


def test_a_step_that_donates_its_state_leaves_the_masks_alone():
    masks = jax.tree.map(jnp.copy, MASKS)
    tx = sf.keep_masks(optax.sgd(0.1), masks)

    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    jax.jit(step, donate_argnums=(0, 1))(jax.tree.map(jnp.copy, PARAMS), tx.init(PARAMS))
    assert sf.report(PARAMS, masks).kept == sf.report(PARAMS, MASKS).kept
    assert jax.tree.all(jax.tree.map(lambda m: bool(m.any()), tx.init(PARAMS).masks))


def test_extra_arguments_are_of_the_pruned_network():
    """A tree of the params' structure is masked, and what a function is given and returns."""
    seen = {}

    def update(updates, state, params=None, *, slope, slope_at, length, **rest):
        seen.update(slope=slope, there=slope_at(PARAMS, by=2.0), length=length)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda p: optax.EmptyState(), update)
    tx = sf.keep_masks(inner, MASKS)

    def slope_at(params, *, by):
        chex.assert_trees_all_equal(params, sf.apply_masks(PARAMS, MASKS))
        return jax.tree.map(lambda p: by * jnp.ones_like(p), params)

    extra = {"slope": PARAMS, "slope_at": slope_at, "length": jnp.arange(3)}
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, **extra)
    twos = jax.tree.map(lambda m: 2.0 * m, MASKS)
    chex.assert_trees_all_equal(seen["slope"], sf.apply_masks(PARAMS, MASKS))
    chex.assert_trees_all_equal(seen["there"], twos)
    assert seen["length"].tolist() == [0, 1, 2]


def test_one_state_a_seed_under_vmap():
    seeds = [mlp_params(seed) for seed in range(2)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    masks = jax.vmap(lambda p: sf.magnitude(p, 4.0))(params)

    def one(p, m):
        tx = sf.keep_masks(optax.adamw(1e-2), m)
        updates, _ = tx.update(jax.grad(loss)(p), tx.init(p), p)
        return optax.apply_updates(p, updates)

    new = jax.jit(jax.vmap(one))(params, masks)
    zero = jax.tree.map(lambda p, m: not bool(jnp.where(m, 0.0, p).any()), new, masks)
    assert jax.tree.all(zero)


@pytest.mark.parametrize(
    ("of_params", "of_updates"),
    [(jnp.float16, jnp.bfloat16), (jnp.bfloat16, jnp.float16), (jnp.complex64, jnp.float32)],
)
def test_pruned_weights_are_0_whatever_the_dtypes_are(of_params, of_updates):
    params = {"w": jnp.array([1.013, 2.013, -2.987, 0.513]).astype(of_params)}
    tx = sf.keep_masks(optax.identity(), {"w": jnp.array([True, False, True, False])})
    updates, _ = tx.update({"w": jnp.full(4, 0.1, of_updates)}, tx.init(params), params)
    new = optax.apply_updates(params, updates)["w"]
    assert not new[jnp.array([1, 3])].any()
