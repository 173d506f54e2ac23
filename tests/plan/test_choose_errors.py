"""What is refused of groups, floors and patterns."""

import re

import pytest

import synflow_jax as sf
from tests.plan.test_choose import GROUPS
from tests.support.nets import mlp, mlp_params

BAD = {
    "no pattern": ({"layer1/*": 2.0}, 0, ValueError, "none matches layer0/kernel, layer2/kernel"),
    "two patterns": ({"layer1/*": 2.0, "*1/*": 3.0, "*": 2.0}, 0, ValueError, "has 2 patterns"),
    "misspelt": ({"lair*": 2.0, "*": 2.0}, 0, ValueError, "['lair*'] match none"),
    "empty": ({}, 0, ValueError, "rho must have patterns that match prunable leaves, and has none"),
    "an index": ({0: 2.0, "*": 2.0}, 0, TypeError, "rho must have patterns as its keys"),
    "a floor by index": (2.0, {0: 1}, TypeError, "min_keep must have patterns as its keys"),
    "below 1": ({"*": 0.5}, 0, ValueError, "rho['*'] must be at least 1"),
    "no number": ({"*": "2"}, 0, TypeError, "rho['*'] must be a number"),
    "too high a floor": (50.0, 4, ValueError, "leaves 3 weights and min_keep asks for 12"),
    "too high in a group": (GROUPS, 10, ValueError, "leaves 7 weights of layer1/kernel"),
    "a negative floor": (2.0, -1, ValueError, "min_keep must be whole and at least 0"),
    "a broken floor": (2.0, 1.5, ValueError, "min_keep must be whole"),
    "one or all": (2.0, 1.0, ValueError, "pass 1 for one weight"),
    "a floor that is no number": (2.0, "1", TypeError, "min_keep must be a number"),
    "a misspelt floor": (2.0, {"lair*": 1}, ValueError, "min_keep must have patterns"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused(case):
    rho, floor, error, said = BAD[case]
    with pytest.raises(error, match=re.escape(said)):
        sf.magnitude(mlp_params(7), rho, min_keep=floor)


def test_certified_rounds_and_sweeps_know_one_competition():
    params = mlp_params(8)
    for extra in ({"schedule": sf.certified()}, {"sweep": True}):
        with pytest.raises(ValueError, match="needs one number as rho"):
            sf.synflow(params, mlp, (5,), GROUPS, **extra)
        with pytest.raises(ValueError, match="no min_keep"):
            sf.synflow(params, mlp, (5,), 2.0, min_keep=1, **extra)


def test_patterns_are_strings_in_a_list():
    with pytest.raises(TypeError, match=r"but must be a list.*pass \['head\*'\]"):
        sf.matching(but="head*")
    with pytest.raises(TypeError, match="but must be a list of patterns, got a NoneType"):
        sf.matching(but=None)
    with pytest.raises(TypeError, match="a pattern must be a string, got a int"):
        sf.matching(3)
    with pytest.raises(TypeError, match=r"as \*\['a', 'b'\]"):
        sf.matching(["a", "b"])
    with pytest.raises(ValueError, match=r"patterns=\('lair\*',\).* chose none of \['layer0/bias"):
        sf.magnitude(mlp_params(7), 2.0, prunable=sf.matching("lair*"))
    with pytest.raises(TypeError, match="prunable=matching needs brackets"):
        sf.magnitude(mlp_params(7), 2.0, prunable=sf.matching)


def test_a_misspelt_exclusion_is_refused():
    with pytest.raises(ValueError, match=r"\['\*haed\*'\] match none of"):
        sf.magnitude(mlp_params(7), 2.0, prunable=sf.matching(but=["*haed*"]))
