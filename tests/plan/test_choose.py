"""Choosing by name: patterns, groups with a ρ of their own, floors a layer."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.meshes import mesh_of, spread
from tests.support.nets import GROUPS, batches, equal, kept, mlp, mlp_params, squared_loss
from tests.support.refusals import check_refused

# Tiny networks at high compression lose outputs, which is not what these tests are about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:check of the network as pruned:synflow_jax.CollapseWarning"
)

SIZES = {"layer0": 35, "layer1": 42, "layer2": 24}


def counts(masks):
    return {name: int(layer["kernel"].sum()) for name, layer in masks.items()}


def weights(seed):
    """Draw a linear chain of three layers in float64; two of one shape share a pack."""
    draws = np.random.default_rng(seed)
    shapes = {"in": (3, 6), "mid": (6, 6), "more": (6, 6), "out": (6, 2)}
    return {name: draws.standard_normal(shape) for name, shape in shapes.items()}


def chain(params, x):
    for name in ("in", "mid", "more", "out"):
        x = x @ params[name]
    return x


def by_hand(params, groups, rounds, floors):
    """Run SynFlow in NumPy: `groups` lists (names, ρ), `floors` has the least count by name."""
    masks = {name: np.ones(w.shape, bool) for name, w in params.items()}
    names = list(params)
    for k in range(1, rounds + 1):
        live = [np.abs(params[name]) * masks[name] for name in names]
        scores = {}
        for i, name in enumerate(names):
            before, after = np.ones(live[0].shape[0]), np.ones(live[-1].shape[1])
            for w in live[:i]:
                before = before @ w
            for w in reversed(live[i + 1 :]):
                after = w @ after
            scores[name] = np.where(masks[name], before[:, None] * live[i] * after, -1.0)
        for members, rho in groups:
            total = sum(params[name].size for name in members)
            budget = math.ceil(total * rho ** (-k / rounds) - 1e-9)
            ranked = sorted(
                (-scores[name].flat[i], name, i)
                for name in members
                for i in range(scores[name].size)
            )
            chosen = {
                (n, i)
                for name in members
                for _, n, i in [r for r in ranked if r[1] == name][: floors.get(name, 0)]
            }
            for _, name, i in ranked:
                if len(chosen) < budget:
                    chosen.add((name, i))
            for name in members:
                flat = [(name, i) in chosen for i in range(params[name].size)]
                masks[name] = np.array(flat).reshape(params[name].shape)
    return masks


@pytest.mark.parametrize(
    ("rho", "groups", "floors"),
    [
        ({"m*": 8.0, "*": 3.0}, [(["in", "out"], 3.0), (["mid", "more"], 8.0)], {}),
        ({"mid": 8.0, "*": 3.0}, [(["in", "more", "out"], 3.0), (["mid"], 8.0)], {}),
        (12.0, [(["in", "mid", "more", "out"], 12.0)], {"in": 2, "mid": 2, "more": 2, "out": 2}),
        ({"m*": 8.0, "*": 6.0}, [(["in", "out"], 6.0), (["mid", "more"], 8.0)], {"out": 3}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_and_floors_are_those_of_a_run_by_hand(rho, groups, floors, seed, x64):
    params = weights(seed)
    saliency = sf.synflow_saliency(chain, (3,))
    masks, info = sf.prune(jax.tree.map(jnp.asarray, params), saliency, rho, 9, min_keep=floors)
    want = by_hand(params, groups, 9, floors)
    assert equal(masks, want)
    assert info.kept[-1].tolist() == [int(want[name].sum()) for name in sorted(params)]


def test_floors_lose_as_little_score_as_can_be():
    """Of all masks with the counts asked for, none keeps more: tried one by one."""
    params = {"u": jnp.array([[9.0, 8.0, 7.0, 6.0]]), "v": jnp.array([[1.0, 2.0, 3.0]])}
    masks = sf.magnitude(params, 7 / 4, min_keep={"v": 2})
    flat = np.concatenate([np.ravel(params["u"]), np.ravel(params["v"])])
    allowed = [c for c in itertools.combinations(range(7), 4) if sum(i >= 4 for i in c) >= 2]
    best = max(allowed, key=lambda c: flat[list(c)].sum())
    got = np.concatenate([np.ravel(masks["u"]), np.ravel(masks["v"])])
    assert np.flatnonzero(got).tolist() == sorted(best)


METHODS = {
    "synflow": lambda p, rho, **kw: sf.synflow(p, mlp, (5,), rho, rounds=7, **kw),
    "magnitude": sf.magnitude,
    "random": lambda p, rho, **kw: sf.random(jax.random.key(0), p, rho, **kw),
    "snip": lambda p, rho, **kw: sf.snip(p, squared_loss, batches(), rho, rounds=2, **kw),
    "grasp": lambda p, rho, **kw: sf.grasp(p, squared_loss, batches(), rho, **kw),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_groups_and_floors(name):
    params, method = mlp_params(1), METHODS[name]
    found = counts(method(params, GROUPS))
    assert found["layer1"] == 42 // 6
    assert found["layer0"] + found["layer2"] == math.ceil((35 + 24) / 2)
    floored = counts(method(params, 101 / 9, min_keep=3))
    assert sorted(floored.values()) == [3, 3, 3]
    assert sum(counts(method(params, 10.0, min_keep={"layer2/*": 0.25})).values()) == 11
    assert counts(method(params, 10.0, min_keep={"layer2/*": 0.25}))["layer2"] >= 6


def test_one_weight_a_layer_keeps_every_layer():
    params = mlp_params(2)
    params["layer1"]["kernel"] *= 1e-3
    assert counts(sf.magnitude(params, 20.0))["layer1"] == 0
    assert counts(sf.magnitude(params, 20.0, min_keep=1))["layer1"] == 1


@pytest.mark.parametrize("scope", [sf.layerwise, sf.erk])
def test_a_scope_holds_inside_of_each_group(scope):
    params = mlp_params(3)
    masks = METHODS["synflow"](params, GROUPS, scope=scope)
    pair = scope(((5, 7), (6, 4)), np.array([0.5]))[0].tolist()
    assert counts(masks) == {"layer0": pair[0], "layer1": 7, "layer2": pair[1]}
    floored = METHODS["synflow"](params, 30.0, scope=sf.layerwise, min_keep={"layer2/*": 5})
    assert counts(floored) == {"layer0": 2, "layer1": 2, "layer2": 5}


def test_groups_are_traced_with_their_ratios():
    params, saliency = mlp_params(4), sf.saliency.magnitude_saliency()
    run = jax.jit(lambda rho: sf.prune(params, saliency, rho, 1, min_keep=2)[0])
    ratios = {"layer1/*": jnp.array([6.0, 3.0]), "*": jnp.array([2.0, 12.0])}
    together = jax.vmap(run)(ratios)
    for i in range(2):
        one = {name: float(rho[i]) for name, rho in ratios.items()}
        want = sf.prune(params, saliency, one, 1, min_keep=2)[0]
        assert equal(jax.tree.map(lambda leaf, i=i: leaf[i], together), want)


def test_groups_on_a_mesh_are_those_of_one_device():
    params = {
        "a": jax.random.normal(jax.random.key(0), (8, 16)),
        "c": jax.random.normal(jax.random.key(1), (16, 8)),
    }
    rho = {"a": 4.0, "*": 9.0}
    run = lambda p: sf.synflow(p, lambda p, x: x @ p["a"] @ p["c"], (8,), rho, rounds=5, min_keep=3)
    assert equal(run(spread(params, mesh_of("auto"), "both")), run(params))


@pytest.mark.parametrize("run", [lambda fn: fn(2.0), lambda fn: jax.jit(fn)(2.0)])
def test_a_scope_of_your_own_holds_inside_of_each_group(run):
    """A group of one layer has one count by layer and in all: it goes with either."""
    params = mlp_params(5) | {name: {"kernel": jnp.ones((2, 2))} for name in ("u", "v")}
    own = lambda shapes, d: (sf.globally if len(shapes) > 2 else sf.layerwise)(shapes, d)
    method = lambda rest: lambda rho: sf.magnitude(params, {"layer*": rho, **rest}, scope=own)
    assert kept(run(method({"u/*": 2.0, "v/*": 4.0}))) == 51 + 2 + 1
    # Groups of three and of two layers get one count and two: by neither can they be compared.
    two_kinds = ["scope must return counts of one kind", "got [1, 2] for groups of [3, 2]"]
    check_refused(lambda: run(method({"*": 2.0})), ValueError, two_kinds)


def one_of_the_first(shapes, densities):
    """A scope of one's own: one weight in the first layer of a group, none in the others."""
    return np.outer(np.ones(len(densities)), np.arange(len(shapes)) == 0).astype(float)


@pytest.mark.parametrize("scope", [sf.globally, one_of_the_first])
def test_a_group_with_fewer_weights_than_layers_is_warned_of(scope):
    said = r"1 weights for 2 layers of layer0/kernel, layer2/kernel.* N/L = 29\.5"
    with pytest.warns(sf.CollapseWarning, match=said) as found:
        sf.magnitude(mlp_params(5), {"layer1/*": 2.0, "*": 59.0}, scope=scope)
    assert [one.filename for one in found] == [__file__]  # the caller's line, not one of ours


def test_one_group_is_no_group():
    params = mlp_params(5)
    assert equal(METHODS["synflow"](params, {"*": 7.0}), METHODS["synflow"](params, 7.0))
    assert equal(METHODS["synflow"](params, 7.0, min_keep=0), METHODS["synflow"](params, 7.0))


def test_patterns_choose_leaves():
    params = mlp_params(6)
    order = sf.measure.layer_order(params, mlp, (5,))
    masks = sf.magnitude(params, 4.0, prunable=sf.matching(but=[order[0], order[-1]]))
    assert counts(masks) == {"layer0": 35, "layer1": 11, "layer2": 24}
    assert counts(sf.magnitude(params, 5.0, prunable=sf.matching("*0/*")))["layer0"] == 7
    assert bool(sf.magnitude(params, 5.0, prunable=sf.matching("*0/*"))["layer0"]["bias"].all())
    assert sf.matching("a", but=["b"]) == sf.matching("a", but=("b",)) != sf.matching("a")


def test_counts_stay_exact_whatever_the_floors():
    params = mlp_params(9)
    for rho, floor in itertools.product([1.0, 2.0, 7.0], [0, 1, 4, 0.1]):
        masks = METHODS["synflow"](params, rho, min_keep=floor)
        assert kept(masks) == math.ceil(101 / rho)
        least = {n: math.ceil(floor * s) if 0 < floor < 1 else floor for n, s in SIZES.items()}
        assert all(counts(masks)[name] >= least[name] for name in SIZES)
