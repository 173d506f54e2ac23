"""NNX models of several inputs and outputs, with settings and other methods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import synflow_jax as sf
from synflow_jax.nnx import from_nnx
from tests.support.nnx_nets import Two, arrays

pytestmark = pytest.mark.usefixtures("flax_promotes")
SPECS = {
    "tokens": jax.ShapeDtypeStruct((4,), jnp.int32),
    "features": jax.ShapeDtypeStruct((5,), jnp.float32),
}


@pytest.mark.parametrize("weigh", [2.0, jnp.arange(6.0)], ids=["a number", "an array"])
def test_several_inputs_by_name_settings_and_trees_of_outputs(weigh):
    params, apply_fn = from_nnx(Two(nnx.Rngs(0)), weigh=weigh)
    flow = sf.log2_flow(params, lambda p, x: apply_fn(p, **x), SPECS)
    pure = jax.tree.map(np.abs, arrays(params))
    hidden = 4 * pure["embed"]["embedding"][1] + np.asarray(weigh) * (
        pure["dense"]["kernel"].sum(0) + pure["dense"]["bias"]
    )
    heads = pure["heads"].values()
    total = sum((hidden @ head["kernel"] + head["bias"]).sum() for head in heads)
    assert float(flow) == pytest.approx(float(np.log2(total)), abs=1e-5)


def test_an_embedding_is_not_pruned():
    params, apply_fn = from_nnx(Two(nnx.Rngs(0)))
    masks = sf.synflow(params, lambda p, x: apply_fn(p, **x), SPECS, 3.0)
    assert bool(masks["embed"]["embedding"].all())
    assert sf.report(params, masks).kept == 20


def test_inputs_in_a_row_and_another_method():
    params, apply_fn = from_nnx(Two(nnx.Rngs(0)), method="encode")
    pair = (SPECS["tokens"], SPECS["features"])
    shares = sf.measure.layer_flow(params, lambda p, x: apply_fn(p, *x), pair)
    kernel = np.abs(arrays(params)["dense"]["kernel"])
    assert float(shares["dense/kernel"]) == pytest.approx(float(kernel.sum()), rel=1e-5)
    assert float(shares["heads/0/kernel"]) == 0.0
