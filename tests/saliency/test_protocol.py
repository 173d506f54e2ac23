"""Saliencies of your own: a function, a class, a pytree, one on the host, one with a flow."""

from dataclasses import dataclass
from functools import partial, wraps

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax.saliency import Saliency
from synflow_jax.scaled import Scaled
from tests.support.nets import SIZE, WIDTHS, equal, kept, mlp, mlp_params
from tests.support.refusals import check_refused


class SquaredFlow(Saliency):
    """S = θ² ⊙ ∂R/∂θ², written out: the flow and its scores are all that it says."""

    measures_flow = True

    def flow_and_scores(self, params, masks):
        """Return R and the scores, in units of 1."""
        squares = jax.tree.map(lambda p, m: jnp.where(m, jnp.square(p), 0), params, masks)
        ones = jnp.ones((1, WIDTHS[0]), params["layer0"]["kernel"].dtype)
        flow, slopes = jax.value_and_grad(lambda s: jnp.sum(mlp(s, ones)))(squares)
        return Scaled(flow, jnp.int32(0)), jax.tree.map(jnp.multiply, squares, slopes)

    def scores(self, params, masks):
        """Return the scores alone."""
        return self.flow_and_scores(params, masks)[1]


@pytest.mark.parametrize("schedule", [sf.exponential, sf.certified()])
def test_flow_written_by_hand_prunes_as_synflow_l2(schedule, x64):
    params, own = mlp_params(0, dtype=jnp.float64, bias=0.0), SquaredFlow()
    masks, info = sf.prune(params, own, 12.0, 20, schedule=schedule, nested=True)
    ours = sf.saliency.synflow_l2_saliency(mlp, WIDTHS[:1])
    wanted, theirs = sf.prune(params, ours, 12.0, 20, schedule=schedule, nested=True)
    assert equal(masks, wanted)
    assert equal(masks, sf.synflow_l2(params, mlp, WIDTHS[:1], 12.0, rounds=20, schedule=schedule))
    np.testing.assert_array_equal(info.kept, theirs.kept)
    # Sums of a few hundred float64 products in another order.
    np.testing.assert_allclose(info.log2_flow, theirs.log2_flow, atol=1e-12)
    np.testing.assert_allclose(info.share, theirs.share, rtol=1e-9)


def test_any_function_of_yours_is_a_saliency():
    def scores(params, masks):
        return params

    bare = {"scores": scores}  # it has no __name__: what is written here is of no module
    exec("def of_no_module(params, masks):\n    return scores(params, masks)", bare)
    wrapped = wraps(sf.saliency.magnitude_saliency)(lambda params, masks: params)
    for saliency in (scores, bare["of_no_module"], wrapped, partial(scores), jax.jit(scores)):
        masks, _ = sf.prune({"w": jnp.array([[1.0, 2.0]])}, saliency, 2.0, 1)
        assert masks["w"].tolist() == [[False, True]]


@partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=["traced"])
@dataclass(frozen=True)
class Weighted(Saliency):
    """|θ| times weights that it holds; counts how often it is traced."""

    weights: jax.Array
    traced: object

    def scores(self, params, masks):
        """Score what is left."""
        self.traced.append(1)
        return {"w": jnp.abs(params["w"]) * self.weights * masks["w"].astype(jnp.float32)}


class Calls(list):
    """A list that compares by identity, so that it is static."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def test_a_registered_pytree_shares_its_program_and_uses_its_own_arrays():
    params, calls = {"w": jnp.array([[3.0, 2.0, 1.0]])}, Calls()
    found = []
    for weights in ([1.0, 1.0, 1.0], [0.0, 1.0, 9.0]):
        saliency = Weighted(jnp.array([weights]), calls)
        found.append(sf.prune(params, saliency, 3.0, 2)[0]["w"].tolist())
    assert found == [[[True, False, False]], [[False, False, True]]]
    assert len(calls) == 1


class OnHost(Saliency):
    """|θ| in NumPy, noting how many weights were left each time it was asked."""

    on_host = True

    def __init__(self):
        self.seen = []

    def scores(self, params, masks):
        """Look at the values: nothing is traced."""
        self.seen.append(kept(masks))
        return jax.tree.map(lambda p, m: np.abs(np.asarray(p)) * np.asarray(m), params, masks)


def test_a_saliency_on_the_host_sees_values_once_a_round():
    saliency, params = OnHost(), mlp_params(1)
    masks, info = sf.prune(params, saliency, 8.0, 3)
    assert saliency.seen == [SIZE, *info.kept.sum(1).tolist()[:-1]]
    assert equal(masks, sf.magnitude(params, 8.0))
    assert bool(jnp.isnan(info.log2_flow).all())


class LargestOfUnit(Saliency):
    """|θ|, where a unit counts by its largest weight."""

    def scores(self, params, masks):
        """Score every weight."""
        return jax.tree.map(jnp.abs, params)

    def unit_scores(self, score, unit):
        """Score a unit by its largest weight, column by column."""
        assert unit == (score.shape[0], 1)
        return jnp.max(score, axis=0, keepdims=True)


def test_units_may_be_scored_otherwise_than_by_sums():
    params = {"w": jnp.array([[9.0, 5.0], [0.0, 5.0]])}
    largest, _ = sf.prune(params, LargestOfUnit(), 2.0, 1, pattern=sf.channels)
    assert largest["w"].tolist() == [[True, False]] * 2
    assert sf.magnitude(params, 2.0, pattern=sf.channels)["w"].tolist() == [[False, True]] * 2


def test_a_class_for_an_instance_is_refused():
    for kind in (SquaredFlow, OnHost):
        check_refused(
            lambda kind=kind: sf.prune(mlp_params(0), kind, 2.0),
            TypeError,
            ["saliency must be a function (params, masks) -> scores", f"{kind.__name__}'>"],
        )


def test_what_measures_no_flow_gives_none():
    params = {"w": jnp.ones((2, 3))}
    masks = {"w": jnp.ones((2, 3), bool)}
    flow, scores = LargestOfUnit().flow_and_scores(params, masks)
    assert bool(jnp.isnan(flow.mantissa))
    assert bool(jnp.isnan(LargestOfUnit().flow(params, masks).mantissa))
    assert equal(scores, LargestOfUnit()(params, masks))
