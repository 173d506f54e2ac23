"""Pruning inside of JAX's transformations and under its guards."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import synflow_jax as sf
from synflow_jax import measure

pytestmark = pytest.mark.filterwarnings("ignore:check of the network")
RNG = np.random.default_rng(0)
PARAMS = {
    "in": jnp.asarray(RNG.standard_normal((6, 8)), jnp.float32),
    "out": jnp.asarray(RNG.standard_normal((8, 3)), jnp.float32),
}
DATA = [(jnp.asarray(RNG.standard_normal((4, 6)), jnp.float32), jnp.array([0, 1, 2, 0]))]
KEY = jax.random.key(0)


def network(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def loss(params, batch):
    x, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(network(params, x), labels).mean()


FLOW = sf.flow_mode(network)
METHODS = {
    "magnitude": lambda p: sf.magnitude(p, 3),
    "random": lambda p: sf.random(KEY, p, 3),
    "synflow": lambda p: sf.synflow(p, FLOW, (6,), 3, rounds=5),
    "certified": lambda p: sf.synflow(p, FLOW, (6,), 3, schedule=sf.certified()),
    "snip": lambda p: sf.snip(p, loss, DATA, 3),
    "grasp": lambda p: sf.grasp(p, loss, DATA, 3),
    "channels": lambda p: sf.magnitude(p, 2, pattern=sf.channels),
}


@pytest.fixture
def masks():
    return sf.magnitude(PARAMS, 3)


def kept_squares(method):
    """Half the sum of the squares of what a method keeps: its slope is the kept weights."""

    def half(params):
        kept = sf.apply_masks(params, method(params))
        return sum(0.5 * jnp.sum(leaf**2) for leaf in jax.tree.leaves(kept))

    return half


@pytest.mark.parametrize("name", METHODS)
def test_masks_have_no_gradient_and_weights_have_theirs(name):
    method = METHODS[name]
    want = sf.apply_masks(PARAMS, method(PARAMS))
    slope = jax.grad(kept_squares(method))(PARAMS)
    _, along = jax.jvp(lambda p: sf.apply_masks(p, method(p)), (PARAMS,), (PARAMS,))
    for path, leaf in want.items():
        np.testing.assert_array_equal(slope[path], leaf)
        np.testing.assert_array_equal(along[path], leaf)


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda fn: fn])
def test_gradients_pass_through_other_transformations(wrap):
    method = METHODS["magnitude"]
    want = sf.apply_masks(PARAMS, method(PARAMS))
    slope = jax.grad(wrap(kept_squares(method)))(PARAMS)
    pairs = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), PARAMS)
    both = jax.vmap(jax.grad(wrap(kept_squares(method))))(pairs)
    for path, leaf in want.items():
        np.testing.assert_array_equal(slope[path], leaf)
        np.testing.assert_array_equal(both[path], jnp.stack([leaf, -leaf]))


def test_second_derivatives_are_those_of_the_kept_weights(masks):
    found = jax.hessian(kept_squares(METHODS["magnitude"]))(PARAMS)
    for path, mask in masks.items():
        diagonal = np.asarray(found[path][path]).reshape(mask.size, mask.size)
        np.testing.assert_array_equal(diagonal, np.diag(np.ravel(mask).astype(float)))


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_nan_inside_of_a_run(name):
    want = METHODS[name](PARAMS)
    with jax.debug_nans(True), jax.debug_infs(True):
        got = METHODS[name](PARAMS)
    for path, mask in want.items():
        np.testing.assert_array_equal(got[path], mask)


def test_flows_that_are_not_measured_are_nan():
    _, info = sf.prune(PARAMS, lambda params, masks: params, 3, 2)
    assert np.isnan(info.log2_flow).all()
    assert info.log2_flow.shape == (3,)
    assert np.isnan(info.share).all()
    assert info.share.shape == (2,)
    traced = jax.jit(lambda p: sf.prune(p, lambda params, masks: params, 3, 2)[1])(PARAMS)
    assert np.isnan(traced.log2_flow).all()


def test_gradual_pruning_under_nan_checks():
    tx = sf.gradual_magnitude(optax.sgd(0.1), 4, end=2, every=1)
    state = tx.init(PARAMS)
    with jax.debug_nans(True):
        for _ in range(2):
            _, state = tx.update(PARAMS, state, PARAMS)
    assert sum(int(mask.sum()) for mask in jax.tree.leaves(state.masks)) == 72 / 4


@pytest.mark.parametrize("name", METHODS)
def test_a_guard_against_transfers_lets_counts_and_verdicts_pass(name):
    want = METHODS[name](PARAMS)
    with jax.transfer_guard("disallow"):
        got = METHODS[name](PARAMS)
    for path, mask in want.items():
        np.testing.assert_array_equal(got[path], mask)


def test_measurements_and_training_start_under_a_guard(masks):
    with jax.transfer_guard("disallow"):
        sf.log2_flow(PARAMS, FLOW, (6,))
        measure.conservation_gap(PARAMS, FLOW, (6,))
        sf.effective_density(PARAMS, masks, FLOW, (6,))
        str(sf.report(PARAMS, masks, FLOW, (6,)))
        sf.keep_masks(optax.adam(0.1), masks).init(PARAMS)
        sf.gradual_magnitude(optax.adam(0.1), 4, end=2, every=1).init(PARAMS)


def test_a_guard_against_explicit_transfers_is_the_users():
    with jax.transfer_guard("disallow_explicit"), pytest.raises(Exception, match="transfer"):
        sf.magnitude(PARAMS, 3)
