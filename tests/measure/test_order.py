"""The order in which a network uses its layers."""

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.nets import mlp, mlp_params

SQUARE = {name: jnp.ones((2, 2)) for name in ("z", "y", "x")}


def forward(p, x):
    return x @ p["z"] @ p["y"] @ p["x"]


def cast_first(p, x):
    """All params are cast before any is used, in the order of their names."""
    p = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), p)
    return forward(p, x.astype(jnp.bfloat16))


def product_first(p, x):
    """Two weights meet each other before the input meets them."""
    return (x @ p["z"]) @ (p["x"] @ p["y"])


def branches(p, x):
    return jax.lax.cond(x.sum() > 0, lambda x: x @ p["y"], lambda x: x @ p["x"], x @ p["z"])


@jax.checkpoint
def inside_calls(p, x):
    return jax.jit(forward)(p, x)


@pytest.mark.parametrize(
    ("network", "want"),
    [
        (forward, ("z", "y", "x")),
        (cast_first, ("z", "y", "x")),
        (product_first, ("z", "x", "y")),
        (branches, ("z", "x", "y")),  # branches are numbered from False
        (inside_calls, ("z", "y", "x")),
        (sf.flow_mode(forward), ("z", "y", "x")),
        (lambda p, x: x @ p["x"], ("x",)),
    ],
)
def test_it_is_that_of_use_and_not_of_names(network, want):
    assert sf.measure.layer_order(SQUARE, network, (2,)) == want


def test_a_scan_over_layers_is_walked_through():
    def network(p, x):
        def step(h, w):
            return h @ w @ p["x"], None

        return jax.lax.scan(step, x @ p["z"], p["stack"])[0] @ p["y"]

    params = {**SQUARE, "stack": jnp.ones((3, 2, 2))}
    assert sf.measure.layer_order(params, network, (2,)) == ("z", "stack", "x", "y")


def test_token_ids_meet_an_embedding():
    params = {"table": jnp.ones((5, 2)), "a": jnp.ones((2, 2))}
    shape = jax.ShapeDtypeStruct((3,), jnp.int32)

    def network(p, ids):
        return p["table"][ids] @ p["a"]

    every = lambda path, leaf: True
    assert sf.measure.layer_order(params, network, shape, prunable=every) == ("table", "a")
    assert sf.measure.layer_order(params, network, shape) == ("a",)  # a table stays whole


def test_only_prunable_leaves_are_named():
    params = mlp_params(0)
    assert sf.measure.layer_order(params, mlp, (5,)) == tuple(f"layer{i}/kernel" for i in range(3))
    last = sf.matching("layer2/*")
    assert sf.measure.layer_order(params, mlp, (5,), prunable=last) == ("layer2/kernel",)
