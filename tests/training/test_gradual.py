"""Pruning during training: against a NumPy loop, exact at every step, on any mesh, resumable."""

import warnings
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import synflow_jax as sf
from tests.support.meshes import any_mlp, differ, mesh_of, same_layout, spread
from tests.support.nets import mlp, mlp_params

WIDTHS = (5, 9, 4)
PARAMS = mlp_params(0, widths=WIDTHS)
SIZES = [leaf["kernel"].size for leaf in PARAMS.values()]
X = np.random.default_rng(0).standard_normal((16, WIDTHS[0]))
PLAN = {"rho": 5.0, "begin": 3, "end": 14, "every": 4}  # rounds after 7, 11 and 14
ADAM = sf.gradual_magnitude(optax.adamw(1e-2, weight_decay=0.1), **PLAN)


@pytest.fixture(autouse=True)
def _optax_promotes(flax_promotes):
    """Optax itself mixes dtypes."""


def loss(params):
    return jnp.mean(jnp.square(mlp(params, jnp.asarray(X, jnp.float32)) - 1.0))


def kernels(tree):
    return [tree[name]["kernel"] for name in sorted(tree)]


@partial(jax.jit, static_argnames=("tx", "steps", "loss"))
def train(tx, params, state, steps, loss=loss):
    """Every step's params, and masks."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, state.masks)

    return jax.lax.scan(step, (params, state), None, steps)


def counts_of(masks):
    """Kept weights in all, of each step."""
    return sum(np.asarray(m).reshape(len(m), -1).sum(1) for m in kernels(masks)).tolist()


def expected_counts(steps, rho, begin, end, every):
    """What Zhu and Gupta's equation 1 asks for: s_t = s_f·(1 − (1 − (t − t0)/(t1 − t0))³)."""
    kept, last = [], 1.0
    for t in range(1, steps + 1):
        if begin < t <= end and ((t - begin) % every == 0 or t == end):
            last = 1 - (1 - 1 / rho) * (1 - (1 - (t - begin) / (end - begin)) ** 3)
        kept.append(int(np.ceil(sum(SIZES) * last - 1e-9)))
    return kept


def by_hand(weights, x, steps, keep):
    """Momentum on a tanh network, its gradients written out, pruned by sorting."""
    weights = [w.copy() for w in weights]
    velocity = [np.zeros_like(w) for w in weights]
    masks = [np.ones(w.shape, bool) for w in weights]
    for t in range(1, steps + 1):
        hidden = np.tanh(x @ weights[0])
        error = 2 * (hidden @ weights[1] - 1.0) / (len(x) * weights[1].shape[1])
        back = (error @ weights[1].T) * (1 - hidden**2)
        slopes = [x.T @ back, hidden.T @ error]
        for w, v, g, m in zip(weights, velocity, slopes, masks, strict=True):
            v[:] = 0.9 * v + g * m
            w[:] = (w - 0.5 * v) * m
        masks = keep(t, weights, masks)
        for w, v, m in zip(weights, velocity, masks, strict=True):
            w *= m
            v *= m
        yield [w.copy() for w in weights], masks


def largest(scores, count):
    """Keep so many of a list of arrays."""
    flat = np.concatenate([np.abs(s).ravel() for s in scores])
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[:count]] = True
    ends = np.cumsum([s.size for s in scores])[:-1]
    return [m.reshape(s.shape) for m, s in zip(np.split(mask, ends), scores, strict=True)]


@pytest.mark.parametrize("scope", [sf.globally, sf.layerwise])
def test_step_by_step_a_numpy_loop(scope, x64):
    rng = np.random.default_rng(1)
    start = [rng.standard_normal((5, 8)), rng.standard_normal((8, 3))]

    def keep(t, weights, masks):
        if t not in (7, 11, 14):
            return masks
        density = 0.2 + 0.8 * (1 - (t - 3) / 11) ** 3
        if scope is sf.globally:
            return largest(weights, int(np.ceil(density * 64)))
        return [largest([w], int(np.ceil(density * w.size)))[0] for w in weights]

    def squares(params):
        return jnp.mean(jnp.square(jnp.tanh(jnp.asarray(X) @ params[0]) @ params[1] - 1.0))

    tx = sf.gradual_magnitude(optax.sgd(0.5, momentum=0.9), **PLAN, scope=scope)
    params = [jnp.asarray(w) for w in start]
    state = tx.init(params)
    for weights, masks in by_hand(start, X, 20, keep):
        updates, state = tx.update(jax.grad(squares)(params), state, params)
        params = optax.apply_updates(params, updates)
        chex.assert_trees_all_equal([np.asarray(m) for m in state.masks], masks)
        for a, b in zip(params, weights, strict=True):
            # Twenty steps of float64, each rounded at 1e-16 in sums of another order.
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_counts_are_exact_and_pruned_weights_zero_at_every_step():
    (_, state), (params, masks) = train(ADAM, PARAMS, ADAM.init(PARAMS), 18)
    assert counts_of(masks) == expected_counts(18, **PLAN)
    for p, m in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True):
        assert not np.asarray(p)[~np.asarray(m)].any()
        assert (m[1:] <= m[:-1]).all()  # what is out stays out
    adam = state.inner_state[0]
    for moment in (adam.mu, adam.nu):
        chex.assert_trees_all_equal(moment, sf.apply_masks(moment, state.masks))
    assert int(state.step) == 18


def test_erk_never_lets_a_layer_grow_and_ends_as_erk():
    params = mlp_params(0, widths=(5, 9, 5, 4))
    shapes = tuple(k.shape for k in kernels(params))
    plain = sf.erk(shapes, sf.plan.cubic(np.arange(1, 13), 12, 8.0))
    assert (np.diff(plain, axis=0) > 0).any()  # rounded anew, a layer would
    tx = sf.gradual_magnitude(optax.sgd(0.1), 8.0, end=12, every=1, scope=sf.erk)
    _, (_, masks) = train(tx, params, tx.init(params), 12)
    rows = np.stack([np.asarray(m).reshape(12, -1).sum(1) for m in kernels(masks)], 1)
    assert (np.diff(rows, axis=0) <= 0).all()
    assert rows[-1].tolist() == plain[-1].tolist()


def test_one_round_is_magnitude_pruning_of_what_was_trained():
    tx = sf.gradual_magnitude(optax.sgd(0.1), 6.0, end=3)
    (params, state), _ = train(tx, PARAMS, tx.init(PARAMS), 3)
    dense, slope = PARAMS, jax.jit(jax.grad(loss))
    for _ in range(3):
        dense = jax.tree.map(lambda p, g: p - 0.1 * g, dense, slope(dense))
    masks = sf.magnitude(dense, 6.0)
    chex.assert_trees_all_equal(state.masks, masks)
    # Two compilations of the same float32 arithmetic, three steps long.
    chex.assert_trees_all_close(params, sf.apply_masks(dense, masks), rtol=1e-5, atol=1e-6)


def test_each_seed_under_vmap_is_as_alone():
    seeds = [mlp_params(seed, widths=WIDTHS) for seed in range(2)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    _, (_, masks) = jax.vmap(lambda p: train(ADAM, p, ADAM.init(p), 18))(together)
    for i, params in enumerate(seeds):
        _, (_, alone) = train(ADAM, params, ADAM.init(params), 18)
        chex.assert_trees_all_equal(jax.tree.map(lambda m, i=i: m[i], masks), alone)


def test_a_ratio_each_under_vmap_and_a_round_after_every_update():
    def kept(rho):
        tx = sf.gradual_magnitude(optax.sgd(0.1), rho, end=4, every=1)
        return train(tx, PARAMS, tx.init(PARAMS), 5)[1][1]

    masks = jax.vmap(kept)(jnp.array([1.0, 4.0, 20.0]))
    for i, rho in enumerate([1, 4, 20]):
        want = expected_counts(5, rho, begin=0, end=4, every=1)
        assert counts_of(jax.tree.map(lambda m, i=i: m[i], masks)) == want


def test_on_eight_devices_as_on_one(x64):
    params = mlp_params(0, widths=(8, 16, 4), dtype=jnp.float64)
    x = np.random.default_rng(2).standard_normal((16, 8))
    tx = sf.gradual_magnitude(optax.sgd(0.1, momentum=0.9), 5.0, end=6, every=2)

    def squares(params):
        return jnp.mean(jnp.square(any_mlp(params, jnp.asarray(x)) - 1.0))

    (_, alone), _ = train(tx, params, tx.init(params), 7, squares)
    mesh = mesh_of("mixed")  # one axis Explicit, one Auto
    with jax.set_mesh(mesh):
        there = spread(params, mesh, "both")
        (params, state), _ = train(tx, there, tx.init(there), 7, squares)
        assert same_layout(params, state.masks)
    assert len(params["layer0"]["kernel"].devices()) == 8
    assert differ(state.masks, alone.masks) == 0


def test_half_precision_params_are_counted_exactly():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    (params, state), (_, masks) = train(ADAM, params, ADAM.init(params), 14)
    assert counts_of(masks) == expected_counts(14, **PLAN)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    chex.assert_trees_all_equal(params, sf.apply_masks(params, state.masks))


def test_a_training_resumed_goes_on_to_the_same_bit(tmp_path):
    (params, state), _ = train(ADAM, PARAMS, ADAM.init(PARAMS), 9)
    want, _ = train(ADAM, params, state, 9)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "one", (params, state))
        saver.wait_until_finished()
        loaded = saver.restore(tmp_path / "one", jax.tree.map(jnp.zeros_like, (params, state)))
    chex.assert_trees_all_equal(loaded[1].masks, state.masks)
    got, _ = train(ADAM, *loaded, 9)
    chex.assert_trees_all_equal(got, want)


def test_averages_in_the_inner_state_are_pruned_too():
    inner = optax.contrib.schedule_free(optax.sgd(0.1), 0.1)
    tx = sf.gradual_magnitude(inner, **PLAN)
    (params, state), _ = train(tx, PARAMS, tx.init(PARAMS), 16)
    average = optax.contrib.schedule_free_eval_params(state.inner_state, params)
    chex.assert_trees_all_equal(average, sf.apply_masks(average, state.masks))
    assert counts_of(jax.tree.map(lambda a: (a != 0)[None], average)) == [-(-sum(SIZES) // 5)]


def test_accumulation_outside_counts_what_is_emitted_and_inside_micro_steps():
    outside = optax.MultiSteps(
        sf.gradual_magnitude(optax.adam(1e-2), 4.0, end=2, every=1), every_k_schedule=3
    ).gradient_transformation()
    state, update, slope = outside.init(PARAMS), jax.jit(outside.update), jax.jit(jax.grad(loss))
    params, kept = PARAMS, []
    for _ in range(7):
        updates, state = update(slope(params), state, params)
        params = optax.apply_updates(params, updates)
        kept.append(sum(int((k != 0).sum()) for k in kernels(params)))
    half = int(np.ceil(sum(SIZES) * (0.25 + 0.75 / 8)))
    assert kept == [sum(SIZES)] * 2 + [half] * 3 + [-(-sum(SIZES) // 4)] * 2
    inside = sf.gradual_magnitude(optax.MultiSteps(optax.adam(1e-2), 3), 4.0, end=2, every=1)
    _, (_, masks) = train(inside, PARAMS, inside.init(PARAMS), 4)
    assert counts_of(masks) == [half] + [-(-sum(SIZES) // 4)] * 3


def test_the_cubic_schedule_is_one_of_prune():
    masks, info = sf.prune(
        PARAMS, sf.saliency.magnitude_saliency(), 5.0, 10, schedule=sf.plan.cubic
    )
    want = [int(np.ceil(sum(SIZES) * (0.2 + 0.8 * (1 - k / 10) ** 3) - 1e-9)) for k in range(1, 11)]
    assert info.kept.sum(1).tolist() == want
    chex.assert_trees_all_equal(masks, sf.magnitude(PARAMS, 5.0))


def test_groups_and_floors_hold_while_it_trains():
    params = {"a": jnp.arange(1.0, 25.0).reshape(4, 6), "z": 1e-3 * jnp.ones((6, 2))}
    tx = sf.gradual_magnitude(optax.sgd(0.0), 6, end=3, every=1, min_keep={"z": 2})
    state = tx.init(params)
    kept = []
    for _ in range(3):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
        kept.append([int(mask.sum()) for mask in state.masks.values()])
    assert [sum(pair) for pair in kept] == [15, 8, 6]  # ⌈36/6 + 30·(1 − k/3)³⌉
    assert kept[-1] == [4, 2]
    tx = sf.gradual_magnitude(optax.sgd(0.0), {"a": 2, "z": 6}, end=1)
    state = tx.update(params, tx.init(params), params)[1]
    assert [int(mask.sum()) for mask in state.masks.values()] == [12, 2]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_layer_that_the_last_round_empties_is_named_once_where_masks_are_known(wrap):
    params = {"big": jnp.ones((4, 4)), "small": jnp.full((4, 2), 1e-3)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = sf.gradual_magnitude(optax.sgd(1.0), 24 / 16, end=2, every=1)
    update = wrap(tx.update)
    state = tx.init(params)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(3):
            changes, state = update(zeros, state, params)
            params = optax.apply_updates(params, changes)
    said = [str(w.message) for w in found if issubclass(w.category, sf.CollapseWarning)]
    assert [int(mask.sum()) for mask in state.masks.values()] == [16, 0]
    if wrap is jax.jit:
        assert said == []
        assert sf.collapsed_layers(state.masks) == ("small",)
    else:
        (one,) = said
        assert "after update 2, the last one that prunes, no weight is left in small: min_" in one


def test_weights_that_are_nan_prune_nothing_and_are_warned_of():
    """No ranking of NaN is right; the next round catches up."""
    params = {"w": jnp.arange(1.0, 9.0).reshape(2, 4), "v": jnp.arange(2.0, 10.0).reshape(2, 4)}
    tx = sf.gradual_magnitude(optax.sgd(0.1), 4, end=2, every=1)
    state = tx.init(params)
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    with pytest.warns(sf.CollapseWarning, match="after update 1 weights are NaN or infinite"):
        _, state = tx.update(broken, state, params)
    assert all(bool(mask.all()) for mask in jax.tree.leaves(state.masks))
    traced = jax.jit(tx.update)(broken, tx.init(params), params)[1]
    assert all(bool(mask.all()) for mask in jax.tree.leaves(traced.masks))
    still = jax.tree.map(jnp.zeros_like, params)
    _, state = tx.update(still, state, params)
    assert sum(int(mask.sum()) for mask in jax.tree.leaves(state.masks)) == 4


def test_weights_that_overflow_their_dtype_prune_nothing():
    params = {"w": jnp.array([[60000.0, 1, 2, 3]], jnp.float16)}
    tx = sf.gradual_magnitude(optax.identity(), 2, end=1)
    with pytest.warns(sf.CollapseWarning, match="NaN or infinite"):
        _, state = tx.update({"w": jnp.array([[10000.0, 0, 0, 0]])}, tx.init(params), params)
    assert bool(state.masks["w"].all())
