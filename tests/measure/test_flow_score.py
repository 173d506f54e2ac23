"""The score of a whole network: closed forms, every path counted, and what other code computes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import synflow_jax as sf
from tests.support.nets import CONV_SHAPE, WIDTHS, conv, mlp, mlp_params, residual, residual_params
from tests.support.pages import ROOT, run_blocks


def chain(params, x):
    for name in sorted(params):
        x = jax.nn.relu(x @ params[name])
    return x


def chain_params(depth, width, scale):
    keys = jax.random.split(jax.random.key(0), depth)
    return {f"{i:03}": scale * jax.random.normal(key, (width, width)) for i, key in enumerate(keys)}


@pytest.mark.parametrize(("depth", "scale"), [(3, 1.0), (16, 1e-4), (16, 300.0)])
def test_a_chain_of_l_layers_scores_l_times_its_flow(depth, scale):
    params = chain_params(depth, 8, scale)
    score = float(sf.measure.flow_score(params, chain, (8,)))
    flow = float(sf.log2_flow(params, chain, (8,))) * math.log10(2)
    # A number near 100 in float32 is known to 8e-6.
    assert score == pytest.approx(math.log10(depth) + flow, rel=1e-6, abs=1e-5)
    assert (abs(score) > 38) == (depth == 16)  # what plain float32 cannot hold


def every_path(params):
    """Sum, over all paths from a 1 or a bias to an output, the product times kernels passed."""
    layers = [jax.tree.map(np.abs, jax.device_get(params[name])) for name in sorted(params)]
    total = 0.0
    for first in range(len(layers)):
        starts = [(None, j) for j in range(len(layers[first]["bias"]))]
        inside = [range(layer["kernel"].shape[1]) for layer in layers[first + 1 :]]
        for (_, unit), rest in itertools.product(starts, itertools.product(*inside)):
            product, here = float(layers[first]["bias"][unit]), unit
            entered = float(layers[first]["kernel"][:, unit].sum()) if first == 0 else 0.0
            later = 1.0
            for layer, there in zip(layers[first + 1 :], rest, strict=True):
                later *= float(layer["kernel"][here, there])
                here = there
            total += later * (product * len(rest) + entered * (len(rest) + 1))
    return total


def test_with_biases_it_counts_the_kernels_of_every_path(x64):
    params = mlp_params(1, dtype=jnp.float64)
    score = sf.measure.flow_score(params, mlp, WIDTHS[:1])
    assert 10 ** float(score) == pytest.approx(every_path(params), rel=1e-12)


def by_batch(x):
    centred = x - x.mean((0, 1, 2), keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean((0, 1, 2), keepdims=True) + 1e-5)


def normed(norm, params, x):
    x = jax.nn.relu(norm(conv(x, params["one"])))
    x = jax.nn.relu(norm(conv(x, params["two"])) + x)
    return x.mean((1, 2)) @ params["head"]


def normed_params(dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(3), 3)
    shapes = {"one": (3, 3, 2, 4), "two": (3, 3, 4, 4), "head": (4, 3)}
    pairs = zip(keys, shapes.items(), strict=True)
    return {name: jax.random.normal(key, shape, dtype) for key, (name, shape) in pairs}


@pytest.mark.parametrize("norm", [lambda x: x, by_batch])
def test_the_published_recipe_with_and_without_norm(norm, x64):
    """Absolute params, ones, the gradient of the summed outputs: Σ |θ ⊙ g| in double precision."""
    params = normed_params()
    positive = jax.tree.map(jnp.abs, params)
    slopes = jax.grad(lambda p: normed(norm, p, jnp.ones((1, 6, 6, 2))).sum())(positive)
    parts = jax.tree.map(lambda theta, slope: jnp.abs(theta * slope).sum(), positive, slopes)
    score = sf.measure.flow_score(params, Partial(normed, norm), CONV_SHAPE)
    wanted = float(sum(jax.tree.leaves(parts)))
    assert 10 ** float(score) == pytest.approx(wanted, rel=1e-10)
    signed = sf.measure.layer_flow(params, Partial(normed, norm), CONV_SHAPE)
    cancels = float(sum(signed.values())) < 0.99 * wanted
    assert cancels == (norm is by_batch)  # statistics of the batch give weights of negative slope


def test_a_norm_at_its_running_statistics_at_initialisation_changes_nothing(x64):
    params = normed_params()
    scale = 1 / math.sqrt(1 + 1e-5)
    running = sf.measure.flow_score(params, Partial(normed, lambda x: scale * x), CONV_SHAPE)
    without = sf.measure.flow_score(params, Partial(normed, lambda x: x), CONV_SHAPE)
    assert abs(float(running - without)) < 2 * 5e-6  # two norms, 1/√(1 + 1e-5) each


def test_only_what_prunable_chooses_is_summed():
    params = residual_params(2)
    parts = {
        path: 10
        ** float(sf.measure.flow_score(params, residual, CONV_SHAPE, prunable=sf.matching(path)))
        for path in ("stem/kernel", "up/kernel", "down/kernel", "head/kernel")
    }
    flows = sf.measure.layer_flow(params, residual, CONV_SHAPE)
    assert parts == pytest.approx({path: float(flows[path]) for path in parts}, rel=1e-5)
    whole = 10 ** float(sf.measure.flow_score(params, residual, CONV_SHAPE))
    assert whole == pytest.approx(sum(parts.values()), rel=1e-5)


def test_seeds_under_vmap_score_as_each_alone():
    def score(key):
        kernels = jax.random.normal(key, (2, 5, 5))
        return sf.measure.flow_score({"a": kernels[0], "b": kernels[1]}, chain, (5,))

    keys = jax.random.split(jax.random.key(0), 4)
    together = jax.jit(jax.vmap(score))(keys)
    alone = jnp.stack([score(key) for key in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert len(set(together.tolist())) == 4


def test_a_choice_that_is_an_array_compiles_once():
    traces = []

    def either(which, params, x):
        traces.append(which)
        both = (lambda x: x @ params["000"], lambda x: x @ params["001"])
        return jax.lax.switch(which, both, x)

    params = chain_params(2, 4, 1.0)
    scores = [sf.measure.flow_score(params, Partial(either, jnp.int32(i)), (4,)) for i in (0, 1)]
    first = len(traces)
    scores += [sf.measure.flow_score(params, Partial(either, jnp.int32(i)), (4,)) for i in (0, 1)]
    assert len(traces) == first <= 2
    # The other kernel has no flow: the score is that of a chain of the one.
    alone = [sf.measure.flow_score({"0": params[name]}, chain, (4,)) for name in ("000", "001")]
    np.testing.assert_allclose(scores, alone * 2, rtol=1e-6)


def test_a_network_without_a_path_scores_minus_infinity():
    params = {"a": jnp.zeros((2, 2)), "b": jnp.ones((2, 2))}
    assert float(sf.measure.flow_score(params, chain, (2,))) == -np.inf


def test_the_page_on_search_runs_and_holds():
    scope = run_blocks(ROOT / "docs" / "howto" / "search.md", 5)
    np.testing.assert_allclose(scope["together"], scope["scores"], rtol=1e-5)
    assert float(scope["spread"]) > 0
    chosen = int(np.argmax(scope["scores"]))
    assert scope["best"].tolist() == scope["choices"][chosen].tolist()
