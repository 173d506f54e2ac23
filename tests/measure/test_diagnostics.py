"""Flow, conservation, collapse and density, on networks small enough to know the answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax.plan import is_prunable
from tests.support.nets import (
    CONV_SHAPE,
    WIDTHS,
    all_true,
    conv,
    mlp,
    mlp_params,
    residual,
    residual_params,
)


def chain(params, x):
    return jax.nn.relu(x @ params["one"]) @ params["two"]


CHAIN = {"one": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "two": jnp.array([[2.0], [-1.0]])}


def test_flow_of_a_chain_by_hand():
    # |one| sums to 4 and 2.5 a column; 4·2 + 2.5·1 = 10.5.
    assert float(sf.log2_flow(CHAIN, chain, (2,))) == pytest.approx(np.log2(10.5))
    assert [float(v) for v in sf.measure.layer_flow(CHAIN, chain, (2,)).values()] == [10.5, 10.5]
    flows = sf.measure.neuron_flow(CHAIN, chain, (2,))
    assert flows["one"].into.tolist() == [8.0, 2.5]
    assert flows["one"].out_of.tolist() == [4.0, 6.5]
    assert flows["two"].out_of.tolist() == [8.0, 2.5]
    masks = {"one": jnp.array([[True, True], [False, False]]), "two": jnp.ones((2, 1), bool)}
    assert float(sf.log2_flow(CHAIN, chain, (2,), masks)) == pytest.approx(np.log2(4.0))


def test_no_flow_is_minus_infinity():
    masks = {"one": jnp.zeros((2, 2), bool), "two": jnp.ones((2, 1), bool)}
    assert float(sf.log2_flow(CHAIN, chain, (2,), masks)) == -np.inf


def test_flow_is_traceable():
    flow = jax.jit(lambda p: sf.log2_flow(p, chain, (2,)))
    assert float(flow(CHAIN)) == pytest.approx(np.log2(10.5))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), CHAIN)
    both = jax.vmap(lambda p: sf.log2_flow(p, chain, (2,)))(many)
    assert (both[1] - both[0]).item() == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize(
    ("net", "params", "shape"),
    [
        (mlp, mlp_params(0), WIDTHS[:1]),
        (residual, residual_params(0), CONV_SHAPE),
    ],
)
def test_homogeneous_networks_conserve(net, params, shape):
    # Rounding of a few hundred float32 operations.
    assert float(sf.measure.conservation_gap(params, net, shape)) < 1e-5


@pytest.mark.parametrize("mode", [lambda f: f, sf.flow_mode], ids=["plain", "flow mode"])
def test_a_tied_table_is_a_source_where_it_is_looked_up_alone(mode):
    rng = np.random.default_rng(0)
    params = {
        "table": jnp.asarray(rng.standard_normal((20, 8)), jnp.float32),
        "w": jnp.asarray(rng.standard_normal((8, 8)), jnp.float32),
        "b": jnp.asarray(rng.standard_normal(8), jnp.float32),
    }

    def network(p, tokens):
        h = jnp.take(p["table"] * 2, tokens, axis=0).mean(1) @ p["w"] + p["b"][None]
        return jax.nn.relu(h) @ p["table"].T

    tokens = jax.ShapeDtypeStruct((5,), jnp.int32)
    assert float(sf.measure.conservation_gap(params, mode(network), tokens)) < 1e-5


@pytest.mark.parametrize(
    "breaker",
    [
        lambda h: jnp.tanh(h),
        lambda h: jax.nn.softmax(h),
        lambda h: h / (1 + jnp.mean(h)),
        lambda h: jnp.square(h),
    ],
)
def test_networks_that_break_the_laws_show_a_gap(breaker):
    gap = sf.measure.conservation_gap(CHAIN, lambda p, x: breaker(x @ p["one"]) @ p["two"], (2,))
    assert float(gap) > 0.01


def test_collapsed_layers_and_dead_branches():
    params = residual_params(0)
    masks = all_true(params)
    assert sf.collapsed_layers(masks) == ()
    assert sf.measure.dead_branches(params, masks, residual, CONV_SHAPE) == ()
    masks["up"]["kernel"] = jnp.zeros_like(masks["up"]["kernel"])
    assert sf.collapsed_layers(masks) == ("up/kernel",)
    assert sf.measure.dead_branches(params, masks, residual, CONV_SHAPE) == (
        "down/kernel",
        "up/kernel",
    )
    masks["head"]["kernel"] = jnp.zeros_like(masks["head"]["kernel"])
    assert sf.collapsed_layers(masks) == ("head/kernel", "up/kernel")
    pairs = jax.tree_util.tree_flatten_with_path(params)[0]
    named = [(jax.tree_util.keystr(at, simple=True, separator="/"), leaf) for at, leaf in pairs]
    every = tuple(path for path, leaf in named if is_prunable(path, leaf))
    assert sf.measure.dead_branches(params, masks, residual, CONV_SHAPE) == every
    table = sf.report(params, masks, residual, CONV_SHAPE)
    assert {row.state for row in table.rows} == {"dead", "collapsed"}
    assert "no path is left" in str(table)


def blocks(params, x):
    """Residual blocks whose weights are one leaf, along axis 0."""

    def step(h, pair):
        return h + jax.nn.relu(h @ pair["up"]) @ pair["down"], None

    pairs = {name: params[name] for name in ("up", "down")}
    return jax.lax.scan(step, x, pairs)[0] @ params["out"]


def unrolled(params, x):
    for at in range(3):
        x = x + jax.nn.relu(x @ params[f"up[{at}]"]) @ params[f"down[{at}]"]
    return x @ params["out"]


def test_dead_layers_of_a_stack_are_named_as_the_unrolled_network_names_them():
    stack = {"up": jnp.ones((3, 2, 2)), "down": jnp.ones((3, 2, 2)), "out": jnp.ones((2, 1))}
    masks = all_true(stack) | {"up": jnp.ones((3, 2, 2), bool).at[1].set(False)}

    def layers(tree):
        flat = {f"{name}[{at}]": tree[name][at] for name in ("up", "down") for at in range(3)}
        return flat | {"out": tree["out"]}

    expected = sf.measure.dead_branches(layers(stack), layers(masks), unrolled, (2,))
    assert expected == ("down[1]", "up[1]")
    assert sf.measure.dead_branches(stack, masks, blocks, (2,)) == expected
    states = {row.layer: row.state for row in sf.report(stack, masks, blocks, (2,)).rows}
    assert {name: state for name, state in states.items() if state} == {
        "down[1]": "dead",
        "up[1]": "collapsed",
    }


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_one_empty_layer_cuts_all_of_a_chain(empty):
    params = mlp_params(0)
    masks = all_true(params)
    kernel = masks[f"layer{empty}"]["kernel"]
    masks[f"layer{empty}"] = masks[f"layer{empty}"] | {"kernel": jnp.zeros_like(kernel)}
    dead = sf.measure.dead_branches(params, masks, mlp, (WIDTHS[0],))
    assert dead == ("layer0/kernel", "layer1/kernel", "layer2/kernel")


def live_by_hand(masks):
    """Walk forward from the inputs and back from the outputs through an MLP's masks."""
    names = sorted(masks)
    forward = [np.ones(masks[names[0]]["kernel"].shape[0], bool)]
    for name in names:
        forward.append((np.asarray(masks[name]["kernel"]) & forward[-1][:, None]).any(0))
    backward = np.ones(masks[names[-1]]["kernel"].shape[1], bool)
    count = 0
    for name, reached in zip(reversed(names), reversed(forward[:-1]), strict=True):
        live = np.asarray(masks[name]["kernel"]) & reached[:, None] & backward[None]
        count += live.sum()
        backward = (np.asarray(masks[name]["kernel"]) & backward[None]).any(1)
    return count


@pytest.mark.parametrize("rho", [3.0, 8.0, 16.0])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:check of the network")  # magnitude may empty a layer
def test_effective_density_counts_weights_on_whole_paths(rho, seed):
    params = mlp_params(seed)
    masks = sf.random(jax.random.key(seed), params, rho)
    total = sum(leaf["kernel"].size for leaf in params.values())
    got = sf.effective_density(params, masks, mlp, WIDTHS[:1])
    assert got == pytest.approx(live_by_hand(masks) / total, abs=1e-12)


def test_effective_density_neither_overflows_nor_underflows():
    params = mlp_params(0, widths=(4,) + (16,) * 40 + (2,), bias=0.0)
    params = jax.tree.map(lambda leaf: 8.0 * leaf, params)  # the flow itself overflows float32
    assert sf.effective_density(params, all_true(params), mlp, (4,)) == 1.0
    tiny = jax.tree.map(lambda leaf: 1e-3 * leaf, params)
    assert sf.effective_density(tiny, all_true(tiny), mlp, (4,)) == 1.0


def pooled(params, x):
    x = conv(x, params["conv"])
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(1, -1) @ params["head"]


def test_effective_density_counts_every_input_of_a_max_pool_and_every_size_of_weight():
    rng = np.random.default_rng(0)
    params = {
        "conv": jnp.asarray(rng.standard_normal((3, 3, 2, 3)), jnp.float32),
        "head": jnp.asarray(rng.standard_normal((3, 2)), jnp.float32),
    }
    # On a 2x2 image a 3x3 kernel sees, over the four positions, all of its taps.
    assert sf.effective_density(params, all_true(params), pooled, (2, 2, 2)) == 1.0
    tiny = {"one": jnp.array([[1.0, 1e-30]]), "two": jnp.array([[1.0], [1e-30]])}
    assert sf.effective_density(tiny, all_true(tiny), chain, (1,)) == 1.0


def test_biases_are_known_without_names():
    layers = [(layer["kernel"], layer["bias"]) for layer in mlp_params(0).values()]

    def net(params, x):
        named = {f"layer{i}": {"kernel": w, "bias": b} for i, (w, b) in enumerate(params)}
        return mlp(named, x)

    assert float(sf.measure.conservation_gap(layers, net, WIDTHS[:1])) < 1e-5
    masks = all_true(layers)
    masks[0] = (jnp.zeros_like(masks[0][0]), masks[0][1])
    assert sf.effective_density(layers, masks, net, WIDTHS[:1]) == 0.0


def test_max_and_critical_compression():
    params = {"small": jnp.full((2, 5), 3.0), "large": jnp.full((10, 5), 1.0)}
    assert sf.measure.max_compression(params) == 30.0
    # The 10 large weights of `small` go last, so `large` empties below 11 kept of 60.
    got = sf.measure.critical_compression(
        lambda rho: sf.magnitude(params, rho), params, tolerance=0.001
    )
    assert 60 / 11 <= got < 60 / 10
    even = sf.measure.critical_compression(
        lambda rho: sf.magnitude(params, rho, scope=sf.layerwise), params
    )
    assert even == pytest.approx(30.0)


def test_synflow_bears_more_compression_than_its_rivals():
    params = mlp_params(0, widths=(8, 64, 8, 64, 4), bias=0.0)
    best = sf.measure.critical_compression(lambda rho: sf.synflow(params, mlp, (8,), rho), params)
    rival = sf.measure.critical_compression(lambda rho: sf.magnitude(params, rho), params)
    chance = sf.measure.critical_compression(
        lambda rho: sf.random(jax.random.key(0), params, rho), params
    )
    assert best > 1.5 * rival
    assert best > 1.5 * chance
    assert best <= sf.measure.max_compression(params)


def test_report_reads_well():
    params = residual_params(0)
    params["norm"]["bias"] = jnp.zeros(4)  # else the bias feeds the layer behind the dead one
    masks, _ = sf.prune(params, sf.synflow_saliency(residual, CONV_SHAPE), 4.0, 5)
    masks["up"]["kernel"] = jnp.zeros_like(masks["up"]["kernel"])
    plain = sf.report(params, masks)
    full = sf.report(params, masks, residual, CONV_SHAPE)
    assert [row.layer for row in plain.rows] == [
        "down/kernel",
        "head/kernel",
        "stem/kernel",
        "up/kernel",
    ]
    assert plain.kept == sum(int(masks[n]["kernel"].sum()) for n in ("down", "head", "stem"))
    assert [row.state for row in full.rows] == ["dead", "", "", "collapsed"]
    assert full.rows[1].flow == pytest.approx(1.0, rel=1e-4)
    assert full.rows[0].flow == 0.0
    for text in (str(plain), str(full), full._repr_html_()):
        assert "down/kernel" in text
        assert "3×3×4×4" in text
    assert "log2 flow" in str(full)
    assert "<pre" in full._repr_html_()
    assert "\x1b[" not in str(full)


def test_controls_keep_what_they_promise():
    params = residual_params(0)
    masks, _ = sf.prune(params, sf.saliency.magnitude_saliency(), 3.0, 1)
    mixed = sf.pruning.shuffle(jax.random.key(0), masks)
    for a, b in zip(jax.tree.leaves(masks), jax.tree.leaves(mixed), strict=True):
        assert int(a.sum()) == int(b.sum())
    assert not bool((masks["up"]["kernel"] == mixed["up"]["kernel"]).all())
    new = sf.pruning.reinitialise(jax.random.key(0), params)
    assert bool((new["norm"]["scale"] == params["norm"]["scale"]).all())
    old, drawn = (np.sort(np.ravel(p["up"]["kernel"])) for p in (params, new))
    np.testing.assert_array_equal(old, drawn)
    fresh = sf.pruning.reinitialise(jax.random.key(0), params, lambda key: residual_params(5))
    assert bool((fresh["up"]["kernel"] == residual_params(5)["up"]["kernel"]).all())
    assert bool((fresh["norm"]["scale"] == params["norm"]["scale"]).all())


def test_shuffle_under_vmap():
    masks = {"w": jnp.arange(20).reshape(4, 5) < 7}
    many = jax.vmap(lambda key: sf.pruning.shuffle(key, masks)["w"])(
        jax.random.split(jax.random.key(0), 50)
    )
    assert bool((many.sum((1, 2)) == 7).all())
    assert len({m.tobytes() for m in np.asarray(many)}) > 45
