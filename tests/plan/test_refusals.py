"""What makes no plan is refused: leaves, ratios, floors, patterns, scopes and schedules."""

from functools import partial

import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.nets import GROUPS, mlp_params
from tests.support.refusals import check_refused, each

PARAMS = mlp_params(7)
WEIGHTS = {"w": jnp.ones((4, 6)), "v": jnp.ones((6, 2))}


def choose(params=PARAMS, **options):
    return lambda: sf.magnitude(params, 2.0, **options)


LEAVES = [
    (
        "one path for a list of stacks",
        lambda: sf.magnitude(WEIGHTS, 2.0, stacked="w"),
        TypeError,
        "stacked must be what stacked_layers returns",
        "got a str",
        "pass ['w']",
    ),
    (
        "True for a list of stacks",
        lambda: sf.magnitude(WEIGHTS, 2.0, stacked=True),
        TypeError,
        "stacked must be",
        "got a bool",
    ),
    (
        "a stack that is no leaf",
        lambda: sf.magnitude(WEIGHTS, 2.0, stacked=["w", "u"]),
        ValueError,
        "stacked must name leaves",
        "['u'] are none of ['v', 'w']",
    ),
    (
        "a stack of another length",
        lambda: sf.magnitude(WEIGHTS, 2.0, stacked={"w": 6}),
        ValueError,
        "stacked must give the layers along an axis",
        "'w' has shape (4, 6)",
        "no 6 layers along axis 0",
    ),
    (
        "a stack of a share of layers",
        lambda: sf.magnitude(WEIGHTS, 2.0, stacked={"w": 4.0}),
        TypeError,
        "stacked['w'] must be an int",
        "got a float",
    ),
    (
        "a scalar for a stack",
        lambda: sf.magnitude({**WEIGHTS, "u": jnp.ones(())}, 2.0, stacked=["u"]),
        ValueError,
        "stacked must give the layers along an axis",
        "'u' has shape ()",
    ),
    (
        "no prunable leaf",
        choose({"norm": {"scale": jnp.ones(3)}}),
        ValueError,
        "no prunable leaf",
        "'norm/scale'",
    ),
    ("no leaf at all", choose({}), ValueError, "no prunable leaf"),
    (
        "a leaf that is no array",
        choose({"act": lambda x: x, "w": jnp.ones((2, 2))}),
        TypeError,
        "params must be a pytree of arrays",
        "leaf 'act' is a function",
        "keep values that are not arrays outside of params",
    ),
    *(
        (
            f"a leaf of {jnp.dtype(dtype)}",
            choose(
                {"table": jnp.ones((2, 2), dtype), "w": jnp.ones((2, 2))},
                prunable=lambda path, leaf: True,
            ),
            TypeError,
            f"prunable chose leaf 'table' of dtype {jnp.dtype(dtype)}",
            "exclude it",
        )
        for dtype in (jnp.int32, jnp.bool_)
    ),
    (
        "a name for prunable",
        choose(prunable="table"),
        TypeError,
        "prunable must be a function",
        "got 'table'",
    ),
    (
        "one name for a list",
        lambda: sf.matching(but="head*"),
        TypeError,
        "but must be a list of patterns",
        "got a str",
        "pass ['head*']",
    ),
    (
        "nothing for a list",
        lambda: sf.matching(but=None),
        TypeError,
        "but must be a list of patterns",
        "got a NoneType",
    ),
    (
        "a number for a pattern",
        lambda: sf.matching(3),
        TypeError,
        "a pattern must be a string",
        "got a int",
    ),
    (
        "a list for a pattern",
        lambda: sf.matching(["a", "b"]),
        TypeError,
        "a pattern must be a string",
        "as *['a', 'b']",
    ),
    (
        "a misspelt choice",
        choose(prunable=sf.matching("lair*")),
        ValueError,
        "patterns=('lair*',)",
        "chose none of ['layer0/bias'",
    ),
    (
        "a misspelt exclusion",
        choose(prunable=sf.matching(but=["*haed*"])),
        ValueError,
        "prunable=matching(…)",
        "['*haed*'] match none of",
    ),
    (
        "matching without brackets",
        choose(prunable=sf.matching),
        TypeError,
        "prunable=matching needs brackets",
    ),
]


def keep(rho=2.0, min_keep=0):
    return lambda: sf.magnitude(PARAMS, rho, min_keep=min_keep)


RATIOS = [
    (
        "leaves without a ratio",
        keep({"layer1/*": 2.0}),
        ValueError,
        "rho must have a pattern for every prunable leaf",
        "none matches layer0/kernel, layer2/kernel",
        "add '*'",
    ),
    (
        "a leaf of two ratios",
        keep({"layer1/*": 2.0, "*1/*": 3.0, "*": 2.0}),
        ValueError,
        "rho has 2 patterns for 'layer1/kernel'",
        "one may match",
    ),
    (
        "a misspelt pattern",
        keep({"lair*": 2.0, "*": 2.0}),
        ValueError,
        "rho must have patterns that match prunable leaves",
        "['lair*'] match none",
    ),
    (
        "no ratio",
        keep({}),
        ValueError,
        "rho must have patterns that match prunable leaves, and has none",
    ),
    (
        "an index for a pattern",
        keep({0: 2.0, "*": 2.0}),
        TypeError,
        "rho must have patterns as its keys",
        "got 0",
    ),
    ("a density in a group", keep({"*": 0.5}), ValueError, "rho['*'] must be at least 1", "rho=2"),
    (
        "just below 1",
        keep(0.9999999999),
        ValueError,
        "rho must be at least 1, got 0.9999999999:",
        "for the density 0.9999999999 pass rho=1.0000000001",
    ),
    ("no number in a group", keep({"*": "2"}), TypeError, "rho['*'] must be a number", "a str"),
    (
        "an index for a floor",
        keep(2.0, {0: 1}),
        TypeError,
        "min_keep must have patterns as its keys",
        "got 0",
    ),
    (
        "too high a floor",
        keep(50.0, 4),
        ValueError,
        "rho leaves 3 weights",
        "min_keep asks for 12",
        "at most 8.41666 as rho",
    ),
    (
        "too high a floor of a group",
        keep(GROUPS, 10),
        ValueError,
        "rho leaves 7 weights of layer1/kernel",
        "min_keep asks for 10",
        "at most 4.2 as rho",
    ),
    ("a floor below 0", keep(2.0, -1), ValueError, "min_keep must be whole and at least 0", "-1"),
    ("a broken floor", keep(2.0, 1.5), ValueError, "min_keep must be whole", "got 1.5"),
    ("one weight or all", keep(2.0, 1.0), ValueError, "min_keep must not be 1.0", "pass 1"),
    ("a floor of letters", keep(2.0, "1"), TypeError, "min_keep must be a number", "got a str"),
    (
        "a misspelt floor",
        keep(2.0, {"lair*": 1}),
        ValueError,
        "min_keep must have patterns",
        "['lair*'] match none",
    ),
    (
        "a misspelt floor beside '*'",
        keep(2.0, {"lair*": 1, "*": 0}),
        ValueError,
        "min_keep must have patterns",
        "['lair*'] match none",
    ),
]


def weigh(rho=2, **options):
    return lambda: sf.magnitude(WEIGHTS, rho, **options)


UNIT = "pattern(path, shape) must return the shape of a unit"
PATTERNS = [
    (
        "a name for a pattern",
        weigh(pattern="channel"),
        TypeError,
        "pattern must be a function",
        "got 'channel'",
    ),
    (
        "a number for the shape of a unit",
        weigh(pattern=lambda path, shape: 4),
        ValueError,
        UNIT,
        "got 4 for 'v' of shape (6, 2)",
    ),
    (
        "too large a unit",
        weigh(pattern=lambda path, shape: (5, 1)),
        ValueError,
        UNIT,
        "got (5, 1) for 'w' of shape (4, 6)",
    ),
    (
        "a part of a weight",
        weigh(pattern=lambda path, shape: (1.5, 1)),
        ValueError,
        UNIT,
        "a whole number from 1",
        "got (1.5, 1)",
    ),
    (
        "blocks of no size",
        weigh(pattern=sf.plan.blocks),
        TypeError,
        "pattern must be blocks(…), with brackets",
    ),
    (
        "a scope for a pattern",
        weigh(pattern=sf.runs(2)),
        TypeError,
        "pattern must say what a unit is",
        "runs(…) is a scope",
        "pass it as scope",
    ),
    (
        "no such axis",
        weigh(pattern=sf.plan.slices(2)),
        ValueError,
        "pattern=slices(2)",
        "'v' has shape (6, 2)",
        "leave it out by `prunable`",
    ),
    (
        "channels of a number",
        choose({"s": jnp.ones(())}, pattern=sf.channels, prunable=lambda path, leaf: True),
        ValueError,
        "slices(-1) (as channels are) must name an axis",
        "'s' has shape ()",
    ),
    ("an axis of 1.0", lambda: sf.plan.slices(1.0), TypeError, "axis must be an int", "a float"),
    ("2.0 rows", lambda: sf.plan.blocks(2.0), TypeError, "rows must be an int", "a float"),
    ("0 columns", lambda: sf.plan.blocks(2, 0), ValueError, "columns must be at least 1", "got 0"),
]
SCOPES = [
    (
        "a name for a scope",
        choose(scope="layerwise"),
        TypeError,
        "scope must be a function",
        "got 'layerwise'",
    ),
    (
        "densities for counts",
        choose(scope=lambda shapes, densities: densities),
        ValueError,
        "scope must return counts of shape (1, 1) or (1, 3)",
        "got shape (1,)",
    ),
    (
        "a pattern for a scope",
        weigh(scope=sf.plan.blocks(2)),
        TypeError,
        "scope must say what competes",
        "Blocks(rows=2, columns=2) is a pattern",
        "pass it so",
    ),
    (
        "channels for a scope",
        weigh(scope=sf.channels),
        TypeError,
        "scope must say what competes",
        "<function channels",
        "is a pattern",
    ),
    (
        "runs of no length",
        weigh(scope=sf.runs),
        TypeError,
        "scope must be runs(…), with brackets",
    ),
    (
        "runs that divide nothing",
        weigh(scope=sf.runs(5)),
        ValueError,
        "scope=runs(5) must divide the axis of inputs of some prunable leaf",
        "shapes are [(6, 2), (4, 6)]",
    ),
    (
        "runs that divide no last axis",
        weigh(scope=sf.runs(5, axis=-1)),
        ValueError,
        "scope=runs(5, axis=-1) must divide that axis of some prunable leaf",
        "shapes are [(6, 2), (4, 6)]",
    ),
    (
        "less than one of a run",
        weigh(rho=3, scope=sf.runs(2)),
        ValueError,
        "rho must be at most 2, got 3",
        "runs(2) keep a weight each",
    ),
    (
        "runs with floors",
        weigh(scope=sf.runs(2), min_keep=1),
        ValueError,
        "scope=runs(…)",
        "min_keep=0",
    ),
    (
        "runs just out of reach",
        weigh(rho=2.0000001, scope=sf.runs(2)),
        ValueError,
        "rho must be at most 2, got 2.0000001:",
    ),
    ("runs of 1", lambda: sf.runs(1), ValueError, "length must be at least 2", "got 1"),
    ("runs along axis 0", lambda: sf.runs(4, axis=0), ValueError, "axis", "below 0", "got 0"),
    ("runs along -2.0", lambda: sf.runs(4, axis=-2.0), TypeError, "axis must be an int", "float"),
]
DENSITIES = "densities from 0 to 1"
SCHEDULES = [
    (
        "a name for a schedule",
        choose(schedule="linear"),
        TypeError,
        "schedule must be a function",
        "got 'linear'",
    ),
    (
        "a density above 1",
        choose(schedule=lambda k, n, rho: 2.0 * k),
        ValueError,
        "schedule(k, rounds, rho)",
        DENSITIES,
        "got [2.0]",
    ),
    (
        "one density for all rounds",
        choose(schedule=lambda k, n, rho: 0.5),
        ValueError,
        "schedule(k, rounds, rho)",
        DENSITIES,
        "got 0.5",
    ),
    *(
        (
            f"alpha={alpha}",
            partial(sf.certified, alpha),
            ValueError,
            "alpha must be at least 0.5 and below 1",
            f"got {alpha}",
        )
        for alpha in (0.0, 0.49, 1.0, 2, float("nan"), -0.5)
    ),
    *(
        (
            f"alpha={alpha!r}",
            partial(sf.certified, alpha),
            TypeError,
            "alpha must be a number",
            f"got a {type(alpha).__name__}",
        )
        for alpha in ("half", None, True)
    ),
    ("most=0", lambda: sf.certified(most=0), ValueError, "most must be at least 1", "got 0"),
    ("most=2.0", lambda: sf.certified(most=2.0), TypeError, "most must be an int", "got a float"),
    ("most=True", lambda: sf.certified(most=True), TypeError, "most must be an int", "got a bool"),
]


@each([*LEAVES, *RATIOS, *PATTERNS, *SCOPES, *SCHEDULES])
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)


def test_whole_numbers_are_kept_where_nothing_chooses_them():
    for dtype in (jnp.int32, jnp.bool_):
        params = {"table": jnp.ones((2, 2), dtype), "w": jnp.ones((2, 2))}
        assert bool(sf.magnitude(params, 2.0)["table"].all())


def test_empty_leaves_are_no_layers():
    params = {"a": jnp.ones((4, 4)), "none": jnp.ones((0, 5))}
    assert sf.measure.max_compression(params) == 16.0
    assert int(sf.magnitude(params, 4.0)["a"].sum()) == 4


def test_a_layer_that_must_collapse_is_warned_of():
    with pytest.warns(sf.CollapseWarning, match="rho leaves 1 units for 2 layers"):
        sf.magnitude(WEIGHTS, 8, pattern=sf.channels)
