"""A dense network whose flow is 0, infinite or negative is refused; so is one without scores."""

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.nets import (
    CONV_SHAPE,
    WIDTHS,
    all_true,
    batches,
    mlp,
    mlp_params,
    residual,
    residual_params,
)

SHAPE = WIDTHS[:1]


def synflow(params, apply_fn=mlp):
    return sf.synflow(params, apply_fn, SHAPE, 4.0, rounds=3)


def test_dense_flow_of_zero_names_the_leaves():
    params = mlp_params(0, bias=0.0)
    params["layer2"] = jax.tree.map(jnp.zeros_like, params["layer2"])
    with pytest.raises(ValueError, match=r"above 0 and finite.*all zero: layer2/kernel\.$"):
        synflow(params)


def test_dense_flow_that_is_infinite_says_what_may_have_made_it_so():
    params = jax.tree.map(lambda leaf: leaf * 1e9, mlp_params(0))

    def exponential(p, x):
        return jnp.exp(mlp(p, x))

    with pytest.raises(ValueError, match=r"above 0 and finite.*is inf.*such as exp"):
        synflow(params, apply_fn=exponential)
    with pytest.raises(ValueError, match=r"above 0 and finite.*is inf.*such as exp"):
        sf.log2_flow(params, exponential, SHAPE)
    table = sf.report(params, all_true(params), exponential, SHAPE)
    assert "inf dense" in str(table)


def test_negative_flow_is_told_apart():
    params = mlp_params(0)
    with pytest.raises(ValueError, match=r"it is -.*ignores its params"):
        synflow(params, apply_fn=lambda p, x: -mlp(p, x))


def test_a_layer_without_a_score_is_named():
    params = mlp_params(0)
    params["layer2"]["kernel"] = jnp.zeros_like(params["layer2"]["kernel"])
    with pytest.raises(ValueError, match="every score of the dense network is 0"):
        synflow(params)
    dead = residual_params(0)
    dead["norm"] = jax.tree.map(jnp.zeros_like, dead["norm"]) | {"var": dead["norm"]["var"]}
    with pytest.warns(sf.CollapseWarning, match="all scores are 0 in down/kernel, up/kernel"):
        sf.synflow(dead, residual, CONV_SHAPE, 2.0, rounds=2)
    with pytest.raises(ValueError, match="every score"):
        sf.snip(mlp_params(0), lambda p, b: jnp.mean(b[0]), batches(), 2.0)


def test_under_a_trace_a_dead_flow_is_in_the_info():
    params = mlp_params(0, bias=0.0)
    params["layer2"] = jax.tree.map(jnp.zeros_like, params["layer2"])
    saliency = sf.synflow_saliency(mlp, SHAPE)
    info = jax.jit(lambda p: sf.prune(p, saliency, 2.0, 2)[1])(params)
    assert bool(jnp.isneginf(info.log2_flow).all())
