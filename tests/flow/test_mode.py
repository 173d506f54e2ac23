"""Flow mode as a whole: calls and loops, what it names, what it opens, what it is equal to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.nets import run_flow

pytestmark = pytest.mark.usefixtures("flax_promotes")
# Sums of some hundred float32 products, each rounded at 6e-8.
RTOL = 1e-5
Y = jnp.asarray(np.random.default_rng(0).uniform(0.1, 2.0, (3, 8)), jnp.float32)


def test_what_has_no_rule_is_named_with_its_place():
    network = lambda p, x: jnp.prod(x @ p["w"], -1)
    params = {"w": jnp.ones((2, 3))}
    with pytest.warns(sf.flow.FlowWarning, match=r"reduce_prod at .*test_mode\.py:\d+"):
        sf.flow_mode(network)(params, jnp.ones((1, 2)))
    found = sf.flow.homogeneity_report(params, network, (2,))
    assert [row.operation for row in found.unrecognised] == ["reduce_prod"]
    assert "left as it is" in str(found)
    loop = lambda p, x: jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: 2 * x, x)
    with pytest.warns(sf.flow.FlowWarning, match="while"):
        sf.flow_mode(loop)(params, jnp.ones((1, 2)))


def test_what_prints_breaks_nothing():
    def network(p, x):
        y = x @ p["w"]
        jax.debug.print("{}", y)
        return y

    assert not sf.flow.homogeneity_report({"w": jnp.ones((2, 3))}, network, (2,)).rows


@pytest.mark.parametrize(
    "wrap", [jax.jit, jax.checkpoint, jax.custom_vjp], ids=["jit", "remat", "vjp"]
)
def test_calls_are_walked_through(wrap):
    fn = wrap(lambda x: jax.nn.gelu(x))
    if wrap is jax.custom_vjp:
        fn.defvjp(lambda x: (jax.nn.gelu(x), x), lambda x, g: (g,))
    np.testing.assert_allclose(run_flow(fn, Y)[1], jax.nn.gelu(Y) / Y, rtol=RTOL)


def test_loops_and_branches_are_walked_through():
    def network(p, x):
        h = jax.lax.scan(lambda h, w: (jnp.tanh(x @ w + h @ w), None), jnp.zeros((1, 3)), p["w"])[0]
        return jax.lax.cond(p["n"] > 0, lambda h: jax.nn.gelu(h), lambda h: h, h)

    params = {"n": jnp.array(1), "w": jax.random.normal(jax.random.key(0), (4, 3, 3))}
    flow = sf.flow_mode(network)
    assert float(sf.measure.conservation_gap(params, network, (3,))) > 0.1
    assert float(sf.measure.conservation_gap(params, flow, (3,))) < RTOL
    assert (
        sf.measure.stacked_layers(params, network, (3,))
        == sf.measure.stacked_layers(params, flow, (3,))
        == {"w": 4}
    )


def test_equal_functions_make_equal_networks_that_share_a_program():
    traced = []

    def network(p, x):
        traced.append(1)
        return jax.nn.silu(x @ p["w"])

    params = {"w": jnp.ones((2, 3))}
    assert sf.flow_mode(network) == sf.flow_mode(network)
    assert hash(sf.flow_mode(network)) == hash(sf.flow_mode(network))
    assert sf.flow_mode(network) != sf.flow_mode(network, sources=True)
    first = sf.log2_flow(params, sf.flow_mode(network), (2,))
    count = len(traced)
    assert sf.log2_flow(params, sf.flow_mode(network), (2,)) == first
    assert len(traced) == count


def test_what_the_trace_shows_to_be_added_closes_no_branch():
    params = {"offset": jnp.zeros((1, 3)), "mean": jnp.zeros((3, 2)), "kernel": jnp.ones((4, 3))}

    def network(p, x):
        return (x @ p["kernel"] + p["offset"]) @ p["mean"]

    for fn in (network, sf.flow_mode(network)):
        assert sf.flow.closed_leaves(params, fn, (4,)) == ("mean",)
    with pytest.raises(ValueError, match="Leaves that are all zero: mean"):
        sf.log2_flow(params, network, (4,)).block_until_ready()
        sf.measure.conservation_gap(params, network, (4,))


def test_closed_leaves_are_opened_for_scores_and_a_pruned_one_stays_shut():
    params = {
        "alpha": jnp.zeros(()),
        "b": jnp.zeros(3),
        "gamma": jnp.full(3, 1e-6),
        "w": jnp.zeros((4, 3)),
    }
    assert sf.flow.closed_leaves(params) == ("alpha", "gamma", "w")
    assert sf.flow.closed_leaves({"offset": jnp.zeros((1, 3))}) == ("offset",)
    network = sf.flow_mode(lambda p, x: p["alpha"] * p["gamma"] * (x @ p["w"] + p["b"]))
    opened = network.prepare(params)
    assert float(opened["alpha"]) == 1.0 and opened["w"][0, 0] == 0.5 and opened["gamma"][0] == 1.0
    assert float(sf.log2_flow(params, network, (4,))) == pytest.approx(np.log2(6.0))
    masks = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params) | {"w": jnp.zeros((4, 3), bool)}
    assert float(sf.log2_flow(params, network, (4,), masks)) == -np.inf


def test_the_table_says_what_breaks_and_where():
    network = lambda p, x: jax.nn.softmax(jax.nn.gelu(x @ p["w"] + p["b"]))
    params = {"b": jnp.ones(3), "w": jnp.zeros((2, 3))}
    found = sf.flow.homogeneity_report(params, network, (2,))
    kinds = {row.breaks for row in found.rows}
    assert kinds == {"source", "elementwise", "centring", "softmax", "normaliser"}
    assert all("test_mode.py" in row.where for row in found.rows)
    assert found.closed == ("w",) and not found.unrecognised
    assert sf.flow.homogeneity_report(params, sf.flow_mode(network), (2,)) == found
    plain = sf.flow.homogeneity_report(
        {"w": jnp.ones((2, 3))}, lambda p, x: jax.nn.relu(x @ p["w"]), (2,)
    )
    assert not plain.rows and "homogeneous" in str(plain)


def test_a_report_lists_a_scanned_leaf_slice_by_slice():
    network = lambda p, x: jax.lax.scan(lambda h, w: (h @ w, None), x, p["w"])[0]
    params = {"w": jnp.ones((3, 2, 2))}
    masks = {"w": jnp.ones((3, 2, 2), bool).at[1, :, 0].set(False)}
    rows = sf.report(params, masks, network, (2,)).rows
    assert [(row.layer, row.kept) for row in rows] == [("w[0]", 4), ("w[1]", 2), ("w[2]", 4)]
    np.testing.assert_allclose([row.flow for row in rows], 1.0, rtol=RTOL)
    empty = {"w": masks["w"].at[1].set(False)}
    assert sf.collapsed_layers(empty, stacked=["w"]) == ("w[1]",)
    assert sf.collapsed_layers(empty) == ()


def test_the_gap_in_flow_mode_counts_no_names():
    """A norm's scale called weight is no source where sources are dropped."""

    def network(params, x):
        y = x @ params["up"]
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + 1e-6) * params["weight"]
        return y @ params["down"]

    keys = jax.random.split(jax.random.key(0))
    params = {"up": jax.random.normal(keys[0], (4, 6)), "weight": jnp.ones((6,))}
    params["down"] = jax.random.normal(keys[1], (6, 2))
    with jax.numpy_rank_promotion("allow"):
        assert float(sf.measure.conservation_gap(params, sf.flow_mode(network), (4,))) < 1e-5
