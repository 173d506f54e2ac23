"""Masks that do not fit the params they are put on are refused."""

import flax
import jax
import jax.numpy as jnp

import synflow_jax as sf
from tests.support.nets import all_true, mlp_params
from tests.support.refusals import check_refused, each

PARAMS = mlp_params(0)
MASKS = all_true(PARAMS)


def layer0(**leaves):
    """Masks whose first layer has other leaves, or more of them."""
    return {**MASKS, "layer0": {**MASKS["layer0"], **leaves}}


def put_on(masks, params=PARAMS):
    return lambda: sf.apply_masks(params, masks)


STRUCTURE = "masks must have the tree structure of params"
ROWS = [
    (
        "a layer is missing",
        put_on({"layer0": MASKS["layer0"]}),
        ValueError,
        STRUCTURE,
        "only params has ['layer1/bias'",
    ),
    (
        "a leaf is one too many",
        put_on(layer0(new=MASKS["layer0"]["bias"])),
        ValueError,
        STRUCTURE,
        "only masks has ['layer0/new']",
    ),
    (
        "other containers",
        put_on(flax.core.freeze(MASKS)),
        ValueError,
        STRUCTURE,
        "the containers do not",
        "FrozenDict",
    ),
    (
        "another shape",
        put_on(layer0(bias=jnp.ones(3, bool))),
        ValueError,
        "masks must have the shapes of params",
        "'layer0/bias' is (7,) in params and (3,) in masks",
    ),
    (
        "numbers for masks",
        put_on(jax.tree.map(lambda m: m.astype(jnp.float32), MASKS)),
        TypeError,
        "masks must be bool arrays",
        "'layer0/bias' is float32",
    ),
    (
        "a count that is pruned",
        put_on({"n": jnp.array(False)}, {"n": jnp.int32(1)}),
        ValueError,
        "masks must be True on leaves that are not floating",
        "'n' is int32",
    ),
]


@each(ROWS)
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)
