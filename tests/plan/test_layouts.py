"""Axes of layers, inputs and outputs: a stack is its layers, and layouts do not change masks."""

import warnings
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import synflow_jax as sf
from tests.support import stacks
from tests.support.meshes import differ, mesh_of, on_host, same_layout
from tests.support.nets import conv
from tests.support.stacks import LAYERS, SHAPE, STACKS, names, stack, unrolled, unstack

# Tiny networks at these ratios lose layers or outputs, which the check says.
pytestmark = pytest.mark.filterwarnings("ignore:check of the network")

CHOICES = {
    "together": {"rho": 10},
    "erk": {"rho": 10, "scope": sf.erk},
    "layerwise": {"rho": 10, "scope": sf.layerwise},
    "floors": {"rho": 14, "min_keep": 3},
    "shares of layers": {"rho": 10, "min_keep": 0.09},
    "2:4": {"rho": 2, "scope": sf.runs(4)},
    "channels": {"rho": 3, "pattern": sf.channels},
    "channels by layer": {"rho": 3, "pattern": sf.channels, "scope": sf.layerwise},
    "blocks": {"rho": 3, "pattern": sf.plan.blocks(2, 4)},
    "certified": {"rho": 40, "schedule": sf.certified()},
}


def quietly(run):
    """Run without warnings: few rounds may prune as much flow as there is."""
    with warnings.catch_warnings(action="ignore"):
        return run()


@pytest.fixture(scope="module")
def expected():
    """The masks of the unrolled network and the counts of its layers, for every choice."""
    saliency = sf.synflow_saliency(unrolled, SHAPE)
    runs = {}
    for name, options in CHOICES.items():
        run = partial(sf.prune, stacks.weights(), saliency, rounds=4, nested=True, **options)
        masks, info = quietly(run)
        runs[name] = on_host(masks), np.asarray(info.kept)
    return runs


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_is_pruned_as_its_layers_are(kind, choice, expected):
    network, axis = STACKS[kind]
    params = stack(stacks.weights(), axis)
    saliency = sf.synflow_saliency(network, SHAPE)
    run = partial(sf.prune, params, saliency, rounds=4, nested=True, **CHOICES[choice])
    masks, info = quietly(run)
    wanted, kept = expected[choice]
    assert differ(unstack(masks, axis), wanted) == 0
    assert info.layers == (*names(axis), "top")
    np.testing.assert_array_equal(info.kept, kept)
    assert len(set(info.sizes[:LAYERS])) == 1 and sum(info.sizes[:LAYERS]) % LAYERS == 0


@pytest.mark.parametrize("kind", STACKS)
def test_scopes_and_floors_count_the_layers_of_a_stack(kind):
    network, axis = STACKS[kind]
    params = stack(stacks.weights(), axis)
    counts = {}
    for name, options in {
        # ε·16 for each of four 8 by 8 layers and ε·11 for 8 by 3, of ⌈280/10⌉ = 28 in all.
        "erk": {"rho": 10, "scope": sf.erk},
        "layerwise": {"rho": 10, "scope": sf.layerwise},  # ⌈64/10⌉ and ⌈24/10⌉
        "floors": {"rho": 20, "min_keep": 2, "rounds": 1},
        "groups": {"rho": {"s": 64, "top": 2}, "min_keep": 1, "rounds": 1},
    }.items():
        masks = quietly(partial(sf.synflow, params, network, SHAPE, **options))
        counts[name] = [int(m.sum()) for m in unstack(masks, axis).values()]
    assert counts["erk"] == [6, 6, 6, 6, 4]
    assert counts["layerwise"] == [7, 7, 7, 7, 3]
    assert sum(counts["floors"]) == 14 and min(counts["floors"]) >= 2
    assert counts["groups"] == [1, 1, 1, 1, 12]


@pytest.mark.parametrize("kind", STACKS)
def test_collapse_is_that_of_a_layer_of_a_stack(kind):
    network, axis = STACKS[kind]
    plain = stacks.weights()
    params = stack(plain, axis)
    found = sf.measure.stacked_layers(params, network, SHAPE)
    assert sf.measure.max_compression(params, network, SHAPE) == 280 / 5  # not 280/2
    assert sf.measure.max_compression(params, stacked=found) == 56
    assert sf.measure.max_compression(params) == 140
    plain["layer2"] = 1e-6 * plain["layer2"]  # the smallest by magnitude
    params = stack(plain, axis)
    masks = sf.magnitude(params, 1.4)  # 200 of 280
    assert sf.collapsed_layers(masks) == ()
    assert sf.collapsed_layers(masks, stacked=found) == (names(axis)[2],)
    table = sf.report(params, masks, network, SHAPE)
    assert [row.layer for row in table.rows] == [*names(axis), "top"]
    assert [row.shape for row in table.rows] == [(8, 8)] * LAYERS + [(8, 3)]
    assert [row.state == "collapsed" for row in table.rows] == [False, False, True, False, False]
    counted = [row.kept for row in sf.report(params, masks, stacked=found).rows]
    assert counted == [row.kept for row in table.rows]
    assert counted == [int(m.sum()) for m in unstack(masks, axis).values()]
    # `layer2` is empty once 216 or fewer of 280 stay.
    method = lambda rho: sf.magnitude(params, rho)
    for said in ({"apply_fn": network, "shape": SHAPE}, {"stacked": found}):
        reached = sf.measure.critical_compression(method, params, tolerance=1e-3, **said)
        assert 280 / 216 * 10**-1e-3 <= reached < 280 / 216
    with pytest.warns(sf.CollapseWarning, match=r"4 weights for 5 layers.*N/L = 56"):
        sf.magnitude(params, 70, stacked=found)


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 1)])
def test_without_a_network_an_argument_says_what_is_stacked(axis):
    plain = stacks.weights()
    params = stack(plain, axis)
    given = {"s": sf.structure.Stack(LAYERS, axis)}
    for options in (
        {"rho": 10, "scope": sf.erk},
        {"rho": 2, "scope": sf.runs(4)},
        {"rho": 14, "min_keep": 3},
        {"rho": 3, "pattern": sf.channels, "scope": sf.layerwise},
    ):
        masks = sf.magnitude(params, stacked=given, **options)
        assert differ(unstack(masks, axis), on_host(sf.magnitude(plain, **options))) == 0
    drawn = sf.random(jax.random.key(0), params, 10, densities=sf.erk, stacked=given)
    again = sf.random(jax.random.key(1), params, densities=drawn, stacked=given)
    for masks in (drawn, again):
        assert [int(m.sum()) for m in unstack(masks, axis).values()] == [6, 6, 6, 6, 4]
    tx = sf.gradual_magnitude(optax.sgd(0.0), 10, end=2, every=1, scope=sf.erk, stacked=given)
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state, params)
    assert [int(m.sum()) for m in unstack(state.masks, axis).values()] == [6, 6, 6, 6, 4]
    if axis == 0:
        masks = sf.magnitude(params, 10, scope=sf.erk)
        assert int(masks["s"].sum()) == 18  # as one kernel, 28·(4 + 8 + 8)/(20 + 8 + 3)
        listed = sf.magnitude(params, 10, scope=sf.erk, stacked=["s"])
        assert int(listed["s"].sum()) == 24


def test_layers_of_one_axis_are_no_kernels():
    params = {"s": jnp.ones((3, 4, 4)), "g": jnp.full((3, 4), 0.5)}
    assert sf.magnitude(params, 2.0, stacked=["s", "g"])["g"].all()
    chosen = sf.matching("*")
    assert sf.magnitude(params, 2.0, stacked=["s", "g"], prunable=chosen)["g"].all()
    assert not sf.magnitude(params, 2.0)["g"].all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ties_go_by_the_flat_index_of_the_leaf(axis):
    rng = np.random.default_rng(0)
    leaf = np.moveaxis(rng.integers(1, 4, (3, 4, 5)).astype(np.float32), 0, axis)
    given = {"w": sf.structure.Stack(3, axis)}
    params = {"u": jnp.full((2, 3), 2.0), "w": jnp.asarray(leaf)}
    flat = np.concatenate([np.full(6, 2.0), leaf.ravel()])
    wanted = np.zeros(66, bool)
    wanted[np.argsort(-flat, kind="stable")[:33]] = True
    masks = sf.magnitude(params, 2.0, stacked=given)
    np.testing.assert_array_equal(masks["w"], wanted[6:].reshape(leaf.shape))
    masks = sf.magnitude(params, {"u": 1, "w": 4}, stacked=given)
    of_leaf = np.zeros(60, bool)
    of_leaf[np.argsort(-leaf.ravel(), kind="stable")[:15]] = True
    np.testing.assert_array_equal(masks["w"], of_leaf.reshape(leaf.shape))


def test_functions_of_the_user_see_the_shape_of_a_layer():
    seen = []

    def scope(shapes, density):
        seen.append(shapes)
        return sf.layerwise(shapes, density)

    def halves(path, shape):
        seen.append((path, shape))
        return (shape[0] // 2, shape[1])

    params = {"s": jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 6)), jnp.float32)}
    given = {"s": sf.structure.Stack(3, 1)}
    masks = sf.magnitude(params, 2.0, scope=scope, pattern=halves, stacked=given)
    assert seen == [("s", (4, 6)), ((2, 1), (2, 1), (2, 1))]
    sums = np.abs(np.asarray(params["s"])).reshape(2, 2, 3, 6).sum((1, 3))  # halves by layers
    best = np.arange(2)[:, None] == sums.argmax(0)
    np.testing.assert_array_equal(masks["s"], np.repeat(best, 2, 0)[:, :, None] & np.ones(6, bool))


def test_stacks_under_jit_and_vmap():
    params = stack(stacks.weights(), 1)
    pruned = lambda p, rho: sf.synflow(p, stacks.moved, SHAPE, rho, rounds=4, scope=sf.layerwise)
    alone = quietly(lambda: [on_host(pruned(params, rho)) for rho in (2.0, 3.0)])
    assert differ(jax.jit(pruned)(params, 2.0), alone[0]) == 0
    many = jax.vmap(pruned, (None, 0))(params, jnp.array([2.0, 3.0]))
    for i, masks in enumerate(alone):
        assert differ(jax.tree.map(lambda m, i=i: m[i], many), masks) == 0


def test_the_program_does_not_grow_with_the_layers_of_a_stack():
    def length(layers):
        params = {"s": jnp.ones((layers, 4, 4)), "top": jnp.ones((4, 4))}
        prune = partial(sf.magnitude, scope=sf.layerwise, stacked=["s"])
        return str(jax.make_jaxpr(lambda p: prune(p, 2.0))(params)).count(" = ")

    assert length(3) == length(30)


@pytest.mark.parametrize("kind", ["auto", "explicit"])
@pytest.mark.parametrize("axis", [0, 1])
def test_stacks_over_a_mesh(kind, axis, x64):
    params = stack(stacks.weights(dtype=jnp.float64), axis)
    params["top"] = jnp.ones((8, 4))
    given = {"s": sf.structure.Stack(LAYERS, axis)}
    runs = [
        partial(sf.magnitude, rho=5.0, stacked=given, **options)
        for options in ({}, {"scope": sf.erk}, {"scope": sf.layerwise, "pattern": sf.channels})
    ]
    runs += [partial(sf.magnitude, rho=2.0, scope=sf.runs(4), stacked=given)]
    copied = lambda p: sf.random(jax.random.key(0), p, densities=runs[1](p), stacked=given)
    mesh = mesh_of(kind)
    for run in (*runs, copied):
        wanted = on_host(run(params))
        with jax.set_mesh(mesh):
            for spec in (("a", None, "b"), (None, "a", "b")):
                put = lambda leaf, *names: jax.device_put(
                    leaf, NamedSharding(mesh, PartitionSpec(*names))
                )
                there = {"s": put(params["s"], *spec), "top": put(params["top"], "a", "b")}
                found = run(there)
                assert differ(found, wanted) == 0
                assert same_layout(there, found)


# Axes of inputs and outputs.


def out_by_in(seed=0):
    """A network of eqx.nn.Linear, kernels (out, in), and the same with kernels (in, out)."""
    keys = jax.random.split(jax.random.key(seed), 2)
    layers = [eqx.nn.Linear(8, 12, key=keys[0]), eqx.nn.Linear(12, 4, key=keys[1])]
    params, static = eqx.partition(layers, eqx.is_inexact_array)
    plain = [{"kernel": layer.weight.T, "bias": layer.bias} for layer in layers]

    def network(p, x):
        first, second = eqx.combine(p, static)
        return jax.vmap(lambda one: second(jax.nn.relu(first(one))))(x)

    def apart(p, x):
        x = jax.nn.relu(x @ p[0]["kernel"] + p[0]["bias"][None])
        return x @ p[1]["kernel"] + p[1]["bias"][None]

    return (params, network), (plain, apart)


@pytest.mark.parametrize(
    "options",
    [
        {"rho": 2, "scope": sf.runs(4)},
        {"rho": 3, "pattern": sf.channels},
        {"rho": 3, "pattern": sf.plan.blocks(2, 4)},
        {"rho": 3, "pattern": sf.plan.blocks(4, 2), "scope": sf.layerwise},
    ],
    ids=["2:4", "channels", "blocks", "tall blocks by layer"],
)
def test_kernels_of_equinox_are_pruned_as_their_transposes(options):
    (params, network), (plain, apart) = out_by_in()
    masks = quietly(lambda: sf.synflow(params, network, (8,), rounds=3, **options))
    wanted = quietly(lambda: sf.synflow(plain, apart, (8,), rounds=3, **options))
    for found, want in zip(masks, wanted, strict=True):
        np.testing.assert_array_equal(found.weight.T, want["kernel"])


def test_runs_of_equinox_lie_along_inputs():
    (params, network), _ = out_by_in()
    masks = quietly(lambda: sf.synflow(params, network, (8,), 2, rounds=1, scope=sf.runs(4)))
    first, second = (np.abs(np.asarray(layer.weight)) for layer in params)
    # A first layer's score is |w| times a number a row; a second's is |w| times what comes in.
    incoming = first.sum(1) + np.abs(np.asarray(params[0].bias))
    for mask, score in ((masks[0], first), (masks[1], second * incoming)):
        cut = score.reshape(len(score), -1, 4)
        wanted = cut >= np.sort(cut)[..., 2:3]
        np.testing.assert_array_equal(mask.weight, wanted.reshape(score.shape))
    # An explicit axis is taken as it is.
    along = quietly(lambda: sf.synflow(params, network, (8,), 2, scope=sf.runs(4, axis=-2)))
    assert (np.asarray(along[0].weight).reshape(3, 4, 8).sum(1) == 2).all()


def test_neuron_flow_of_equinox_is_by_its_own_units():
    (params, network), (plain, apart) = out_by_in()
    flows = sf.measure.neuron_flow(params, network, (8,))
    wanted = sf.measure.neuron_flow(plain, apart, (8,))
    first, second = (np.abs(np.asarray(layer.weight, np.float64)) for layer in params)
    before = first.sum(1) + np.abs(np.asarray(params[0].bias, np.float64))
    np.testing.assert_allclose(flows["1/weight"].out_of, before * second.sum(0), rtol=1e-5)
    np.testing.assert_allclose(flows["1/weight"].into, second @ before, rtol=1e-5)
    np.testing.assert_allclose(flows["0/weight"].into, first.sum(1) * second.sum(0), rtol=1e-5)
    for i in range(2):
        for one, other in zip(flows[f"{i}/weight"], wanted[f"{i}/kernel"], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_convolutions_of_any_layout(x64):
    rng = np.random.default_rng(0)
    usual = [rng.standard_normal(s) for s in ((3, 3, 4, 8), (3, 3, 8, 4))]  # HWIO

    def network(layout, p, x):
        for kernel in p:
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return x

    params = {
        "NHWC": [jnp.asarray(k) for k in usual],
        "NCHW": [jnp.asarray(k.transpose(3, 2, 0, 1)) for k in usual],  # OIHW, of Equinox
    }
    layouts = {"NHWC": ("NHWC", "HWIO", "NHWC"), "NCHW": ("NCHW", "OIHW", "NCHW")}
    shapes = {"NHWC": (5, 5, 4), "NCHW": (4, 5, 5)}
    for options in (
        {"rho": 2, "scope": sf.runs(4)},
        {"rho": 3, "pattern": sf.channels},
        {"rho": 3, "pattern": sf.plan.blocks(2, 4)},
    ):
        last, first = (
            quietly(
                lambda at=at, options=options: sf.synflow(
                    params[at], partial(network, layouts[at]), shapes[at], rounds=1, **options
                )
            )
            for at in layouts
        )
        for a, b in zip(last, first, strict=True):
            np.testing.assert_array_equal(a, b.transpose(2, 3, 1, 0))
    flows = [
        sf.measure.neuron_flow(params[at], partial(network, layouts[at]), shapes[at])
        for at in layouts
    ]
    for path, flow in flows[0].items():
        for one, other in zip(flow, flows[1][path], strict=True):
            np.testing.assert_allclose(one, other)
    np.testing.assert_allclose(flows[1]["0"].into, flows[1]["1"].out_of)


def test_grouped_convolutions_conserve_by_channel(x64):
    rng = np.random.default_rng(0)
    shapes = ((1, 1, 3, 8), (3, 3, 4, 8), (1, 1, 8, 2))  # the second in two groups of four
    params = [jnp.asarray(rng.standard_normal(s)) for s in shapes]

    def network(p, x):
        for kernel, groups in zip(p, (1, 2, 1), strict=True):
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )
        return x

    flows = sf.measure.neuron_flow(params, network, (5, 5, 3))
    np.testing.assert_allclose(flows["1"].into, flows["2"].out_of)
    masks = quietly(lambda: sf.synflow(params, network, (5, 5, 3), 2, scope=sf.runs(4)))
    assert (np.asarray(masks[1]).sum(2) == 2).all()  # of the four inputs of a group
    assert masks[0].all()  # of three colours


def test_attention_has_heads_as_units(x64):
    rng = np.random.default_rng(0)
    shapes = {"into": (6, 4, 8), "out": (4, 8, 5)}
    params = {name: jnp.asarray(rng.standard_normal(s)) for name, s in shapes.items()}

    def network(p, x):
        return jnp.einsum("bhk,hkd->bd", jnp.einsum("bd,dhk->bhk", x, p["into"]), p["out"])

    flows = sf.measure.neuron_flow(params, network, (6,))
    sizes = {name: np.abs(np.asarray(p)) for name, p in params.items()}
    units = sizes["into"].sum(0) * sizes["out"].sum(2)
    np.testing.assert_allclose(flows["into"].into, units)
    np.testing.assert_allclose(flows["out"].out_of, units)
    np.testing.assert_allclose(
        flows["into"].out_of, (sizes["into"] * sizes["out"].sum(2)).sum((1, 2))
    )
    np.testing.assert_allclose(
        flows["out"].into, (sizes["into"].sum(0)[:, :, None] * sizes["out"]).sum((0, 1))
    )
    two = quietly(lambda: sf.synflow(params, network, (6,), 2, rounds=1, scope=sf.runs(2)))
    assert (np.asarray(two["into"]).reshape(3, 2, 4, 8).sum(1) == 1).all()
    assert (np.asarray(two["out"]).reshape(4, 4, 2, 5).sum(2) == 1).all()
    channels = quietly(lambda: sf.synflow(params, network, (6,), 2, pattern=sf.channels))
    assert (
        np.asarray(channels["into"]).any((0, 1)) == np.asarray(channels["into"]).all((0, 1))
    ).all()
    bricks = quietly(lambda: sf.synflow(params, network, (6,), 2, pattern=sf.plan.blocks(3, 4)))
    cut = np.asarray(bricks["into"]).reshape(2, 3, 4, 2, 4)
    assert (cut.any((1, 4)) == cut.all((1, 4))).all()


def test_a_convolution_by_patches_has_features_as_inputs(x64):
    """A reshape joins the window and the features, also of the one colour of a grey image."""
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.standard_normal(s)) for s in ((3, 3, 1, 4), (3, 3, 4, 5))]
    network = lambda p, x: conv(conv(x, p[0]), p[1])
    flows = sf.measure.neuron_flow(params, network, (6, 6, 1))
    assert flows["0"].into.shape == (4,) and flows["0"].out_of.shape == (1,)
    np.testing.assert_allclose(flows["0"].into, flows["1"].out_of)
    masks = quietly(lambda: sf.synflow(params, network, (6, 6, 1), 2, scope=sf.runs(4)))
    assert (masks[1].sum(2) == 2).all() and masks[0].all()


@pytest.mark.parametrize("kind", STACKS)
def test_neuron_flow_of_a_stack_has_an_axis_of_layers(kind):
    network, axis = STACKS[kind]
    plain = stacks.weights()
    flows = sf.measure.neuron_flow(stack(plain, axis), network, SHAPE)
    wanted = sf.measure.neuron_flow(plain, unrolled, SHAPE)
    lengths = (2, 2) if axis == (0, 1) else (LAYERS,)
    assert flows["s"].into.shape == flows["s"].out_of.shape == (*lengths, 8)
    into, out_of = (side.reshape(LAYERS, 8) for side in flows["s"])
    for side, name in ((into, "into"), (out_of, "out_of")):
        rows = np.stack([getattr(wanted[f"layer{i}"], name) for i in range(LAYERS)])
        np.testing.assert_allclose(side, rows, rtol=1e-5)
    # Sums of float32 products, each rounded at 6e-8.
    np.testing.assert_allclose(into[:-1], out_of[1:], rtol=1e-5)
    np.testing.assert_allclose(into[-1], flows["top"].out_of, rtol=1e-5)
