"""What is no transform, no schedule of training or no mask is refused before training starts."""

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
]


@each(ROWS)
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)


def test_a_layer_that_must_collapse_is_warned_of():
    tx = gradual(rho=100.0)()
    with pytest.warns(sf.CollapseWarning, match="leaves 1 weights for 2 layers"):
        tx.init({name: PARAMS[name] for name in ("layer0", "layer1")})
