"""In flow mode what is added stays closed, and what masks have emptied is not opened again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax.measure import layer_flow

RNG = np.random.default_rng(0)


def draw(**shapes):
    return {name: jnp.asarray(RNG.standard_normal(s), jnp.float32) for name, s in shapes.items()}


def queries(bias):
    """Learned queries with a bias, softmax attention over the input."""

    def network(p, x):
        q = p["latents"] @ p["q"]
        if bias is not None:
            q = q + p[bias][None]
        return jax.nn.softmax(q @ (x @ p["k"]).mT) @ p["o"]

    return network


SHAPES = {"latents": (4, 8), "q": (8, 8), "k": (8, 8), "o": (6, 2)}


@pytest.mark.filterwarnings("ignore:check of the network")  # ρ = 4 cuts an input of eight
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("name", ["bias", "zero", "scale_of_nothing"])
def test_a_bias_of_learned_queries_carries_no_flow(name, value):
    params = draw(**SHAPES)
    biased = {**params, name: jnp.full(8, value)}
    flow = sf.flow_mode(queries(name))
    total = 2.0 ** float(sf.log2_flow(params, sf.flow_mode(queries(None)), (6, 8)))
    found = layer_flow(biased, flow, (6, 8))
    assert float(found[name]) == 0
    # A chain: every kernel carries all of the flow.
    for kernel in SHAPES:
        np.testing.assert_allclose(float(found[kernel]), total, rtol=1e-5)
    masks = sf.synflow(biased, flow, (6, 8), 4)
    without = sf.synflow(params, sf.flow_mode(queries(None)), (6, 8), 4)
    assert all((masks[kernel] == without[kernel]).all() for kernel in SHAPES)
    assert all(int(masks[kernel].sum()) for kernel in SHAPES)


def chain(p, x):
    for name in sorted(p):
        x = jax.nn.gelu(x @ p[name])
    return x


def test_what_masks_have_emptied_stays_empty():
    params = draw(**{f"w{i}": (8, 8) for i in range(5)})
    masks = jax.tree.map(lambda w: w > 0, params)
    flow = sf.flow_mode(chain)
    kept = float(sf.log2_flow(sf.apply_masks(params, masks), flow, (8,)))
    np.testing.assert_allclose(kept, float(sf.log2_flow(params, flow, (8,), masks)), rtol=1e-6)
    masks["w3"] = jnp.zeros((8, 8), bool)
    assert float(sf.log2_flow(params, flow, (8,), masks)) == -np.inf
    assert float(sf.log2_flow(sf.apply_masks(params, masks), flow, (8,))) == -np.inf


def test_what_is_closed_at_the_start_is_opened():
    params = draw(**{f"w{i}": (8, 8) for i in range(5)})
    params["w4"] = jnp.zeros((8, 8))  # a head that is initialised to 0
    opened = sf.flow_mode(chain).prepare(params)
    np.testing.assert_allclose(np.asarray(opened["w4"]), 8**-0.5, rtol=1e-6)
    assert np.isfinite(float(sf.log2_flow(params, sf.flow_mode(chain), (8,))))
