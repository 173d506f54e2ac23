"""What is no model of Linen or NNX, or cannot be evaluated as it is, is refused."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import synflow_jax as sf
from synflow_jax import linen
from synflow_jax.nnx import from_nnx, to_nnx
from tests.support.linen_nets import FEATURES, TOKENS, Classifier, Tokens, Unusual
from tests.support.nnx_nets import Net, Two
from tests.support.refusals import check_refused, each

pytestmark = pytest.mark.usefixtures("flax_promotes")
VARIABLES = {"params": {"Dense_0": {"kernel": jnp.ones((2, 2))}}}
KEY = jax.random.key(0)


def unusual(**settings):
    """Prune a model that draws and writes, where one of the two is not allowed."""
    variables = Unusual().init({"params": KEY, "noise": KEY}, jnp.ones((1, 3)))
    sf.synflow(*linen.from_linen(Unusual(), variables, **settings), (3,), 2.0)


def without_statistics():
    variables = Classifier().init(KEY, jnp.ones((1, FEATURES)), train=False)
    params, apply_fn = linen.from_linen(Classifier(), {"params": variables["params"]}, train=False)
    sf.synflow(params, apply_fn, (FEATURES,), 2.0)


def on_another_size():
    model = nn.Dense(3)
    params, apply_fn = linen.from_linen(model, model.init(KEY, jnp.ones((1, 5))))
    sf.synflow(params, apply_fn, (7,), 2.0)


def on_floats_for_tokens():
    variables = Tokens().init(KEY, jnp.ones(TOKENS.shape, jnp.int32)[None])
    params, apply_fn = linen.from_linen(Tokens(), variables)
    sf.synflow(params, sf.flow_mode(apply_fn), TOKENS.shape, 3.0)


def sharing_variables():
    graphdef, params, rest = nnx.split(Net(), nnx.Param, ...)
    sf.synflow(params, lambda p, x: nnx.merge(graphdef, p, rest)(x), (6,), 4.0, rounds=3)


EVALUATION = "apply_fn must run in evaluation mode"
LINEN = [
    (
        "a class for a Linen model",
        lambda: linen.from_linen(Classifier, VARIABLES),
        TypeError,
        "model must be",
        "got the class Classifier",
    ),
    (
        "a function for a Linen model",
        lambda: linen.from_linen(lambda p: p, VARIABLES),
        TypeError,
        "model must be",
        "got a function",
        "for an NNX",
    ),
    (
        "a list for variables",
        lambda: linen.from_linen(Classifier(), [VARIABLES]),
        TypeError,
        "variables must be a mapping",
        "got a list",
    ),
    (
        "params for variables",
        lambda: linen.from_linen(Classifier(), VARIABLES["params"]),
        ValueError,
        'variables must have a "params" collection',
        "got ['Dense_0']",
        'passed as {"params": params}',
    ),
    (
        "params for variables, on the way back",
        lambda: linen.to_linen(VARIABLES["params"], VARIABLES),
        ValueError,
        'variables must have a "params" collection',
    ),
    (
        "variables for params, on the way back",
        lambda: linen.to_linen(VARIABLES, VARIABLES),
        ValueError,
        "params to put back must have the tree structure",
    ),
    (
        "a model that may not draw",
        functools.partial(unusual, mutable=["cache"]),
        ValueError,
        EVALUATION,
        "it asked for rngs",
        "from_linen(model, variables, rngs=",
    ),
    (
        "a model that may not write",
        functools.partial(unusual, rngs={"noise": KEY}),
        ValueError,
        EVALUATION,
        "it wanted to change a collection",
        "from_linen(model, variables, mutable=",
    ),
    ("statistics left behind", without_statistics, ValueError, "must hold all collections"),
    (
        "a shape of another size",
        on_another_size,
        ValueError,
        "the ones of float32[1, 7]",
        "shape is one example without the batch axis",
    ),
    (
        "floats for tokens",
        on_floats_for_tokens,
        ValueError,
        "the ones of float32[1, 4]",
        "Input type must be an integer",
    ),
]
NNX = [
    (
        "a class for an NNX model",
        lambda: from_nnx(Net),
        TypeError,
        "model must be",
        "such as Net(nnx.Rngs(0))",
        "got the class Net",
    ),
    (
        "a dict for an NNX model",
        lambda: from_nnx({"w": 1}),
        TypeError,
        "model must be",
        "got a dict",
        "from_linen",
    ),
    (
        "a model without params",
        lambda: from_nnx(nnx.Dropout(0.1)),
        ValueError,
        "model must",
        "it holds none",
    ),
    (
        "a method it has not",
        lambda: from_nnx(Net(), method="encode"),
        TypeError,
        "method must name a method of the model",
        "got 'encode'",
    ),
    (
        "an array for an NNX model, on the way back",
        lambda: to_nnx(jnp.ones(3), {}),
        TypeError,
        "model must be an NNX module",
    ),
    (
        "params of another model, on the way back",
        lambda: to_nnx(Net(), from_nnx(Two(nnx.Rngs(0)))[0]),
        ValueError,
        "must have the tree structure of",
        "only params has",
    ),
    (
        "Variables that are shared between calls",
        sharing_variables,
        ValueError,
        "an NNX model needs its own Variables in each call (from_nnx",
    ),
]


@each([*LINEN, *NNX])
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)
