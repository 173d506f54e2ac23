"""The same masks on one device and on eight, however the params lie, and laid out as they do."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import synflow_jax as sf
from tests.support.meshes import WIDTHS, any_mlp, differ, mesh_of, on_host, same_layout, spread
from tests.support.nets import mlp, mlp_params

# Magnitudes of tiny networks leave a layer empty.
pytestmark = pytest.mark.filterwarnings("ignore:check of the network")
SHAPE = WIDTHS[:1]
KEY = jax.random.key(0)


def loss(params, batch):
    return jnp.mean(jnp.square(jnp.tanh(any_mlp(params, batch[0])) - batch[1]))


def data(params):
    rng = np.random.default_rng(0)
    pair = (rng.standard_normal((4, WIDTHS[0])), rng.uniform(-1, 1, (4, WIDTHS[-1])))
    return [tuple(jnp.asarray(part, params["layer0"]["kernel"].dtype) for part in pair)]


METHODS = {
    "synflow": lambda p: sf.synflow(p, any_mlp, SHAPE, 7.0, rounds=20),
    "synflow_l2": lambda p: sf.synflow_l2(p, any_mlp, SHAPE, 7.0, rounds=20),
    "certified": lambda p: sf.synflow(p, any_mlp, SHAPE, 7.0, schedule=sf.certified()),
    "magnitude": lambda p: sf.magnitude(p, 7.0),
    "random": lambda p: sf.random(KEY, p, 7.0),
    "snip": lambda p: sf.snip(p, loss, data(p), 7.0),
    "grasp": lambda p: sf.grasp(p, loss, data(p), 7.0),
    "mostly tied": lambda p: sf.magnitude(jax.tree.map(jnp.round, p), 3.0),
    "shuffled": lambda p: sf.pruning.shuffle(KEY, sf.magnitude(p, 7.0)),
    "drawn anew": lambda p: sf.pruning.reinitialise(KEY, p),
    "pruned": lambda p: sf.apply_masks(p, sf.magnitude(p, 7.0)),
}


@pytest.fixture(scope="module")
def expected():
    """What each method gives on one device."""
    with jax.enable_x64(True):
        params = mlp_params(0, widths=WIDTHS, dtype=jnp.float64)
        return {name: on_host(method(params)) for name, method in METHODS.items()}


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_every_method_gives_on_eight_devices_what_it_gives_on_one(kind, expected, x64):
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        params = spread(mlp_params(0, widths=WIDTHS, dtype=jnp.float64), mesh, "both")
        assert len(params["layer0"]["kernel"].devices()) == 8
        for name, method in METHODS.items():
            found = method(params)
            assert differ(found, expected[name]) == 0, name
            assert same_layout(params, found), name


@pytest.mark.parametrize(
    ("kind", "shape", "layout"),
    [
        ("auto", (4, 2), "flat"),
        ("auto", (4, 2), "whole"),
        ("explicit", (8,), "columns"),
        ("explicit", (4, 2), "rows"),
        ("mixed", (4, 2), "both"),
    ],
)
def test_no_layout_changes_a_mask(kind, shape, layout, expected, x64):
    mesh = mesh_of(kind, shape)
    with jax.set_mesh(mesh):
        params = spread(mlp_params(0, widths=WIDTHS, dtype=jnp.float64), mesh, layout)
        for name in ("synflow", "mostly tied"):
            found = METHODS[name](params)
            assert differ(found, expected[name]) == 0, name
            assert same_layout(params, found), name


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_layouts_last_under_jit_and_without_a_mesh_in_context(kind, expected, x64):
    mesh = mesh_of(kind)
    params = spread(mlp_params(0, widths=WIDTHS, dtype=jnp.float64), mesh, "both")
    for name in ("random", "shuffled"):
        found = METHODS[name](params)
        assert differ(found, expected[name]) == 0, name
        assert same_layout(params, found), name
    with jax.set_mesh(mesh):
        found = jax.jit(METHODS["random"])(params)
    assert differ(found, expected["random"]) == 0
    assert same_layout(params, found)


@pytest.mark.parametrize("names", [(None, "a"), ("a", None), ("a", "b")])
def test_convolutions_over_explicit_axes_say_how_they_lie(names):
    """Such a convolution names its layout, which a product in its place would lose."""
    mesh, out = mesh_of("explicit"), PartitionSpec(None, None, None, names[1])

    def network(params, x, **layout):
        dimensions = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(x, params, (1, 1), "SAME", **dimensions, **layout)

    params = jax.random.normal(KEY, (3, 3, 4, 8))
    laid = jax.device_put(params, NamedSharding(mesh, PartitionSpec(None, None, *names)))
    with jax.set_mesh(mesh):
        found = sf.synflow(laid, partial(network, out_sharding=out), (5, 5, 4), 3.0, rounds=2)
    assert differ(found, sf.synflow(params, network, (5, 5, 4), 3.0, rounds=2)) == 0
    assert same_layout(laid, found)


def test_uneven_shards_inside_a_program(x64):
    """JAX takes no array in uneven shards, and lets a program over Auto axes make some."""
    mesh = mesh_of("auto", (8,))
    params = mlp_params(0, widths=(5, 13, 11, 3), dtype=jnp.float64)
    uneven = NamedSharding(mesh, PartitionSpec(None, "a"))

    @jax.jit
    def run(tree):
        rows = {k: jax.lax.with_sharding_constraint(v["kernel"], uneven) for k, v in tree.items()}
        tree = {k: {**layer, "kernel": rows[k]} for k, layer in tree.items()}
        return sf.synflow(tree, mlp, (5,), 4.0, rounds=5)

    assert differ(run(params), sf.synflow(params, mlp, (5,), 4.0, rounds=5)) == 0


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_fewer_weights_than_devices(kind):
    mesh = mesh_of(kind)
    params = {"w": jnp.array([[3.0, -1.0, 1.0, 2.0]]), "v": jnp.array([[1.0, 2.0]])}
    layouts = {"w": PartitionSpec(None, "a"), "v": PartitionSpec(None, "b")}
    laid = {k: jax.device_put(v, NamedSharding(mesh, layouts[k])) for k, v in params.items()}
    with jax.set_mesh(mesh):
        found = sf.magnitude(laid, 2.0)
    assert found["w"].tolist() == [[True, False, False, True]]
    assert found["v"].tolist() == [[False, True]]
    assert same_layout(laid, found)


def test_ties_go_by_flat_index_whatever_the_layout():
    params = {"u": jnp.ones((8, 24)), "v": jnp.ones((16, 8))}
    first = np.arange(8 * 24 + 16 * 8) < 107
    for kind, layout in (("auto", "both"), ("explicit", "columns")):
        masks = sf.magnitude(spread(params, mesh_of(kind), layout), 320 / 107)
        found = np.concatenate([np.ravel(masks["u"]), np.ravel(masks["v"])])
        np.testing.assert_array_equal(found, first)


def test_a_leaf_that_was_put_nowhere_goes_along_with_the_others():
    mesh = mesh_of("auto")
    params = mlp_params(0, widths=WIDTHS)
    params["layer0"] = spread(params["layer0"], mesh, "columns")
    found = sf.magnitude(params, 7.0)
    assert differ(found, sf.magnitude(mlp_params(0, widths=WIDTHS), 7.0)) == 0


@pytest.mark.parametrize("kind", ["explicit", "mixed"])
def test_training_holds_the_layout_and_the_zeros(kind):
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        params = spread(mlp_params(0, widths=WIDTHS), mesh, "both")
        masks = sf.magnitude(params, 7.0)
        tx = sf.keep_masks(optax.sgd(0.1, momentum=0.9), masks)
        state = tx.init(params)
        gradients = jax.grad(lambda p: jnp.sum(any_mlp(p, jnp.ones((1, *SHAPE))) ** 2))(params)
        updates, state = jax.jit(tx.update)(gradients, state, params)
        trained = optax.apply_updates(params, updates)
    assert same_layout(params, masks)
    assert same_layout(params["layer0"]["kernel"], state.masks["layer0"]["kernel"])
    assert differ(trained, sf.apply_masks(trained, masks)) == 0
    assert differ(trained, params) > 0


def test_float32_differs_by_near_ties_alone():
    """Partial sums add up in another order; here no two scores are near enough to change places."""
    params, mesh = mlp_params(0, widths=WIDTHS), mesh_of("auto")
    found = sf.synflow(spread(params, mesh, "rows"), any_mlp, SHAPE, 7.0, rounds=100)
    assert sum(int(layer["kernel"].sum()) for layer in found.values()) == 110
    assert differ(found, sf.synflow(params, any_mlp, SHAPE, 7.0, rounds=100)) <= 4


def test_measurements_agree(x64):
    mesh = mesh_of("explicit")
    dense = mlp_params(0, widths=WIDTHS, dtype=jnp.float64)
    masks = sf.magnitude(dense, 7.0)
    want = measured(dense, masks, contextlib.nullcontext())
    spread_out = (spread(dense, mesh, "both"), spread(masks, mesh, "both"))
    found = measured(*spread_out, jax.set_mesh(mesh))
    for name, value in want.items():
        # Sums of some hundred float64 products in another order.
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def measured(params, masks, context):
    with context:
        table = sf.report(params, masks, any_mlp, SHAPE)
        neurons = sf.measure.neuron_flow(params, any_mlp, SHAPE, masks)["layer1/kernel"]
        return {
            "kept": [row.kept for row in table.rows],
            "shares": [row.flow for row in table.rows],
            "layer": np.asarray(sf.measure.layer_flow(params, any_mlp, SHAPE)["layer1/kernel"]),
            "into": np.asarray(neurons.into),
            "effective": sf.effective_density(params, masks, any_mlp, SHAPE),
            "1 + gap": np.asarray(1 + sf.measure.conservation_gap(params, any_mlp, SHAPE)),
            "broken": len(sf.flow.homogeneity_report(params, any_mlp, SHAPE).rows),
            "closed": len(sf.flow.closed_leaves(params)),
        }
