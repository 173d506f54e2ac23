"""The check after pruning, on networks small enough to know by hand what is lost."""

import re
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.nets import (
    WIDTHS,
    all_true,
    batches,
    block,
    block_params,
    mlp,
    mlp_params,
    residual,
    residual_params,
    squared_loss,
)

KEY = jax.random.key(0)


def warned(method, *args, **settings):
    """List the messages of a call's warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        method(*args, **settings)
    return [str(w.message) for w in found if issubclass(w.category, sf.CollapseWarning)]


def clauses(method, *args, **settings):
    """List what the only warning of a call says, without the remedies."""
    (said,) = warned(method, *args, **settings)
    start, said = said.split(": ", 1)
    assert start == "check of the network as pruned"
    return [re.sub(r" \(.*\)|:.*|, (so|though) .*", "", part) for part in said.split("; ")]


def chain(params, x):
    return x @ params["one"] @ params["two"] @ params["three"]


def chain_params(middle=0.5):
    """Make 12 + 16 + 8 weights."""
    return {"one": jnp.ones((3, 4)), "two": jnp.full((4, 4), middle), "three": jnp.ones((4, 2))}


# Layers without a kept weight.


def test_magnitude_names_an_emptied_layer_and_the_remedy():
    (said,) = warned(sf.magnitude, chain_params(), 36 / 20)  # as many as the others have
    assert "no weight is left in two (min_keep=1" in said
    assert "a scope by layer (layerwise, erk)" in said
    assert warned(sf.magnitude, chain_params(), 36 / 21) == []
    assert warned(sf.magnitude, chain_params(), 36 / 20, min_keep=1) == []


def test_magnitude_names_a_layer_of_zeros_that_it_empties():
    params = {"a": jnp.ones((8, 16)), "c": jnp.zeros((16, 16)), "b2": 2 * jnp.ones((16, 4))}
    (said,) = warned(sf.magnitude, params, 4.0)  # 112 of 128 + 256 + 64
    assert "no weight is left in c (min_keep=1" in said


def test_random_counts_of_a_mask_may_leave_a_layer_empty():
    params = chain_params()
    masks = all_true(params) | {"two": jnp.zeros((4, 4), bool)}
    assert clauses(sf.random, KEY, params, densities=masks) == ["no weight is left in two"]


@pytest.mark.parametrize("rounds", [1, 2])
def test_methods_with_data_name_emptied_layers(rounds):
    def loss(params, _):
        return jnp.sum(params["one"] ** 2) + 1e-3 * jnp.sum(params["two"] ** 2)

    params = {"one": jnp.ones((3, 3)), "two": jnp.ones((3, 3))}
    for method in (sf.snip, sf.grasp):
        found = clauses(method, params, loss, [0], 2.0, rounds=rounds)
        assert found == ["no weight is left in two"]


def test_a_flow_that_dies_and_the_layers_it_dies_of_are_one_warning():
    # A layer's scores sum to the same, so that those of the largest layer are lowest.
    (said,) = warned(sf.synflow, chain_params(), chain, (3,), 36 / 20, rounds=1)
    assert "the flow is 0 from round 1 of 1 on" in said
    assert "computes a constant, and no weight is left in two; use" in said


def test_layers_that_must_collapse_are_not_told_of_twice():
    (said,) = warned(sf.magnitude, chain_params(), 18.0)
    assert "2 weights for 3 layers" in said


@pytest.mark.parametrize("transform", [jax.jit, lambda f: lambda p: jax.vmap(f)(p)])
def test_nothing_is_said_under_a_trace(transform):
    params = chain_params()
    params = jax.tree.map(lambda leaf: leaf[None], params)
    assert warned(transform(lambda p: sf.magnitude(p, 36 / 20)), params) == []


# Layers whose scores are all 0.


def stack(params, x):
    """Three blocks beside a skip, whose weights are one leaf."""

    def step(h, w):
        return h + jax.nn.relu(h @ w), None

    return jax.lax.scan(step, x, params["w"])[0] @ params["out"]


def stack_params():
    return {"w": jnp.ones((3, 4, 4)).at[1].set(0.0), "out": jnp.ones((4, 2))}


def test_a_layer_of_zeros_in_a_stack_is_named_with_its_cause():
    said = warned(sf.synflow, stack_params(), stack, (4,), 56 / 50, rounds=1)
    assert any(
        "all scores are 0 in w[1], which therefore go first: w[1] is all zero" in s for s in said
    )


def test_an_unused_stack_is_named_with_its_cause():
    params = stack_params() | {"w": jnp.ones((3, 4, 4)), "spare": jnp.ones((2, 4, 4))}
    settings = {"rounds": 1, "stacked": ["w", "spare"], "prunable": lambda path, _: path != "out"}
    said = warned(sf.synflow, params, stack, (4,), 80 / 79, **settings)
    assert "all scores are 0 in spare[0], spare[1], which" in said[0]
    assert ": spare[0], spare[1] meets no signal. Leave" in said[0]


# Branches without flow.


def branched(params, x):
    """A skip and a branch of one unit."""
    h = x @ params["stem"]
    return h @ params["skip"] + jax.nn.relu(h @ params["up"]) @ params["down"]


def branched_params():
    """Make scores of 12 a weight in stem, 10 in skip, 4 in up and 16 in down."""
    shapes = {"stem": (2, 8), "skip": (8, 2), "up": (8, 1), "down": (1, 2)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    return params | {"skip": jnp.full((8, 2), 5.0)}


def test_a_branch_cut_beside_a_skip_is_named():
    params = branched_params()
    found = clauses(sf.synflow, params, branched, (2,), 42 / 34, rounds=1)
    assert found == ["no weight is left in up", "no flow goes through down"]
    assert warned(sf.synflow, params, branched, (2,), 42 / 35, rounds=1) == []


def test_the_report_marks_both_layers_of_that_branch():
    params = branched_params()
    masks = all_true(params) | {"up": jnp.zeros((8, 1), bool)}
    rows = sf.report(params, masks, branched, (2,)).rows
    assert {row.layer: row.state for row in rows} == {
        "down": "dead",
        "skip": "",
        "stem": "",
        "up": "collapsed",
    }


def test_an_emptied_shortcut_is_named_alone():
    size = sum(leaf.size for leaf in block_params().values())
    args = block_params(), block, (3,)
    found = clauses(sf.synflow, *args, size / (size - 24), rounds=1)
    assert found == ["no weight is left in shortcut"]
    assert warned(sf.synflow, *args, size / (size - 24), rounds=1, min_keep=1) == []


def test_certified_rounds_name_emptied_layers():
    size = sum(leaf.size for leaf in block_params().values())
    found = clauses(
        sf.synflow,
        *(block_params(), block, (3,), size / (size - 24)),
        schedule=sf.certified(),
    )
    assert found == ["no weight is left in shortcut"]


# Outputs and inputs.


def test_a_head_that_loses_all_flow_is_named():
    def heads(params, x):
        h = x @ params["body"]
        return {"first": h @ params["one"], "second": h @ params["two"]}

    # Scores of 3.003 a weight of body, 3 of one, 0.003 of two.
    params = {"body": jnp.ones((3, 4)), "one": jnp.ones((4, 3)), "two": jnp.full((4, 3), 1e-3)}
    found = clauses(sf.synflow, params, heads, (3,), 36 / 24, rounds=1)
    assert found == [
        "no weight is left in two",
        "no flow reaches output 'second', none of its entries",
    ]


@pytest.mark.parametrize("wrap", [lambda f: f, sf.flow_mode])
def test_a_class_that_loses_all_flow_is_named_by_number(wrap):
    params = {"w": jnp.ones((3, 4)), "v": jnp.array([[1.0, 2.0, 0.01]] * 4)}
    network = wrap(lambda p, x: x @ p["w"] @ p["v"])
    (said,) = warned(sf.synflow, params, network, (3,), 24 / 20, rounds=1)
    assert "no flow reaches 1 of 3 entries of the output (2)" in said


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 2), 2), ((2, 3, 3), 0)])
def test_a_channel_without_effect_is_named_by_number(shape, axis):
    def network(params, x):
        x = jnp.moveaxis(x, axis + 1, -1)
        return jnp.mean(x @ params["w"], (1, 2)) @ params["v"]

    # Scores of 2 a weight of the first channel, 0.002 of the second, 1.001 behind them.
    params = {"w": jnp.array([[1.0] * 3, [1e-3] * 3]), "v": jnp.ones((3, 2))}
    (said,) = warned(sf.synflow, params, network, shape, 12 / 9, rounds=1)
    assert f"no output depends on 1 of 2 entries of axis {axis} of the input (1)" in said


def test_entries_that_the_dense_network_lacks_too_are_no_loss():
    params = {"w": jnp.array([[1.0, 1.0], [0.0, 0.0]]), "v": jnp.array([[1.0, 2.0, 0.0]] * 2)}

    def network(p, x):
        return jnp.mean(x @ p["w"], 1) @ p["v"]

    assert warned(sf.synflow, params, network, (5, 2), 10 / 6, rounds=1) == []


def test_the_function_is_not_traced_again_to_look_for_what_is_lost():
    calls = []

    def network(params, x):
        calls.append(1)
        return x @ params["w"] @ params["v"]

    params = {"w": jnp.ones((3, 4)), "v": jnp.array([[1.0, 2.0, 0.01]] * 4)}
    for _ in range(2):
        assert len(warned(sf.synflow, params, network, (3,), 24 / 20, rounds=1)) == 1
    assert len(calls) == 1


# Negative flow.


def shifted(params, x):
    return (x @ params["w"] - params["mean"][None]) @ params["v"]


def shifted_params():
    """Make sums of 4, of which unit 1 has 5 subtracted: −1 flows on from there."""
    ones = jnp.ones((4, 3))
    return {"w": ones, "v": ones.T, "mean": jnp.array([0.5, 5.0, 0.5])}


def test_negative_scores_are_named_with_their_cause():
    (said,) = warned(sf.synflow, shifted_params(), shifted, (4,), 24 / 23, rounds=2)
    assert "scores of the dense network are negative in v: " in said
    assert "running mean" in said
    assert warned(sf.synflow, shifted_params(), sf.flow_mode(shifted), (4,), 24 / 23) == []


def test_a_difference_of_signals_has_negative_scores_outside_of_flow_mode():
    def network(p, x):
        return x @ p["one"] - x @ p["two"]

    params = {"one": jnp.ones((2, 2)), "two": jnp.full((2, 2), 0.5)}
    (said,) = warned(sf.synflow, params, network, (2,), 8 / 7, rounds=1)
    assert "negative in two: " in said
    assert warned(sf.synflow, params, sf.flow_mode(network), (2,), 8 / 7, rounds=1) == []


# The network at its own values.


def closed(params, x):
    """A block whose branch is closed at the start, beside a thin skip; a second way around both."""
    h = x @ params["stem"]
    z = h @ params["skip"] + params["gamma"] * (h @ params["up"])
    return z @ params["head"] + (x @ params["around"] if "around" in params else 0.0)


def closed_params(around):
    rng = np.random.default_rng(0)

    def normal(*shape, size=1.0):
        return jnp.asarray(size * rng.standard_normal(shape), jnp.float32)

    params = {"stem": normal(4, 4), "skip": normal(4, 4, size=1e-4), "up": normal(4, 4)}
    params |= {"gamma": jnp.zeros(()), "head": normal(4, 2)}
    return params | ({"around": normal(4, 2)} if around else {})


class ScoredOpen(sf.flow.Network):
    """Flow mode in which the network as it is has no share, so that its skips go first."""

    homogeneous = True
    sources = False

    def __init__(self, fn):
        self.network = sf.flow_mode(fn, branches=None)

    @property
    def plain(self):
        return self.network.plain

    def prepare(self, params, inputs=None):
        return self.network.prepare(params, inputs)

    def __call__(self, params, x):
        return self.network(params, x)


def clauses_of_closed(around, kept, wrap=ScoredOpen):
    """Prune all but `kept` of the weights that are not the skip's, and say what is lost."""
    params = closed_params(around)
    size = sum(leaf.size for leaf in params.values()) - 1
    return partial(warned, sf.synflow, params, wrap(closed), (4,), size / kept(size))


@pytest.mark.parametrize("around", [False, True])
def test_in_flow_mode_the_skip_of_a_closed_branch_is_not_lost(around):
    assert clauses_of_closed(around, lambda size: size - 16, sf.flow_mode)(rounds=1) == []


def test_a_network_of_closed_branches_alone_passes_no_signal():
    (said,) = clauses_of_closed(False, lambda size: size - 16)(rounds=1)
    assert "no weight is left in skip" in said
    assert "at its own values it passes no signal" in said
    assert "gamma close" in said


def test_layers_without_a_gradient_at_their_own_values_are_named():
    (said,) = clauses_of_closed(True, lambda size: size - 16)(rounds=1)
    assert "no weight is left in skip" in said
    # `up` has none in the dense network either, as gamma is 0.
    assert "at its own values it has no gradient in head, stem, " in said


def test_closed_branches_are_no_loss_while_the_skip_stands():
    assert clauses_of_closed(False, lambda size: size)(rounds=1) == []


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_draw_at_which_all_units_are_closed_is_not_enough(sign):
    def network(params, x):
        return jax.nn.relu(x @ params["up"]) @ params["down"] + x @ params["skip"]

    # For one of the signs, the only unit is closed at the first input that is drawn.
    params = {"up": sign * jnp.ones((3, 1)), "down": jnp.ones((1, 2))}
    params["skip"] = jnp.full((3, 2), 1e-3)
    found = clauses(sf.synflow, params, network, (3,), 11 / 5, rounds=1)
    assert found == ["no weight is left in skip"]


def test_the_loss_has_no_gradient_behind_an_emptied_layer():
    def loss(params, x):
        return jnp.mean(jnp.square(chain(params, x)))

    # A layer's scores sum to the same, so that those of the largest layer are lowest.
    found = clauses(sf.snip, chain_params(), loss, [jnp.ones((1, 3))], 36 / 20)
    assert found == [
        "no weight is left in two",
        "on the first batch the loss has no gradient in one, three",
    ]


# Nothing to say.


def test_healthy_networks_are_quiet():
    params, data = mlp_params(0), batches()
    assert warned(sf.synflow, params, mlp, WIDTHS[:1], 1.5) == []
    assert warned(sf.snip, params, squared_loss, data, 1.5) == []
    assert warned(sf.grasp, params, squared_loss, data, 1.5) == []
    assert warned(sf.random, KEY, params, 1.5) == []
    assert warned(sf.synflow, residual_params(0), residual, (6, 6, 2), 3.0, min_keep=1) == []


def test_the_cause_of_negative_scores_is_told_by_the_trace():
    rng = np.random.default_rng(0)
    params = {
        "a": jnp.asarray(rng.standard_normal((6, 8)), jnp.float32),
        "b": jnp.asarray(rng.standard_normal((8, 4)), jnp.float32),
    }

    def shared(p, x):
        h = jax.nn.relu(x @ p["a"])
        return (h / h.sum(-1, keepdims=True)) @ p["b"]

    @jax.custom_vjp
    def reversal(x):
        return x

    reversal.defvjp(lambda x: (x, None), lambda _, g: (-g,))

    def reversed_(p, x):
        return reversal(jax.nn.relu(x @ p["a"])) @ p["b"]

    with pytest.warns() as caught:
        sf.synflow(params, shared, (6,), 2, rounds=2)
    said = [str(one.message) for one in caught if "scores of the dense" in str(one.message)]
    assert len(said) == 1 and "not homogeneous (div at" in said[0] and "subtracted" not in said[0]
    with pytest.warns() as caught:
        sf.synflow(params, reversed_, (6,), 2, rounds=2)
    said = [str(one.message) for one in caught if "scores of the dense" in str(one.message)]
    assert len(said) == 1 and "a derivative on their paths is negative" in said[0]


def test_layers_behind_a_stopped_gradient_are_named_so():
    params = {"a": jnp.ones((6, 8)), "b": jnp.ones((8, 4))}

    def network(p, x):
        return jax.lax.stop_gradient(jax.nn.relu(x @ p["a"])) @ p["b"]

    with pytest.warns(sf.CollapseWarning, match=r"a lies behind stop_gradient at .*test_check.py"):
        sf.synflow(params, network, (6,), 2, rounds=1)

    for network, cause in (
        (
            lambda p, x: jax.lax.stop_gradient(x @ p["a"]),
            "a lies behind stop_gradient",
        ),
        (lambda p, x: jax.nn.one_hot(jnp.argmax(x @ p["a"], -1), 8), "a gets no gradient: outputs"),
    ):
        with pytest.raises(ValueError, match=cause):
            sf.synflow({"a": params["a"]}, network, (6,), 2)


def test_an_input_of_several_is_named_by_its_path():
    rng = np.random.default_rng(0)
    params = {
        "u": jnp.asarray(rng.standard_normal((6, 8)), jnp.float32),
        "v": jnp.asarray(1e-4 * rng.standard_normal((6, 8)), jnp.float32),
        "o": jnp.asarray(rng.standard_normal((8, 4)), jnp.float32),
    }

    def network(p, x):
        return jax.nn.relu(x["u"] @ p["u"]) @ p["o"] + jax.nn.relu(x["v"] @ p["v"]) @ p["o"]

    shape = {name: jax.ShapeDtypeStruct((6,), jnp.float32) for name in "uv"}
    with pytest.warns(sf.CollapseWarning, match="no output depends on input 'v', none of its"):
        sf.synflow(params, network, shape, 4, rounds=10)


@pytest.mark.parametrize("head", ["split", "index"])
def test_an_output_of_a_fused_head_without_flow_is_named(head):
    rng = np.random.default_rng(1)
    fused = rng.standard_normal((8, 6))
    fused[:, :3] *= 1e-4
    params = {
        "a": jnp.asarray(rng.standard_normal((6, 8)), jnp.float32),
        "fused": jnp.asarray(fused, jnp.float32),
    }

    def network(p, x):
        both = jax.nn.relu(x @ p["a"]) @ p["fused"]
        if head == "split":
            return dict(zip(("mean", "variance"), jnp.split(both, 2, -1), strict=True))
        return {"mean": both[:, 0], "variance": both[:, 3:]}

    with pytest.warns(sf.CollapseWarning, match="no flow reaches output 'mean'"):
        sf.synflow(params, network, (6,), 4, rounds=10)


@pytest.mark.parametrize("size", [4, 8])
def test_an_input_channel_without_effect_is_named_whatever_the_size_of_the_image(size):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((8, 5))
    a[3] *= 1e-5
    params = {
        "a": jnp.asarray(a, jnp.float32),
        "o": jnp.asarray(rng.standard_normal((5, 3)), jnp.float32),
    }

    def network(p, x):
        return jax.nn.relu(x @ p["a"]).mean((1, 2)) @ p["o"]

    with pytest.warns(sf.CollapseWarning, match=r"1 of 8 entries of axis 2 of the input \(3\)"):
        sf.synflow(params, network, (size, size, 8), 2, rounds=10)


@pytest.mark.filterwarnings("ignore:apply_fn must be homogeneous")
def test_a_branch_that_is_divided_by_its_own_size_is_named_once_it_is_cut():
    params = {"a": jnp.ones((4, 4)), "b": jnp.full((4, 4), 1e-3), "o": jnp.ones((4, 2))}

    def towers(p, x):
        one, two = x @ p["a"], x @ p["b"]
        two = two / jnp.sqrt(jnp.sum(jnp.square(two), -1, keepdims=True))
        return one @ p["o"] + two @ p["o"]

    with pytest.raises(ValueError, match=r"round 2 had NaN .*cut off is divided .*div at .*flow_m"):
        sf.synflow(params, towers, (4,), 4, rounds=2)
