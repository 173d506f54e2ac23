"""What cannot be measured is refused: no flow that is finite, no use of a layer, no number."""

import jax
import jax.numpy as jnp

import synflow_jax as sf
from tests.support.nets import WIDTHS, mlp, mlp_params
from tests.support.refusals import check_refused, each

PARAMS = mlp_params(0)
ONE = {"a": jnp.ones((1, 1))}


def score(params, apply_fn, shape=(1,)):
    return lambda: sf.measure.flow_score(params, apply_fn, shape)


def order(params, apply_fn, shape):
    return lambda: sf.measure.layer_order(params, apply_fn, shape)


def gap(network, params=None):
    given = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 1))} if params is None else params
    return lambda: sf.measure.conservation_gap(given, network, (2,))


def stacked_chain(params, x):
    return jax.lax.scan(lambda h, w: (h @ w, None), x, params["w"])[0]


NO_SLOPE = ("the score must be finite", "no finite slope by a: an operation", "flow_mode(apply_fn)")
ROWS = [
    (
        "a flow that is infinite",
        lambda: sf.log2_flow(
            jax.tree.map(lambda leaf: leaf * 1e9, PARAMS),
            lambda p, x: jnp.exp(mlp(p, x)),
            WIDTHS[:1],
        ),
        ValueError,
        "above 0 and finite",
        "is inf",
        "not homogeneous: exp at",
        "flow_mode(apply_fn)",
    ),
    (
        "a flow that a negation closes",
        gap(lambda p, x: jax.nn.relu(-(x @ p["a"])) @ p["b"]),
        ValueError,
        "it is 0.0. ",
        "negat",
        "flow_mode(apply_fn)",
    ),
    (
        "a flow that a negative constant closes",
        gap(lambda p, x: jax.nn.relu(x @ p["a"] + (-1e3)) @ p["b"]),
        ValueError,
        "it is 0.0. ",
        "negat",
        "flow_mode(apply_fn)",
    ),
    (
        "a flow that a comparison closes",
        gap(lambda p, x: jnp.where(x > 1.0, x, 0.0) @ p["a"] @ p["b"]),
        ValueError,
        "it is 0.0. No layer is all zero",
        "a comparison that is closed on an input of ones",
    ),
    (
        "a flow that a layer of a stack closes",
        gap(stacked_chain, {"w": jnp.ones((3, 2, 2)).at[1].set(0.0)}),
        ValueError,
        "it is 0.0. Leaves that are all zero: w[1]. flow_mode(apply_fn) scores as open",
    ),
    (
        "the score of NaN",
        score({"a": jnp.array([[jnp.nan]])}, lambda p, x: x @ p["a"]),
        ValueError,
        "params must be finite",
        "NaN or infinity in a",
    ),
    (
        "the score of biases",
        score({"bias": jnp.ones(2)}, lambda p, x: x + p["bias"][None], (2,)),
        ValueError,
        "params has no prunable leaf",
    ),
    (
        "the score of exp",
        score({"a": jnp.full((1, 1), 200.0)}, lambda p, x: jnp.exp(x @ p["a"])),
        ValueError,
        *NO_SLOPE,
    ),
    (
        "the score of the square root of 0",
        score(ONE, lambda p, x: jnp.sqrt(x @ p["a"] - 1.0)),
        ValueError,
        *NO_SLOPE,
    ),
    (
        "the order of layers that are not used",
        order(ONE, lambda p, x: x, (2,)),
        ValueError,
        "apply_fn must use its params",
        "uses none of ['a']",
    ),
    (
        "the order on a shape that does not fit",
        order(PARAMS, mlp, (4,)),
        ValueError,
        "ones of float32[1, 4] made from `shape`",
        "without the batch axis",
    ),
    (
        "the order of no network",
        order(PARAMS, None, (5,)),
        TypeError,
        "apply_fn must be a function",
        "got NoneType",
    ),
    (
        "a network without its shape",
        lambda: sf.measure.max_compression(PARAMS, mlp),
        ValueError,
        "apply_fn and shape must be given together",
    ),
    (
        "a shape without its network",
        lambda: sf.measure.critical_compression(lambda rho: PARAMS, PARAMS, shape=(5,)),
        ValueError,
        "apply_fn and shape must be given together",
    ),
    (
        "a stack that is no leaf",
        lambda: sf.collapsed_layers({"w": jnp.ones((2, 2), bool)}, stacked=["v"]),
        ValueError,
        "stacked must name leaves",
        "['v'] are none of ['w']",
    ),
    (
        "a tolerance of 0",
        lambda: sf.measure.critical_compression(
            lambda rho: sf.magnitude(PARAMS, rho), PARAMS, tolerance=0
        ),
        ValueError,
        "tolerance must be above 0",
        "got 0",
    ),
]


@each(ROWS)
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)
