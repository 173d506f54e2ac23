"""Bad batches, losses, masks, keys and functions get an error that says what to do."""

import warnings

import chex
import flax
import jax
import jax.numpy as jnp
import optax
import pytest

import synflow_jax as sf
from tests.support.nets import (
    CONV_SHAPE,
    all_true,
    batches,
    mlp,
    mlp_params,
    residual,
    residual_params,
)
from tests.support.nets import squared_loss as loss

PARAMS = mlp_params(0)


@pytest.mark.parametrize("method", [sf.snip, sf.grasp])
def test_batches(method):
    with pytest.raises(TypeError, match="pass list"):
        method(PARAMS, loss, iter(batches()), 2.0)
    with pytest.raises(TypeError, match="pass list"):
        method(PARAMS, loss, (b for b in batches()), 2.0)
    with pytest.raises(ValueError, match="at least one batch"):
        method(PARAMS, loss, [], 2.0)
    for bad in (3, "xy", batches()[0][0], {"x": 1}):
        with pytest.raises(TypeError, match=r"must be a list of batches.*pass \[batch\]"):
            method(PARAMS, loss, bad, 2.0)
    with pytest.raises(ValueError, match=r"shapes \[\(4, 5\)\].*list of batches"):
        method(PARAMS, loss, batches()[0], 2.0)


class UsedUp:
    """Looks like a list, reads like an iterator."""

    def __init__(self):
        self.source = iter(batches())

    def __iter__(self):
        return self.source


def test_batches_that_are_used_up_after_the_first_reading():
    with pytest.raises(ValueError, match="at least one batch each time"):
        sf.grasp(PARAMS, loss, UsedUp(), 2.0)
    with pytest.raises(ValueError, match="at least one batch each time"):
        sf.snip(PARAMS, loss, UsedUp(), 2.0, rounds=2)


@pytest.mark.parametrize("method", [sf.snip, sf.grasp])
def test_losses(method):
    with pytest.raises(TypeError, match="loss_fn must return a floating scalar"):
        method(PARAMS, lambda p, b: mlp(p, b[0]), batches(), 2.0)
    with pytest.raises(ValueError, match="nan on batch 1 of batches"):
        broken = batches()
        broken[1] = (broken[1][0] * jnp.nan, broken[1][1])
        method(PARAMS, loss, broken, 2.0)
    with pytest.raises(TypeError, match="loss_fn must be a function"):
        method(PARAMS, None, batches(), 2.0)


def test_temperature():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        sf.cross_entropy(mlp, 0.0)


def test_masks_that_do_not_fit():
    masks = all_true(PARAMS)
    with pytest.raises(ValueError, match="tree structure of params"):
        sf.apply_masks(PARAMS, {"layer0": masks["layer0"]})
    wrong = {**masks, "layer0": {**masks["layer0"], "bias": jnp.ones(3, bool)}}
    with pytest.raises(ValueError, match=r"'layer0/bias' is \(7,\) in params and \(3,\)"):
        sf.apply_masks(PARAMS, wrong)
    with pytest.raises(ValueError, match=r"only masks has \['layer0/new'\]"):
        more = {**masks["layer0"], "new": masks["layer0"]["bias"]}
        sf.apply_masks(PARAMS, {**masks, "layer0": more})
    frozen = flax.core.freeze(masks)
    with pytest.raises(ValueError, match="the containers do not"):
        sf.apply_masks(PARAMS, frozen)
    with pytest.raises(ValueError, match="True on leaves that are not floating: 'n' is int32"):
        sf.apply_masks({"n": jnp.int32(1)}, {"n": jnp.array(False)})
    floats = jax.tree.map(lambda m: m.astype(jnp.float32), masks)
    with pytest.raises(TypeError, match="must be bool arrays"):
        sf.apply_masks(PARAMS, floats)
    with pytest.raises(ValueError, match="densities must have the tree structure"):
        sf.random(jax.random.key(0), PARAMS, densities={})
    with pytest.raises(TypeError, match="masks must be bool"):
        sf.pruning.shuffle(jax.random.key(0), floats)


def test_random_wants_rho_or_masks():
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="random needs rho"):
        sf.random(key, PARAMS)
    with pytest.raises(ValueError, match="rho must not be given"):
        sf.random(key, PARAMS, 2.0, densities=all_true(PARAMS))
    with pytest.raises(TypeError, match=r"random key such as jax\.random\.key"):
        sf.random(0, PARAMS, 2.0)
    with pytest.raises(TypeError, match="one random key, got an array of shape"):
        sf.random(jax.random.split(key), PARAMS, 2.0)
    with pytest.raises(TypeError, match="densities must be a scope or a mask tree"):
        sf.random(key, PARAMS, 2.0, densities=0.1)
    with pytest.raises(TypeError, match="erk needs a rho of known value"):
        jax.jit(lambda r: sf.random(key, PARAMS, r, densities=sf.erk))(2.0)


def test_old_style_keys_work():
    assert int(sf.random(jax.random.PRNGKey(0), {"w": jnp.ones((4, 4))}, 2.0)["w"].sum()) == 8


def test_reinitialise_wants_the_same_tree():
    with pytest.raises(ValueError, match="tree structure of params"):
        sf.pruning.reinitialise(jax.random.key(0), PARAMS, lambda key: {})
    with pytest.raises(ValueError, match=r"'layer0/kernel' is \(5, 7\) in params and \(5, 8\)"):
        sf.pruning.reinitialise(
            jax.random.key(0), PARAMS, lambda key: mlp_params(0, widths=(5, 8, 6, 4))
        )


def test_own_saliency_and_own_scope():
    with pytest.raises(TypeError, match="saliency must be a function"):
        sf.prune(PARAMS, None, 2.0)
    with pytest.raises(ValueError, match="tree structure of params"):
        sf.prune(PARAMS, lambda p, m: p["layer0"], 2.0)
    with pytest.raises(TypeError, match="a floating score a weight"):
        sf.prune(PARAMS, lambda p, m: m, 2.0)
    with pytest.raises(ValueError, match="finite scores: round 1"):
        sf.prune(PARAMS, lambda p, m: jax.tree.map(lambda leaf: leaf * jnp.nan, p), 2.0, 1)
    with pytest.raises(ValueError, match="scope must return counts"):
        sf.prune(PARAMS, sf.saliency.magnitude_saliency(), 2.0, scope=lambda shapes, d: d)


def test_fewer_weights_than_layers_warns_with_the_largest_rho():
    with pytest.warns(sf.CollapseWarning, match=r"N/L = 33\.6667"):
        sf.magnitude(PARAMS, 60.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sf.magnitude(PARAMS, 101 / 3)


def test_report_and_searches():
    with pytest.raises(ValueError, match="both apply_fn and shape"):
        sf.report(PARAMS, all_true(PARAMS), mlp)
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        sf.measure.critical_compression(lambda rho: sf.magnitude(PARAMS, rho), PARAMS, tolerance=0)


def test_keep_masks_wants_a_transform_and_params():
    masks = all_true(PARAMS)
    with pytest.raises(TypeError, match="tx must be an Optax transform"):
        sf.keep_masks(0.1, masks)
    with pytest.raises(TypeError, match="must be bool arrays"):
        sf.keep_masks(optax.sgd(0.1), PARAMS)


def test_errors_leave_the_params_alone():
    params = residual_params(0)
    before = jax.tree.map(jnp.copy, params)
    with pytest.raises(ValueError, match="apply_fn"):
        sf.synflow(params, residual, (3,), 2.0)
    sf.synflow(params, residual, CONV_SHAPE, 2.0, rounds=2)
    chex.assert_trees_all_equal(before, params)
