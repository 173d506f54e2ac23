"""The plan that arguments make: what competes with what, in which units, and how many stay."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax.plan import ByGroup, ByLayer, InRuns, Together, make_plan, plan_copied
from tests.support.nets import GROUPS, SIZE, mlp_params

PARAMS = mlp_params(0)  # kernels of 5×7, 7×6 and 6×4
ONE_LAYER = {"w": jnp.ones((4, 6))}


def plan_of(rho=4.0, params=PARAMS, rounds=1, **options):
    return make_plan(params, rho, rounds, prunable=sf.plan.is_prunable, **options)


def one_count(shapes, densities):
    """A scope of your own that counts the network as a whole."""
    return sf.globally(shapes, densities)


@pytest.mark.parametrize(
    ("arguments", "competition", "counts"),
    [
        ({}, Together(), [26]),
        ({"scope": one_count}, Together(), [26]),
        ({"rho": {"*": 4.0}}, Together(), [26]),
        ({"params": ONE_LAYER, "scope": sf.layerwise}, Together(), [6]),
        ({"scope": sf.layerwise}, ByLayer(), [9, 11, 6]),
        ({"scope": sf.erk}, ByLayer(), [9, 10, 7]),
        ({"rho": {"layer0/*": 5, "layer1/*": 6, "*": 4}}, ByLayer(), [7, 7, 6]),
        ({"rho": GROUPS, "scope": sf.layerwise}, ByLayer(), [18, 7, 12]),
        ({"rho": GROUPS}, ByGroup(((0, 2), (1,))), [30, 7]),
        ({"rho": 2.0, "scope": sf.runs(2)}, InRuns(sf.runs(2)), [35, 42, 12]),
    ],
)
def test_scope_and_ratios_say_what_competes(arguments, competition, counts):
    plan, found = plan_of(**arguments)
    assert plan.competition == competition
    assert found.tolist() == [counts]  # one row a round


def test_counts_have_a_row_a_round_and_one_shot_a_single_one():
    assert plan_of(rounds=7)[1].shape == (7, 1)
    assert plan_of(rounds=7, scope=sf.layerwise)[1].shape == (7, 3)
    assert plan_of(rounds=7, schedule=sf.one_shot)[1].shape == (1, 1)


def test_a_plan_names_leaves_units_and_floors():
    plan, _ = plan_of()
    assert plan.paths == ("layer0/kernel", "layer1/kernel", "layer2/kernel")
    assert plan.prunable == (False, True) * 3
    assert plan.sizes == (35, 42, 24)
    assert (plan.units, plan.floors, plan.counted) == ((), (), "weights")
    plan, counts = plan_of(2.0, pattern=sf.channels, min_keep={"layer2/*": 0.5})
    assert plan.units == ((5, 1), (7, 1), (6, 1))
    assert plan.grids == ((1, 7), (1, 6), (1, 4))
    assert (plan.sizes, plan.floors, plan.counted) == ((7, 6, 4), (0, 0, 2), "units")
    assert counts.tolist() == [[9]]  # ⌈17/2⌉


def test_floors_raise_the_counts_of_layers():
    _, counts = plan_of(20.0, scope=sf.layerwise, min_keep=3)
    assert counts.tolist() == [[3, 3, 3]]


def test_equal_arguments_make_equal_plans():
    """Plans are static arguments of jit: equal ones share a program, whatever ρ is."""
    plans = [plan_of(rho, min_keep=1)[0] for rho in (2.0, 5.0)]
    assert plans[0] == plans[1]
    assert hash(plans[0]) == hash(plans[1])
    assert plans[0] != plan_of(2.0)[0]
    assert plans[0] != plan_of(2.0, min_keep=1, scope=sf.layerwise)[0]


def test_counts_known_beforehand_are_by_layer():
    for params, competition in ((PARAMS, ByLayer()), (ONE_LAYER, Together())):
        masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
        assert plan_copied(params, masks, sf.plan.is_prunable)[0].competition == competition


def test_fewer_weights_than_layers_warns_with_the_largest_rho():
    with pytest.warns(sf.CollapseWarning, match=r"N/L = 33\.6667"):
        plan_of(60.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, counts = plan_of(SIZE / 3)
    np.testing.assert_array_equal(counts, [[3]])
