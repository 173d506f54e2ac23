"""Pruning during training: the schedule, groups and floors it takes, and what it refuses."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import synflow_jax as sf
from tests.training.test_gradual import PARAMS, SIZES

pytestmark = pytest.mark.usefixtures("flax_promotes")


def test_the_cubic_schedule_is_one_of_prune():
    masks, info = sf.prune(
        PARAMS, sf.saliency.magnitude_saliency(), 5.0, 10, schedule=sf.plan.cubic
    )
    want = [int(np.ceil(sum(SIZES) * (0.2 + 0.8 * (1 - k / 10) ** 3) - 1e-9)) for k in range(1, 11)]
    assert info.kept.sum(1).tolist() == want
    chex.assert_trees_all_equal(masks, sf.magnitude(PARAMS, 5.0))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"rho": 0.5}, ValueError, "rho must be at least 1"),
        ({"end": 3, "begin": 3}, ValueError, "end must be after begin"),
        ({"every": 0}, ValueError, "every must be at least 1"),
        ({"begin": -1}, ValueError, "begin must be at least 0"),
        ({"end": 10.0}, TypeError, "end must be an int"),
        ({"schedule": sf.certified()}, TypeError, "schedule must be a function"),
        ({"tx": 3}, TypeError, "tx must be an Optax transform"),
    ],
)
def test_what_makes_no_sense_is_refused(change, error, words):
    with pytest.raises(error, match=words):
        sf.gradual_magnitude(**{"tx": optax.sgd(0.1), "rho": 2.0, "end": 5, **change})


def test_what_does_not_fit_the_params_is_refused_at_init():
    tx = sf.gradual_magnitude(optax.sgd(0.1), 100.0, end=5)
    with pytest.raises(ValueError, match="no prunable leaf"):
        tx.init({"bias": jnp.ones(3)})
    with pytest.warns(sf.CollapseWarning, match="leaves 1 weights for 2 layers"):
        tx.init(PARAMS)
    tx = sf.gradual_magnitude(optax.sgd(0.1), 2.0, end=5)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(PARAMS, tx.init(PARAMS))


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
