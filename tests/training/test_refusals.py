"""What is no transform, no schedule of training or no mask is refused before training starts."""

import jax
import jax.numpy as jnp
import optax
import pytest

import synflow_jax as sf
from tests.support.nets import all_true, mlp_params
from tests.support.refusals import check_refused, each

pytestmark = pytest.mark.usefixtures("flax_promotes")
PARAMS = mlp_params(0)
MASKS = all_true(PARAMS)


def gradual(**change):
    return lambda: sf.gradual_magnitude(**{"tx": optax.sgd(0.1), "rho": 2.0, "end": 5, **change})


def update_without_params(make):
    tx = make()
    tx.update(PARAMS, tx.init(PARAMS))


def updated(updates=PARAMS, params=PARAMS):
    """Call update of keep_masks with gradients or params that do not fit."""

    def call():
        tx = sf.keep_masks(optax.sgd(0.1), MASKS)
        tx.update(updates, tx.init(PARAMS), params)

    return call


NEEDS_PARAMS = ("update needs params", "tx.update(gradients, state, params)")


def inside(wrap):
    """Call init of a transform that has keep_masks inside of another one."""
    return lambda: wrap(sf.keep_masks(optax.adam(0.1), MASKS)).init(PARAMS)


LABELS = {name: "first" if name == "layer0" else "rest" for name in PARAMS}
FLAGS = {name: name == "layer0" for name in PARAMS}
OUTERMOST = ("put keep_masks outermost: keep_masks(optax.multi_transform(...), masks)",)
ROWS = [
    (
        "keep_masks inside of multi_transform",
        inside(lambda tx: optax.multi_transform({"first": tx, "rest": optax.sgd(0.1)}, LABELS)),
        ValueError,
        *OUTERMOST,
    ),
    (
        "keep_masks inside of masked",
        inside(lambda tx: optax.masked(tx, FLAGS)),
        ValueError,
        *OUTERMOST,
    ),
    (
        "keep_masks deep inside of masked",
        inside(lambda tx: optax.masked(optax.chain(optax.clip(1.0), tx), FLAGS)),
        ValueError,
        *OUTERMOST,
    ),
    ("a density", gradual(rho=0.5), ValueError, "rho must be at least 1", "got 0.5", "rho=2"),
    (
        "an end that is the beginning",
        gradual(end=3, begin=3),
        ValueError,
        "end must be after begin",
        "begin=3 and end=3",
    ),
    ("every=0", gradual(every=0), ValueError, "every must be at least 1", "got 0"),
    ("begin=-1", gradual(begin=-1), ValueError, "begin must be at least 0", "got -1"),
    ("end=10.0", gradual(end=10.0), TypeError, "end must be an int", "got a float"),
    (
        "a certified schedule",
        gradual(schedule=sf.certified()),
        TypeError,
        "schedule must be a function",
        "Certified",
    ),
    (
        "a number for a transform of gradual_magnitude",
        gradual(tx=3),
        TypeError,
        "tx must be an Optax transform",
        "got int",
    ),
    (
        "no prunable leaf",
        lambda: gradual(rho=100.0)().init({"bias": jnp.ones(3)}),
        ValueError,
        "no prunable leaf",
        "'bias'",
    ),
    (
        "gradual_magnitude without params",
        lambda: update_without_params(gradual()),
        ValueError,
        *NEEDS_PARAMS,
    ),
    (
        "keep_masks without params",
        lambda: update_without_params(lambda: sf.keep_masks(optax.sgd(0.1), MASKS)),
        ValueError,
        *NEEDS_PARAMS,
    ),
    (
        "a number for a transform of keep_masks",
        lambda: sf.keep_masks(0.1, MASKS),
        TypeError,
        "tx must be an Optax transform",
        "got float",
    ),
    (
        "params for masks",
        lambda: sf.keep_masks(optax.sgd(0.1), PARAMS),
        TypeError,
        "masks must be bool arrays",
        "'layer0/bias' is float32",
    ),
    (
        "bools of Python for masks",
        lambda: sf.keep_masks(optax.sgd(0.1), {"w": True}),
        TypeError,
        "masks must be bool arrays",
        "'w' is bool",
        "np.full(leaf.shape, True)",
    ),
    (
        "a gradient too many",
        updated(updates={**PARAMS, "new": jnp.ones(2)}),
        ValueError,
        "updates must have the tree structure of the masks",
        "only updates has ['new']",
    ),
    (
        "a gradient too few",
        updated(updates={"layer0": PARAMS["layer0"]}),
        ValueError,
        "updates must have the tree structure of the masks",
        "only the masks has ['layer1/bias'",
    ),
    (
        "gradients that would be broadcast",
        updated(updates=jax.tree.map(lambda leaf: leaf[:1], PARAMS)),
        ValueError,
        "updates must have the shapes of the masks",
        "'layer0/bias' is (1,) in updates and (7,) in the masks",
    ),
    (
        "params that would be broadcast",
        updated(params=jax.tree.map(lambda leaf: leaf[:1], PARAMS)),
        ValueError,
        "params must have the shapes of the masks",
        "'layer0/bias' is (1,) in params and (7,) in the masks",
    ),
    (
        "a module with its functions for params",
        updated(params={**PARAMS, "activation": jax.nn.relu}),
        ValueError,
        "params must have the tree structure of the masks",
        "only params has ['activation']",
    ),
    (
        "NaN where weights are pruned",
        lambda: sf.keep_masks(optax.sgd(0.1), {"w": jnp.array([True, False])}).init(
            {"w": jnp.array([1.0, jnp.nan])}
        ),
        ValueError,
        "params must be finite where they are pruned",
        "NaN or infinity in w; start from apply_masks",
    ),
    (
        "more updates than int32 counts",
        gradual(end=2**31, every=2**20),
        ValueError,
        "end must be at most 2^31 - 1",
        "got 2147483648",
    ),
    (
        "more rounds than can be planned",
        gradual(end=2**31 - 1, every=1),
        ValueError,
        "every must be so large that there are at most 1,000,000 rounds",
        "got every=1",
    ),
]


@each(ROWS)
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)


def test_a_layer_that_must_collapse_is_warned_of():
    tx = gradual(rho=100.0)()
    with pytest.warns(sf.CollapseWarning, match="leaves 1 weights for 2 layers"):
        tx.init({name: PARAMS[name] for name in ("layer0", "layer1")})
