"""What `prune` and the methods refuse, and what they say that is to be done."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

import synflow_jax as sf
from tests.support.meshes import WIDTHS as EVEN
from tests.support.meshes import any_mlp, mesh_of, spread
from tests.support.nets import (
    CONV_SHAPE,
    GROUPS,
    MLP,
    SIZE,
    WIDTHS,
    all_true,
    batches,
    mlp,
    mlp_params,
    residual,
    residual_params,
)
from tests.support.nets import squared_loss as loss
from tests.support.refusals import check_refused, each

PARAMS = mlp_params(0)
KEY = jax.random.key(0)
BATCHES = batches()


def synflow(params=PARAMS, apply_fn=mlp, rho=4.0, rounds=3, **options):
    return sf.synflow(params, apply_fn, WIDTHS[:1], rho, rounds=rounds, **options)


METHODS = {
    "synflow": synflow,
    "synflow_l2": lambda **given: sf.synflow_l2(PARAMS, mlp, WIDTHS[:1], **{"rho": 4.0} | given),
    "magnitude": lambda **given: sf.magnitude(PARAMS, **{"rho": 4.0} | given),
    "random": lambda **given: sf.random(KEY, PARAMS, **{"rho": 4.0} | given),
    "snip": lambda **given: sf.snip(PARAMS, loss, BATCHES, **{"rho": 4.0} | given),
    "grasp": lambda **given: sf.grasp(PARAMS, loss, BATCHES, **{"rho": 4.0} | given),
}
RATIOS = [
    (0.1, ValueError, "rho must be at least 1", "got 0.1", "pass rho=10"),
    (0.0, ValueError, "rho must be at least 1", "got 0"),
    (-2.0, ValueError, "rho must be at least 1", "got -2"),
    (float("nan"), ValueError, "rho must be a finite number", "got nan"),
    (float("inf"), ValueError, "rho must be a finite number", "got inf"),
    ("ten", TypeError, "rho must be a number", "got a str"),
    ("4", TypeError, "rho must be a number", "got a str"),
    (True, TypeError, "rho must be a number", "got a bool"),
    ([1, 2], TypeError, "rho must be a number", "got a list"),
]
NUMBERS = [
    *(
        (f"{name}, rho={rho!r}", partial(method, rho=rho), error, *named)
        for name, method in METHODS.items()
        for rho, error, *named in RATIOS
    ),
    (
        "no rho",
        lambda: sf.magnitude(PARAMS, None),
        TypeError,
        "rho must be a number",
        "got a NoneType",
    ),
    *(
        (
            f"a traced rho of {kind}",
            partial(jax.jit(lambda rho: sf.magnitude(PARAMS, rho)), rho),
            TypeError,
            "rho must be a floating scalar",
            f"got a traced {kind}",
        )
        for kind, rho in {"int32()": jnp.int32(4), "float32(3,)": jnp.ones(3)}.items()
    ),
    *(
        (f"rounds={rounds}", partial(synflow, rounds=rounds), error, "rounds must be", got)
        for rounds, error, got in [
            (0, ValueError, "at least 1, got 0"),
            (-1, ValueError, "at least 1, got -1"),
            (2.0, TypeError, "an int, got a float"),
        ]
    ),
]
OPTIONS = [
    (
        f"{name}, an option it has not",
        partial(method, roundz=3),
        TypeError,
        f"{name}() got an unexpected keyword argument 'roundz'",
        "min_keep, pattern",
    )
    for name, method in METHODS.items()
]


def prune(saliency, params=PARAMS, rho=2.0, rounds=1, **options):
    return lambda: sf.prune(params, saliency, rho, rounds, **options)


SALIENCIES = [
    (
        "a name for a saliency",
        prune("magnitude"),
        TypeError,
        "saliency must be a function",
        "got 'magnitude'",
    ),
    ("no saliency", prune(None), TypeError, "saliency must be a function", "got None"),
    (
        "what builds a saliency",
        prune(sf.synflow_saliency),
        TypeError,
        "saliency must be synflow_saliency(…), with brackets",
    ),
    (
        "a method for a saliency",
        prune(sf.magnitude),
        TypeError,
        "saliency must be a function",
        "got <function magnitude",
    ),
    (
        "a class for a saliency",
        prune(type(sf.saliency.magnitude_saliency())),
        TypeError,
        "saliency must be a function",
        "MagnitudeSaliency",
    ),
    (
        "scores of one layer",
        prune(lambda p, m: p["layer0"]),
        ValueError,
        "what saliency returns must have the tree structure of params",
    ),
    (
        "masks for scores",
        prune(lambda p, m: m),
        TypeError,
        "saliency must return a floating score a weight",
        "'layer0/kernel' has shape (5, 7) and its scores are bool",
    ),
    (
        "scores that are NaN",
        prune(lambda p, m: jax.tree.map(lambda leaf: leaf * jnp.nan, p)),
        ValueError,
        "saliency must return finite scores",
        "round 1",
    ),
]


def spoilt(value):
    """Params with one number in a bias that is not finite."""
    params = mlp_params(0, EVEN)
    params["layer1"]["bias"] = params["layer1"]["bias"].at[2].set(value)
    return params


def on_two_sets_of_devices():
    params = mlp_params(0, widths=EVEN)
    params["layer0"] = spread(params["layer0"], mesh_of("auto"), "columns")
    params["layer1"] = jax.device_put(params["layer1"], SingleDeviceSharding(jax.devices()[1]))
    return params


CALLS = {
    "synflow": lambda params: sf.synflow(params, any_mlp, EVEN[:1], 7.0),
    "magnitude": lambda params: sf.magnitude(params, 7.0),
}
PLACES = [
    *(
        (
            f"{name}, {value} in params",
            partial(call, spoilt(value)),
            ValueError,
            "params must be finite",
            "NaN or infinity in layer1/bias",
        )
        for name, call in CALLS.items()
        for value in (float("nan"), float("inf"))
    ),
    *(
        (
            f"{name}, two sets of devices",
            lambda call=call: call(on_two_sets_of_devices()),
            ValueError,
            "params must lie on one set of devices",
            "'layer1/bias' is on",
            "'layer0/bias' is on 8 devices",
            "device_put",
        )
        for name, call in CALLS.items()
    ),
]


def without_head(bias=0.1):
    """Params whose last layer is all zero; without biases they have no flow."""
    params = mlp_params(0, bias=bias)
    return params | {"layer2": jax.tree.map(jnp.zeros_like, params["layer2"])}


def with_empty_kernel(name):
    params = mlp_params(0)
    params[name]["kernel"] = jnp.zeros_like(params[name]["kernel"])
    return params


def exploding(params, x):
    return jnp.exp(mlp(params, x))


FLOWS = [
    (
        "no flow",
        lambda: synflow(without_head(bias=0.0)),
        ValueError,
        "above 0 and finite",
        "all zero: layer2/kernel.",
    ),
    (
        "no end of flow",
        lambda: synflow(jax.tree.map(lambda leaf: leaf * 1e9, PARAMS), exploding),
        ValueError,
        "above 0 and finite",
        "is inf",
        "not homogeneous: exp at",
        "(exploding); pass flow_mode(apply_fn)",
    ),
    (
        "flow below 0",
        lambda: synflow(PARAMS, lambda p, x: -mlp(p, x)),
        ValueError,
        "it is -",
        "subtracted from the signal, or the signal is negated",
    ),
    (
        "no score",
        lambda: synflow(with_empty_kernel("layer2")),
        ValueError,
        "every score of the dense network is 0",
        "all zero",
    ),
    (
        "a loss that ignores its params",
        lambda: sf.snip(PARAMS, lambda p, b: jnp.mean(b[0]), BATCHES, 2.0),
        ValueError,
        "every score of the dense network is 0",
        "ignores its params",
    ),
]
FLOATS = jax.tree.map(lambda m: m.astype(jnp.float32), all_true(PARAMS))
CONTROLS = [
    (
        "random without rho",
        lambda: sf.random(KEY, PARAMS),
        TypeError,
        "random needs rho",
        "a mask tree as densities",
    ),
    (
        "random with rho and counts",
        lambda: sf.random(KEY, PARAMS, 2.0, densities=all_true(PARAMS)),
        ValueError,
        "rho must not be given where densities is a mask tree",
    ),
    (
        "random with a pattern and counts",
        lambda: sf.random(KEY, PARAMS, densities=all_true(PARAMS), pattern=sf.channels),
        ValueError,
        "densities is a mask tree",
        "nor min_keep or pattern",
    ),
    (
        "counts of a leaf that prunable leaves out",
        lambda: sf.random(
            KEY,
            {"embed": jnp.ones((2, 2)), "w": jnp.ones((2, 2))},
            densities={"embed": jnp.eye(2) > 0, "w": jnp.eye(2) > 0},
            prunable=sf.plan.is_prunable,
        ),
        ValueError,
        "densities prunes embed, which prunable leaves out",
        "choose these leaves in prunable as well",
    ),
    (
        "a number for a key",
        lambda: sf.random(0, PARAMS, 2.0),
        TypeError,
        "key must be a random key such as jax.random.key(0)",
        "got a int",
    ),
    (
        "two keys",
        lambda: sf.random(jax.random.split(KEY), PARAMS, 2.0),
        TypeError,
        "key must be one random key",
        "of shape (2,)",
    ),
    (
        "a number for densities",
        lambda: sf.random(KEY, PARAMS, 2.0, densities=0.1),
        TypeError,
        "densities must be a scope or a mask tree",
        "got 0.1",
        "pass rho",
    ),
    (
        "densities of another tree",
        lambda: sf.random(KEY, PARAMS, densities={}),
        ValueError,
        "densities must have the tree structure of params",
    ),
    (
        "erk of a traced rho",
        lambda: jax.jit(lambda r: sf.random(KEY, PARAMS, r, densities=sf.erk))(2.0),
        TypeError,
        "erk needs a rho of known value",
        "traced",
    ),
    (
        "shuffle without masks",
        lambda: sf.pruning.shuffle(KEY, FLOATS),
        TypeError,
        "masks must be bool arrays",
        "float32",
    ),
    (
        "reinitialise as another tree",
        lambda: sf.pruning.reinitialise(KEY, PARAMS, lambda key: {}),
        ValueError,
        "must have the tree structure of params",
    ),
    (
        "reinitialise in other shapes",
        lambda: sf.pruning.reinitialise(
            KEY, PARAMS, lambda key: mlp_params(0, widths=(5, 8, 6, 4))
        ),
        ValueError,
        "init(key) must have the shapes of params",
        "'layer0/kernel' is (5, 7) in params and (5, 8)",
    ),
]
CERTIFIED = {"schedule": sf.certified()}
NEEDS = {"schedule=certified()": CERTIFIED, "sweep=True": {"sweep": True}}
ONE_COMPETITION = [
    *(
        (f"{name} with {case}", partial(synflow, **call, **extra), ValueError, *named)
        for name, extra in {
            "schedule=certified()": CERTIFIED,
            "sweep=True": {"sweep": True},
        }.items()
        for case, call, *named in [
            ("groups", {"rho": GROUPS}, name, "needs one number as rho"),
            ("floors", {"min_keep": 1}, name, "no min_keep"),
            ("a scope", {"scope": sf.layerwise}, name, "needs scope=globally", "layerwise"),
        ]
    ),
    (
        "certified magnitude",
        lambda: sf.magnitude(PARAMS, 2.0, **CERTIFIED),
        TypeError,
        "schedule=certified()",
        "a saliency that measures flow",
        "MagnitudeSaliency",
    ),
    (
        "certified without brackets",
        lambda: synflow(schedule=sf.certified),
        TypeError,
        "schedule must be certified(), with brackets",
    ),
    (
        "too few rounds for the certified schedule",
        lambda: synflow(mlp_params(8), rho=SIZE / 5, schedule=sf.certified(most=2)),
        ValueError,
        "most=2) used up its 2 rounds",
        "5 are asked for",
        "a larger most",
    ),
    (
        "a certified flow of biases alone",
        lambda: synflow(with_empty_kernel("layer1"), rho=2.0, **CERTIFIED),
        ValueError,
        "all zero: layer1/kernel.",
        "added to a signal",
    ),
    (
        "a sweep under jit",
        lambda: jax.jit(lambda p: sf.prune(p, MLP, 2.0, 2, sweep=True))(PARAMS),
        TypeError,
        "sweep=True",
        "outside of jit and vmap",
    ),
    (
        "a sweep by magnitude",
        prune(sf.saliency.magnitude_saliency(), sweep=True),
        TypeError,
        "sweep=True needs a saliency that measures flow",
        "MagnitudeSaliency",
    ),
    (
        "a sweep of blocks",
        partial(synflow, sweep=True, pattern=sf.plan.blocks(2)),
        ValueError,
        "sweep=True",
        "pattern=unstructured",
    ),
]


@each([*NUMBERS, *OPTIONS, *SALIENCIES, *PLACES, *FLOWS, *CONTROLS, *ONE_COMPETITION])
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)


def test_what_the_certified_schedule_cannot_reach_is_refused_and_warned_of():
    with pytest.warns(sf.CollapseWarning, match="some layer must collapse"):
        check_refused(
            lambda: synflow(mlp_params(7), rho=SIZE / 2, **CERTIFIED),
            ValueError,
            ["stands still", "3 weights are kept, 2 are asked for", "33.6667", "N/L"],
        )


def test_errors_leave_the_params_alone():
    params = residual_params(0)
    before = jax.tree.map(jnp.copy, params)
    check_refused(lambda: sf.synflow(params, residual, (3,), 2.0), ValueError, ["apply_fn"])
    sf.synflow(params, residual, CONV_SHAPE, 2.0, rounds=2)
    chex.assert_trees_all_equal(before, params)


OPTIONS_TAKEN = {
    "schedule": sf.linear,
    "scope": sf.layerwise,
    "min_keep": 1,
    "pattern": sf.channels,
    "prunable": sf.matching("*/kernel"),
    "stacked": (),
    "progress": False,
}


@pytest.mark.parametrize("name", METHODS)
def test_every_other_option_is_taken(name):
    known = sf.pruning.Choice if name == "random" else sf.pruning.Options
    assert set(known.__annotations__) <= set(OPTIONS_TAKEN)
    given = {option: OPTIONS_TAKEN[option] for option in known.__annotations__}
    masks = jax.eval_shape(partial(METHODS[name], **given))  # traced, and not compiled
    assert jax.tree.structure(masks) == jax.tree.structure(PARAMS)
