"""A network for which the laws of flow do not hold is named: operation, line, remedy, once."""

import warnings

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from synflow_jax.flow import FlowWarning
from tests.support.nets import CONV_SHAPE, WIDTHS, mlp, mlp_params, residual, residual_params

relu, normal, key = jax.nn.relu, jax.random.normal, jax.random.key


def norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


NORMED = {
    "a": normal(key(0), (12, 32)),
    "c": normal(key(1), (32, 32)) / 6,
    "o": normal(key(2), (32, 4)),
}


def normed(p, x):
    return relu(norm(relu(norm(x @ p["a"])) @ p["c"])) @ p["o"]


def caught(fn):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = fn()
    return result, [one for one in found if issubclass(one.category, FlowWarning)]


def test_layer_norm_is_named_once_with_its_line_and_the_remedy():
    masks, found = caught(lambda: sf.synflow(NORMED, normed, (12,), 10))
    assert len(found) == 1
    said = str(found[0].message)
    assert all(part in said for part in ("sqrt", "test_homogeneous.py", "(norm)", "flow_mode("))
    assert found[0].filename == __file__
    assert int(masks["a"].sum()) <= 3  # the nonsense that the warning is about


def test_flow_mode_is_quiet_and_keeps_all_layers():
    masks, found = caught(lambda: sf.synflow(NORMED, sf.flow_mode(normed), (12,), 10))
    assert not found
    assert [int(masks[name].sum()) for name in ("a", "c", "o")] == [57, 56, 41]


@pytest.mark.parametrize("method", [sf.synflow, sf.synflow_l2])
def test_homogeneous_networks_are_quiet(method):
    assert not caught(lambda: method(mlp_params(0), mlp, WIDTHS[:1], 3.0))[1]
    assert not caught(lambda: method(residual_params(0), residual, CONV_SHAPE, 2.0))[1]

    def tied(p, x):
        for _ in range(3):
            x = relu(x @ p["w"])
        return x @ p["o"]

    params = {"w": normal(key(0), (8, 8)), "o": normal(key(1), (8, 4))}
    assert not caught(lambda: method(params, tied, (8,), 2.0))[1]


def test_a_break_behind_which_no_pruned_layer_lies_is_no_break():
    def network(p, x):
        return relu(jnp.sin(x) @ p["a"]) @ p["o"]

    params = {"a": normal(key(0), (12, 32)), "o": normal(key(2), (32, 4))}
    assert not caught(lambda: sf.synflow(params, network, (12,), 4))[1]

    def gated(p, x):
        return relu(jax.nn.sigmoid(x @ p["a"]) * 2.0) @ p["o"]

    only = lambda path, leaf: path == "o"
    assert not caught(lambda: sf.synflow(params, gated, (12,), 4, prunable=only))[1]
    assert len(caught(lambda: sf.synflow(params, gated, (12,), 4))[1]) == 1


def test_methods_that_measure_no_flow_are_quiet():
    def loss(p, x):
        return (normed(p, x) ** 2).mean()

    batches = [normal(key(3), (6, 12))]
    for call in (
        lambda: sf.magnitude(NORMED, 4),
        lambda: sf.snip(NORMED, loss, batches, 2),
        lambda: sf.random(key(0), NORMED, 4),
    ):
        assert not caught(call)[1]


def test_nothing_is_said_under_a_trace():
    run = jax.jit(lambda p: sf.synflow(p, normed, (12,), 10))
    assert not caught(lambda: run(NORMED))[1]


def test_functions_of_weights_are_told_apart():
    def normalised(p, x):
        w = p["a"] - 0.5 * p["a"].mean(0, keepdims=True)
        return relu(x @ (w / jnp.sqrt((w**2).sum()))) @ p["o"]

    params = {"a": normal(key(0), (12, 32)), "o": normal(key(2), (32, 4))}
    _, found = caught(lambda: sf.synflow(params, normalised, (12,), 2))
    said = str(found[0].message)
    assert "normalises weights before it uses them (a)" in said
    assert "mean or maximum is subtracted, so that pruned weights are not 0 there" in said
    assert "(test_functions_of_weights_are_told_apart.<locals>.normalised)" in said

    assert "function of the weights" not in said


def test_functions_that_normalise_nothing_are_not_said_to():
    def network(p, x):
        return relu(x @ jax.nn.softplus(p["a"])) @ p["o"]

    params = {"a": normal(key(0), (12, 32)), "o": normal(key(2), (32, 4))}
    _, found = caught(lambda: sf.synflow(params, network, (12,), 2))
    (said,) = [str(one.message) for one in found]
    assert "uses a function of the weights in their place (a)" in said
    assert "scores are not shares of the flow: softplus at" in said
    assert "normalises" not in said

    def both(p, x):
        return network(p | {"o": p["o"] / jnp.sqrt((p["o"] ** 2).sum())}, x)

    _, found = caught(lambda: sf.synflow(params, both, (12,), 2, rounds=1))
    (said,) = [str(one.message) for one in found]
    assert "normalises weights before it uses them (o)" in said
    assert "uses a function of the weights in their place (a)" in said


@pytest.mark.parametrize(
    "head", [jax.nn.softmax, jax.nn.log_softmax, jax.nn.sigmoid, jnp.tanh, jax.nn.relu6]
)
def test_a_head_that_takes_all_flow_is_named(head):
    def network(p, x):
        return head(relu(x @ p["a"]) @ p["o"])

    params = {"a": 9 * normal(key(0), (20, 50)), "o": 9 * normal(key(2), (50, 10))}
    with pytest.raises(ValueError, match=r"not homogeneous.*test_homogeneous.py.*flow_mode"):
        sf.synflow(params, network, (20,), 4)


@pytest.mark.filterwarnings("ignore:check of the network")  # its derivative is negative
def test_of_an_unknown_operation_it_is_not_said_that_it_breaks_the_laws():
    def network(p, x):
        return jax.lax.bessel_i0e(x @ p["a"])

    with pytest.warns(sf.flow.FlowWarning, match="it is not known whether these operations are"):
        sf.synflow({"a": jnp.ones((4, 4))}, network, (4,), 2, rounds=1)
