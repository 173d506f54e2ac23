"""Networks within a budget: the cost, the units that a run by hand takes, and exactness."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.nets import CONV_SHAPE, mlp, mlp_params, residual, residual_params

WIDE = (6, 12, 9, 4)
UNLIKE = (6, 13, 9, 4)  # hidden widths without a common share


def widths(params):
    return [layer["kernel"].shape for layer in params.values()]


def multiplied(shapes):
    return sum(a * b for a, b in shapes)


def by_hand(kernels, rho, rounds, even=False):
    """Remove hidden neurons in the order of their flow for each multiply-add, least first.

    Or, where all layers are to keep even shares, first what is last in the longest queue, over the
    width that its layer had.
    """
    kernels = [np.abs(np.asarray(k, np.float64)) for k in kernels]
    stay = [np.ones(k.shape[1], bool) for k in kernels[:-1]]
    total = sum(k.size for k in kernels)

    def left(stay):
        widths = [len(kernels[0]), *(int(s.sum()) for s in stay), kernels[-1].shape[1]]
        return sum(a * b for a, b in itertools.pairwise(widths))

    for k in range(1, rounds + 1):
        masked = [w.copy() for w in kernels]
        for i, s in enumerate(stay):
            masked[i][:, ~s] = 0
            masked[i + 1][~s] = 0
        value = []
        for i, s in enumerate(stay):
            into = np.ones(len(kernels[0]))
            for w in masked[: i + 1]:
                into = into @ w
            out = np.ones(kernels[-1].shape[1])
            for w in reversed(masked[i + 1 :]):
                out = w @ out
            beside = [len(kernels[0]), *(int(t.sum()) for t in stay), kernels[-1].shape[1]]
            cost = beside[i] + beside[i + 2]
            flow = 2 * into * out / cost  # through its weights in, and through those out
            queue = [j for j in np.argsort(-flow, kind="stable") if s[j]]
            values = [-k / len(s) for k in range(1, len(queue) + 1)] if even else flow[queue]
            value += [(v, i, j) for v, j in zip(values[1:], queue[1:], strict=True)]
        for _, i, j in sorted(value):
            if left(stay) <= total * rho ** (-k / rounds):
                break
            stay[i][j] = False
    return stay


@pytest.mark.parametrize("rounds", [1, 4])
def test_the_units_that_go_are_those_of_a_run_by_hand(rounds, x64):
    params = mlp_params(2, widths=WIDE, dtype=jnp.float64, bias=0.0)
    small = sf.slim(params, mlp, WIDE[:1], 3.0, rounds=rounds)
    kernels = [layer["kernel"] for layer in params.values()]
    stay = by_hand(kernels, 3.0, rounds)
    whole = small.expand(small.params)
    for i, s in enumerate(stay):
        np.testing.assert_array_equal(np.asarray(whole[f"layer{i}"]["kernel"] != 0).any(0), s)
    before, after = small.multiply_adds
    assert (before, after) == (multiplied(widths(params)), multiplied(widths(small.params)))
    assert before / 4 < after <= before / 3


@pytest.mark.parametrize("rounds", [1, 4])
def test_layer_by_layer_the_same_share_of_each_goes(rounds, x64):
    params = mlp_params(2, widths=UNLIKE, dtype=jnp.float64, bias=0.0)
    small = sf.slim(params, mlp, UNLIKE[:1], 3.0, rounds=rounds, scope=sf.layerwise)
    stay = by_hand([layer["kernel"] for layer in params.values()], 3.0, rounds, even=True)
    whole = small.expand(small.params)
    for i, s in enumerate(stay):
        np.testing.assert_array_equal(np.asarray(whole[f"layer{i}"]["kernel"] != 0).any(0), s)
    left = [s.sum() for s in stay]
    assert abs(left[0] / 13 - left[1] / 9) < 1 / 9 and 1 < left[1] < 9


def test_layer_by_layer_a_stream_is_one_axis_wherever_it_stands():
    params = residual_params(width=16)
    small = sf.slim(params, residual, CONV_SHAPE, 4.0, rounds=5, scope=sf.layerwise)
    shapes = [leaf.shape for leaf in jax.tree.leaves(small.params)]
    whole = [leaf.shape for leaf in jax.tree.leaves(params)]
    sixteen = {
        n for a, b in zip(whole, shapes, strict=True) for m, n in zip(a, b, strict=True) if m == 16
    }
    assert len(sixteen) <= 2 and max(sixteen) - min(sixteen) <= 1 < min(sixteen) < 9


@pytest.mark.parametrize(
    "budget", [sf.compaction.multiply_adds, sf.compaction.entries, sf.compaction.num_bytes]
)
def test_a_residual_network_stays_within_its_budget_and_computes_the_same(budget):
    params = residual_params(width=16)
    small = sf.slim(params, residual, CONV_SHAPE, 10.0, rounds=10, budget=budget)
    leaves = jax.tree.leaves(small.params)
    whole = jax.tree.leaves(params)
    costs = {
        sf.compaction.multiply_adds: small.multiply_adds,
        sf.compaction.entries: (sum(x.size for x in whole), sum(x.size for x in leaves)),
        sf.compaction.num_bytes: (sum(x.nbytes for x in whole), sum(x.nbytes for x in leaves)),
    }
    before, after = costs[budget]
    assert before / 15 < after <= before / 10
    # A channel of the stream goes from the stem, both convolutions and the head at once.
    shapes = {name: part["kernel"].shape for name, part in small.params.items() if name != "norm"}
    assert shapes["stem"][-1] == shapes["up"][-2] == shapes["down"][-1] == shapes["head"][0] < 16
    assert shapes["up"][-1] == shapes["down"][-2] == len(small.params["norm"]["var"])
    x = jax.random.normal(jax.random.key(0), (3, *CONV_SHAPE))
    expected = residual(small.expand(small.params), x)
    np.testing.assert_allclose(small.apply_fn(small.params, x), expected, rtol=1e-5, atol=1e-6)
    assert all(mask.all() for mask in jax.tree.leaves(small.masks))


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)


def attention(params, x):
    """One block with heads, a LayerNorm before it and a skip beside it."""
    y = layer_norm(x)
    q, k, v = (jnp.einsum("btd,dhk->bthk", y, params[name]["kernel"]) for name in "qkv")
    weights = jax.nn.softmax(jnp.einsum("bqhk,bthk->bhqt", q, k) / 2.0, axis=-1)
    y = jnp.einsum("bhqt,bthk->bqhk", weights, v)
    return x + jnp.einsum("bqhk,hkd->bqd", y, params["out"]["kernel"])


def attention_params(width=8, heads=4, size=4):
    keys = jax.random.split(jax.random.key(1), 4)
    draw = jax.random.normal
    params = {
        n: {"kernel": draw(k, (width, heads, size))} for n, k in zip("qkv", keys, strict=False)
    }
    return {**params, "out": {"kernel": draw(keys[3], (heads, size, width))}}


def test_heads_go_whole_and_what_a_norm_reads_stays():
    params = attention_params()
    small = sf.slim(params, sf.flow_mode(attention), (5, 8), 3.0, rounds=5)
    shapes = {name: part["kernel"].shape for name, part in small.params.items()}
    assert shapes["q"] == shapes["k"]
    assert shapes["q"][:2] == shapes["v"][:2] == (8, shapes["out"][0])
    assert shapes["v"][2] == shapes["out"][1] and shapes["out"][2] == 8
    assert small.multiply_adds[1] <= small.multiply_adds[0] / 3
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    expected = attention(small.expand(small.params), x)
    np.testing.assert_allclose(small.apply_fn(small.params, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step", [1, 2])
def test_what_a_norm_alone_would_fill_stays(step):
    """Without biases an empty stream is 0, unless a norm of what else there is fills it."""
    rng = np.random.default_rng(0)
    sizes = {"in": (6, 8 * step), "mid": (8, 12), "out": (12, 3)}
    params = {n: jnp.asarray(rng.standard_normal(s), jnp.float32) for n, s in sizes.items()}

    def network(p, x):
        stream = (x @ p["in"])[:, ::step]
        return jax.nn.relu(layer_norm(stream) @ p["mid"]) @ p["out"]

    saliency = sf.synflow_saliency(sf.flow_mode(network), (6,))
    small = sf.slim(params, network, (6,), 1.6, rounds=2, saliency=saliency)
    assert small.params["mid"].shape[0] == 8
    x = jax.random.normal(jax.random.key(0), (3, 6))
    expected = network(small.expand(small.params), x)
    np.testing.assert_allclose(small.apply_fn(small.params, x), expected, rtol=1e-5, atol=1e-5)


def test_what_is_to_stay_whole_does():
    params = mlp_params(0, widths=WIDE)
    small = sf.slim(params, mlp, WIDE[:1], 1.5, rounds=3, whole=sf.matching("layer0/*"))
    assert widths(small.params)[0] == (6, 12)
    assert small.multiply_adds[1] <= small.multiply_adds[0] / 1.5


def test_a_rho_of_one_takes_nothing_away():
    params = mlp_params(0, widths=WIDE)
    small = sf.slim(params, mlp, WIDE[:1], 1.0, rounds=2)
    assert widths(small.params) == widths(params)


def test_one_shot_scores_once_and_an_empty_leaf_is_none():
    calls = []

    def saliency(params, masks):
        calls.append(masks)
        return jax.tree.map(jnp.abs, params)

    params = mlp_params(0, widths=WIDE) | {"empty": jnp.zeros((0, 4))}
    network = lambda p, x: mlp({k: v for k, v in p.items() if k != "empty"}, x)
    small = sf.slim(params, network, WIDE[:1], 2.0, schedule=sf.one_shot, saliency=saliency)
    assert small.multiply_adds[1] <= small.multiply_adds[0] / 2
    assert len(calls) == 1 and small.params["empty"].shape == (0, 4)
