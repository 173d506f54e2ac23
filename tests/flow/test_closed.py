"""Branches that are closed at initialisation: the network as it is has half of the flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax import saliency
from tests.support.nets import all_true

pytestmark = pytest.mark.filterwarnings("ignore:check of the network")
WIDTH = 12
SHAPE = (WIDTH,)


def normal(name, *shape):
    seed = sum(map(ord, name))
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def kernels(*names):
    return {name: normal(name, WIDTH, WIDTH) / WIDTH**0.5 for name in names}


def zero_scale(p, x):
    """Stages whose branch ends in a scale of 0, around a shortcut with a kernel."""
    for k in range(3):
        branch = jax.nn.relu(x @ p[f"up{k}"]) @ p[f"mid{k}"] * p[f"gamma{k}"][None]
        x = jax.nn.relu(branch + x @ p[f"proj{k}"])
    return x @ p["head"]


def rezero(p, x):
    """ReZero: x + α f(x), α = 0."""
    for k in range(3):
        x = x + p[f"alpha{k}"] * jnp.tanh(x @ p[f"up{k}"])
    return x @ p["head"]


def lora(p, x):
    """Layers with a low-rank branch whose second kernel is 0."""
    for k in range(3):
        x = jax.nn.relu(x @ p[f"w{k}"] + x @ p[f"a{k}"] @ p[f"b{k}"])
    return x @ p["head"]


def zero_head(p, x):
    """A head of zeros."""
    return jax.nn.relu(x @ p["w0"]) @ p["head"]


GAMMAS = {f"gamma{k}": jnp.zeros(WIDTH) for k in range(3)}
LOW = {f"a{k}": normal(f"a{k}", WIDTH, 2) for k in range(3)}
LOW |= {f"b{k}": jnp.zeros((2, WIDTH)) for k in range(3)}
STAGES = [f"{name}{k}" for name in ("up", "mid", "proj") for k in range(3)]
NETS = {
    "zero scale": (zero_scale, {**kernels(*STAGES, "head"), **GAMMAS}),
    "ReZero": (
        rezero,
        {**kernels("up0", "up1", "up2", "head"), **{f"alpha{k}": jnp.zeros(()) for k in range(3)}},
    ),
    "LoRA": (lora, {**kernels("w0", "w1", "w2", "head"), **LOW}),
    "zero head": (zero_head, {**kernels("w0"), "head": jnp.zeros((WIDTH, 4))}),
}


def paths(network, params, masks):
    """Count the paths from input to output of a network whose weights are 1 where kept."""
    ones = jax.tree.map(lambda leaf, mask: np.asarray((leaf != 0) & mask, float), params, masks)
    with jax.enable_x64(True):
        return float(np.sum(network(ones, np.ones((1, WIDTH)))))


@pytest.mark.parametrize(
    ("rho", "schedule"), [(3, sf.exponential), (10, sf.exponential), (20, sf.certified())]
)
@pytest.mark.parametrize("name", ["zero scale", "ReZero", "LoRA"])
def test_the_real_network_passes_signals_after_pruning(name, rho, schedule):
    network, params = NETS[name]
    masks = sf.synflow(params, sf.flow_mode(network), SHAPE, rho, rounds=30, schedule=schedule)
    assert paths(network, params, masks) > 0
    assert not sf.collapsed_layers(masks)
    opened = jax.tree.map(jnp.ones_like, params)
    assert paths(network, opened, masks) > paths(network, params, masks)
    # All that gets a gradient in the dense network gets one after pruning. At |θ|, since of few
    # paths all may be closed by the signs of their weights.
    slope = jax.grad(lambda p: jnp.sum(network(p, jnp.ones((1, WIDTH)))))
    sizes = jax.tree.map(jnp.abs, params)
    dense, pruned = slope(sizes), slope(sf.apply_masks(sizes, masks))
    for path, leaf in dense.items():
        assert bool(jnp.any(pruned[path] != 0)) == bool(jnp.any(leaf != 0)), path


def test_a_head_of_zeros_behind_closed_branches_is_open_in_both_networks():
    """All flow passes it, so that closed it would leave the closed branches no second network."""
    network, params = NETS["zero scale"]
    closed = {**params, "head": jnp.zeros((WIDTH, WIDTH))}
    opened = {**params, "head": jnp.full((WIDTH, WIDTH), WIDTH**-0.5)}
    score = saliency.synflow_saliency(sf.flow_mode(network), SHAPE)
    got, want = (score(each, all_true(each)) for each in (closed, opened))
    for path in params:
        np.testing.assert_allclose(got[path], want[path], rtol=1e-6)
    masks = sf.synflow(closed, sf.flow_mode(network), SHAPE, 10, rounds=30)
    assert paths(network, opened, masks) > 0  # of the shortcuts, while every gamma is 0


def test_what_was_lost_before():
    """Without halves and shares the shortcuts go, and with them the network as initialised."""
    network, params = NETS["zero scale"]
    params = {path: leaf * (4 if path[:2] in ("up", "mi") else 1) for path, leaf in params.items()}
    opened = sf.flow_mode(network, branches=None).prepare(params)
    masks = sf.synflow(opened, sf.flow_mode(network, branches=None), SHAPE, 10, rounds=30)
    assert paths(network, params, masks) == 0
    masks = sf.synflow(params, sf.flow_mode(network), SHAPE, 10, rounds=30)
    assert paths(network, params, masks) > 0


@pytest.mark.parametrize("name", ["zero scale", "ReZero", "LoRA"])
def test_each_of_the_two_networks_has_half_of_the_flow(name):
    """Scores are those of two networks, evaluated apart, in equal shares."""
    network, params = NETS[name]
    wrapped = sf.flow_mode(network)
    opened = wrapped.prepare(params)
    found = saliency.synflow_saliency(wrapped, SHAPE)(params, all_true(params))
    total = 0.0
    want = jax.tree.map(lambda leaf: np.zeros(leaf.shape), params)
    for each in (opened, params):
        apart = saliency.synflow_saliency(FrozenOpen(wrapped), SHAPE)
        flow, scores = apart.flow_and_scores(each, all_true(each))
        total += float(flow.mantissa) * 2.0 ** float(flow.exponent)
        want = jax.tree.map(
            lambda a, score, flow=flow: a + np.asarray(score) / float(flow.mantissa), want, scores
        )
    for path, leaf in found.items():
        if leaf.ndim >= 2:
            np.testing.assert_allclose(leaf, want[path] * total / 4, rtol=1e-4, atol=1e-7 * total)


class FrozenOpen(sf.flow.Network):
    """A network in flow mode that opens no leaf."""

    homogeneous = True
    sources = False

    def __init__(self, network):
        self.network = network

    @property
    def plain(self):
        return self.network.plain

    def __call__(self, params, x):
        return self.network(params, x)


def test_flow_is_that_of_the_open_network_where_the_closed_one_has_none():
    network, params = NETS["zero head"]
    opened = {**params, "head": jnp.full((WIDTH, 4), WIDTH**-0.5)}
    got = sf.log2_flow(params, sf.flow_mode(network), SHAPE)
    assert float(got) == pytest.approx(float(sf.log2_flow(opened, network, SHAPE)), abs=1e-5)


@pytest.mark.parametrize("name", [*NETS, "open"])
def test_masks_are_the_same_eager_and_traced(name):
    network, params = NETS.get(name, NETS["zero scale"])
    if name == "open":
        params = {**params, **{path: jnp.ones(WIDTH) for path in GAMMAS}}

    def run(params):
        return sf.synflow(params, sf.flow_mode(network), SHAPE, 4.0, rounds=5)

    eager, traced = run(params), jax.jit(run)(params)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), eager, traced)))


def test_nothing_is_evaluated_twice_where_nothing_is_closed():
    network, params = NETS["zero scale"]
    params = {**params, **{path: jnp.ones(WIDTH) for path in GAMMAS}}
    wrapped = sf.flow_mode(network)
    inputs = saliency.synflow_saliency(wrapped, SHAPE).inputs
    assert wrapped.closing(params, inputs) is None
    closed = wrapped.closing({**params, "gamma1": jnp.full(WIDTH, 1e-3)}, inputs)
    named = {path: one.item() for path, one in zip(sorted(params), closed, strict=True)}
    assert named.pop("gamma1") == pytest.approx(1e-3)
    assert set(named.values()) == {1.0}


def test_certified_rounds_keep_both_networks_to_the_last_weights():
    network, params = NETS["zero scale"]
    total = sum(leaf.size for leaf in params.values() if leaf.ndim == 2)
    # Every layer has half of the flow or more, so that two weights a layer can always be reached.
    rho = total / (2 * 10)
    masks = sf.synflow(params, sf.flow_mode(network), SHAPE, rho, schedule=sf.certified())
    assert paths(network, params, masks) > 0
    opened = jax.tree.map(jnp.ones_like, params)
    for k in range(3):
        shut = {**opened, f"gamma{k}": jnp.zeros(WIDTH)}
        assert paths(network, opened, masks) > paths(network, shut, masks)


def stacked_scale(p, x):
    """Blocks in a loop, each with a scale of its own."""

    def block(x, own):
        return x + jax.nn.relu(x @ own["up"]) @ own["mid"] * own["gamma"][None], None

    return jax.lax.scan(block, x, {k: p[k] for k in ("up", "mid", "gamma")})[0] @ p["head"]


@pytest.mark.parametrize("closed", [(0, 1, 2), (1,)])
@pytest.mark.parametrize("pruned", [False, True])
def test_layers_of_a_stack_are_closed_one_by_one(closed, pruned):
    params = {
        name: jnp.stack([normal(f"{name}{k}", WIDTH, WIDTH) for k in range(3)])
        for name in ("up", "mid")
    }
    params["gamma"] = jnp.ones((3, WIDTH)).at[np.array(closed)].set(0)
    params["head"] = normal("head", WIDTH, 3)
    if pruned:  # a kernel of zeros is then an emptied one, a scale of zeros is not
        params["up"] = params["up"].at[0, :2].set(0)
    wrapped = sf.flow_mode(stacked_scale)
    assert sf.flow.closed_leaves(params, wrapped, SHAPE) == ("gamma",)
    opened = wrapped.prepare(params, saliency.synflow_saliency(wrapped, SHAPE).inputs)
    assert bool((opened["gamma"] == 1).all())
    scores = saliency.synflow_saliency(wrapped, SHAPE)(params, all_true(params))
    total = 2.0 ** float(sf.log2_flow(params, wrapped, SHAPE))
    found = np.asarray(scores["mid"].sum((1, 2))) / total
    want = [0.25 if k in closed else 0.5 for k in range(3)]
    np.testing.assert_allclose(found, want, rtol=1e-4)


@pytest.mark.parametrize(
    "gain", [lambda s: 1 + s, jnp.exp, lambda s: jax.nn.sigmoid(s), lambda s: jax.nn.softmax(s)]
)
def test_gains_that_are_open_at_zero_close_nothing(gain):
    params = {**kernels("w0", "head"), "s": jnp.zeros(WIDTH)}

    def network(p, x):
        return x @ p["w0"] * gain(p["s"])[None] @ p["head"]

    assert sf.flow.closed_leaves(params, network, SHAPE) == ()


def test_adapters_on_pruned_params_are_named_as_they_are_scored():
    params = {**kernels("w", "a", "out"), "b": jnp.zeros((WIDTH, WIDTH))}

    def network(p, x):
        return (x @ p["w"] + x @ p["a"] @ p["b"]) @ p["out"]

    assert sf.flow.closed_leaves(params, network, SHAPE) == ("b",)
    pruned = {**params, "w": params["w"].at[:6].set(0)}
    assert sf.flow.closed_leaves(pruned, network, SHAPE) == ()
    inputs = saliency.synflow_saliency(sf.flow_mode(network), SHAPE).inputs
    assert not sf.flow_mode(network).prepare(pruned, inputs)["b"].any()
