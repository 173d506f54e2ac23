"""Linen models of several inputs and outputs, of token ids, with settings and other methods."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax import linen
from tests.support.linen_nets import TOKENS, Tokens


class TwoInputs(nn.Module):
    """Tokens and features in, a dict out; an encoder beside."""

    def setup(self):
        """Make the parts."""
        self.embed, self.dense = nn.Embed(7, 6), nn.Dense(6)
        self.heads = nn.Dense(2), nn.Dense(3)

    def encode(self, tokens, features, weigh=1.0):
        """Add up what the two say."""
        return self.embed(tokens).sum(1) + weigh * self.dense(features)

    def __call__(self, tokens, features, weigh=1.0):
        """Return two heads."""
        hidden = self.encode(tokens, features, weigh)
        return {"a": self.heads[0](hidden), "b": (self.heads[1](hidden),)}

    def of_one(self, inputs):
        """Run on a tree that holds all inputs."""
        return self(**inputs)


SPECS = {
    "tokens": jax.ShapeDtypeStruct((4,), jnp.int32),
    "features": jax.ShapeDtypeStruct((5,), jnp.float32),
}


@pytest.fixture(scope="module")
def two():
    x = {"tokens": jnp.ones((1, 4), jnp.int32), "features": jnp.ones((1, 5))}
    return TwoInputs(), TwoInputs().init(jax.random.key(0), **x)


def hidden_of(params, weigh=1.0):
    """What TwoInputs' encoder gives at |θ| on ones."""
    pure = jax.tree.map(lambda p: np.abs(np.array(p)), params)
    row = pure["embed"]["embedding"][1]  # ones are tokens of id 1
    return pure, 4 * row + weigh * (pure["dense"]["kernel"].sum(0) + pure["dense"]["bias"])


@pytest.mark.parametrize("way", ["one tree", "by name", "in a row"])
def test_several_inputs_and_outputs(two, way):
    model, variables = two
    params, apply_fn = linen.from_linen(model, variables)
    whole = linen.from_linen(model, variables, method="of_one")[1]
    fn, shape = {
        "one tree": (whole, SPECS),
        "by name": (lambda p, x: apply_fn(p, **x), SPECS),
        "in a row": (lambda p, x: apply_fn(p, *x), (SPECS["tokens"], SPECS["features"])),
    }[way]
    pure, hidden = hidden_of(params)
    heads = [pure["heads_0"], pure["heads_1"]]
    total = sum((hidden @ head["kernel"] + head["bias"]).sum() for head in heads)
    assert float(sf.log2_flow(params, fn, shape)) == pytest.approx(np.log2(total), abs=1e-5)


def test_an_embedding_is_not_pruned(two):
    model, variables = two
    params, apply_fn = linen.from_linen(model, variables, method="of_one")
    masks = sf.synflow(params, apply_fn, SPECS, 3.0)
    assert bool(masks["embed"]["embedding"].all())
    kernels = [masks[name]["kernel"] for name in ("dense", "heads_0", "heads_1")]
    assert sum(int(kernel.sum()) for kernel in kernels) == 20


def test_settings_may_be_arrays_and_methods_functions(two):
    model, variables = two
    weigh = np.arange(6.0, dtype=np.float32)[None]
    method = TwoInputs.encode
    params, apply_fn = linen.from_linen(model, variables, method=method, weigh=weigh)
    flow = sf.log2_flow(params, lambda p, x: apply_fn(p, **x), SPECS)
    assert float(flow) == pytest.approx(np.log2(hidden_of(params, weigh)[1].sum()), abs=1e-5)


def test_another_array_is_no_new_program(two):
    model, variables = two
    run = jax.jit(lambda fn, params, x: fn(params, **x)["a"])
    x = {"tokens": jnp.ones((1, 4), jnp.int32), "features": jnp.ones((1, 5))}
    for weigh in (jnp.zeros((1, 6)), jnp.ones((1, 6))):
        out = run(linen.from_linen(model, variables, weigh=weigh)[1], variables["params"], x)
        np.testing.assert_allclose(out, model.apply(variables, **x, weigh=weigh)["a"], rtol=1e-5)
    assert run._cache_size() == 1


def test_token_ids():
    variables = Tokens().init(jax.random.key(0), jnp.ones((1, 4), jnp.int32))
    params, apply_fn = linen.from_linen(Tokens(), variables)
    network = sf.flow_mode(apply_fn)
    # The flow starts at the row of id 1; float32 sums of some hundred products.
    assert float(sf.measure.conservation_gap(params, network, TOKENS)) < 1e-5
    masks = sf.synflow(params, network, TOKENS, 3.0, rounds=5)
    table = sf.report(params, masks)
    assert table.kept == 62
    assert all(row.kept for row in table.rows)
    shares = jax.grad(lambda p: sf.log2_flow(p, network, TOKENS))(params)["Embed_0"]["embedding"]
    assert np.flatnonzero(np.abs(shares).sum(1)).tolist() == [1]
