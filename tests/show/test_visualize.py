"""The picture of a network says what compact and report say, and its file is whole or not there."""

import itertools
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

import synflow_jax as sf
from synflow_jax.measure import find_sides
from synflow_jax.show import Layer, Network, draw
from tests.support.nets import mlp, mlp_params

ROWS = ("dense", "masked", "compact")
SHAPE = (5,)


@pytest.fixture(scope="module")
def pruned():
    params = mlp_params(widths=(5, 40, 30, 4), bias=0.0)
    masks = sf.synflow(params, mlp, SHAPE, rho=30, rounds=10)
    return params, masks, sf.visualize(params, masks, mlp, SHAPE)


def counts(figure, row):
    return [int(text.get_text()) for text in figure.axes[row].texts]


def key_of(axes):
    """Read a key of colours: the colour of a share, on its log scale."""
    (scale,) = axes.images
    colours, (low, high, *_) = np.asarray(scale.get_array())[0], scale.get_extent()
    return lambda share: colours[round((np.log10(share) - low) / (high - low) * (len(colours) - 1))]


def totals(figure):
    return [axes.get_title(loc="right") for axes in figure.axes[:3]]


def test_the_totals_are_those_of_report_and_compact(pruned):
    params, masks, figure = pruned
    table = sf.report(params, masks, mlp, SHAPE)
    small = sf.compact(params, masks, mlp, SHAPE)
    assert tuple(axes.get_title(loc="left") for axes in figure.axes[:3]) == ROWS
    before, after = small.multiply_adds
    left = sum(layer["kernel"].size for layer in small.params.values())
    kept = sum(int(layer["kernel"].sum()) for layer in small.masks.values())
    there = sf.log2_flow(small.params, small.apply_fn, SHAPE)  # measured on the small network
    products, flows = f"{before:,} multiply-adds", [*table.log2_flow, float(there)]
    dense = f"{table.weights:,} weights"
    assert totals(figure) == [
        f"{dense} · {products} · flow $2^{{{flows[0]:.1f}}}$",
        f"{dense}, {table.kept} kept · {products} · flow $2^{{{flows[1]:.1f}}}$",
        f"{left} weights ({table.weights / left:.3g} × fewer), {kept} kept · "
        f"{after} multiply-adds ({before / after:.3g} × fewer) · flow $2^{{{flows[2]:.1f}}}$",
    ]


def test_the_numbers_of_units_are_those_with_flow(pruned):
    params, masks, figure = pruned
    flows = sf.measure.neuron_flow(params, mlp, SHAPE, masks)
    live = [int((flow.into > 0).sum()) for flow in flows.values()]
    small = sf.compact(params, masks, mlp, SHAPE).params
    assert counts(figure, 0)[1:] == [40, 30, 4]
    assert counts(figure, 1)[1:] == live
    assert live[:2] < [40, 30]
    assert counts(figure, 2)[1:] == [layer["kernel"].shape[1] for layer in small.values()]
    for row, widths in ((1, [40, 30, 4]), (2, counts(figure, 2)[1:])):  # and heights are of arrays
        heights = [2 * drawn.get_extent()[3] for drawn in figure.axes[row].images]
        np.testing.assert_allclose(heights, np.sqrt(widths))
    names = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert names == list(small)


def test_units_and_weights_are_coloured_by_flow_and_density(pruned):
    params, masks, figure = pruned
    shares = sf.measure.neuron_flow(params, mlp, SHAPE, masks)["layer0/kernel"].into
    shares = np.sort(np.asarray(shares / shares.sum()))[::-1]
    colours = np.asarray(figure.axes[1].images[0].get_array())[:, 0]
    flow, weights = (key_of(axes) for axes in figure.axes[3:])
    near = {"atol": 0.02}  # one of 256 shades
    np.testing.assert_allclose(colours[len(colours) // 2], flow(shares[0]), **near)
    assert len(set(colours[0][:3].tolist())) == 1  # what has no flow is grey
    _, water, *_ = figure.axes[1].collections  # of the first layer, above its bed
    density = float(masks["layer0"]["kernel"].mean())
    np.testing.assert_allclose(water.get_facecolor()[0], weights(density), **near)
    grey = np.isclose(colours, colours[0]).all(1).mean()
    # Heights are square roots: of n units, k with flow fill the middle √(k/n).
    assert grey == pytest.approx(1 - np.sqrt((shares > 0).mean()), abs=2 / len(colours))
    for key in (flow, weights):
        light = [sum(key(share)[:3]) for share in (1e-4, 1e-3, 1e-2, 0.1, 1.0)]
        assert light == sorted(light, reverse=True)
        assert light[-1] < light[0]


@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        (".svg", lambda path: ElementTree.parse(path).getroot().tag.endswith("svg")),
        (".png", lambda path: image.imread(path).std() > 0.1),
        (".PDF", lambda path: path.read_bytes().rstrip().endswith(b"%%EOF")),
    ],
)
def test_the_file_is_valid_and_alone(tmp_path, pruned, suffix, read):
    params, masks, _ = pruned
    path = tmp_path / f"net{suffix}"
    path.write_text("before")
    figure = sf.visualize(params, masks, mlp, SHAPE, path)
    assert isinstance(figure, Figure)
    assert read(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path, pruned, monkeypatch):
    def fail(figure, path, **rest):
        path.write_text("half")
        raise OSError("full")

    params, masks, _ = pruned
    path = tmp_path / "net.svg"
    path.write_text("before")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="full"):
        sf.visualize(params, masks, mlp, SHAPE, str(path))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_that_died_is_drawn_empty(pruned):
    params, masks, _ = pruned
    dead = jax.tree.map(jnp.zeros_like, masks["layer1"])
    dead = masks | {"layer1": dead | {"bias": masks["layer1"]["bias"]}}
    figure = sf.visualize(params, dead, mlp, SHAPE)
    assert [title.endswith("no flow") for title in totals(figure)] == [False, True, True]
    assert set(counts(figure, 1)) == set(counts(figure, 2)) == {0}


def test_kernels_are_read_as_the_network_uses_them():
    shapes = {"conv": (3, 3, 2, 8), "grouped": (3, 3, 1, 8), "query": (8, 2, 4), "out": (2, 4, 6)}
    shapes |= {"torch": (5, 6), "experts": (3, 5, 7), "loose": (7, 3)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}

    def network(p, x):
        layout = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        x = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), **layout)
        x = jax.lax.conv_general_dilated(x, p["grouped"], (1, 1), feature_group_count=8, **layout)
        x = jnp.einsum(
            "bnhd,hdo->bno",
            jnp.einsum("bi,ihd->bhd", x.mean((1, 2)), p["query"])[:, None],
            p["out"],
        )
        x = jnp.einsum("bi,eio->beo", x[:, 0] @ p["torch"].T, p["experts"])
        return (x[..., None] * p["loose"][None, None]).sum()

    found = find_sides(params, network, (4, 4, 2))
    assert {name: tuple(side) for name, side in found.items()} == {
        "conv": ((2,), (3,)),
        "grouped": ((3,), (3,)),
        "query": ((0,), (1, 2)),
        "out": ((0, 1), (2,)),
        "torch": ((1,), (0,)),
        "experts": ((1,), (0, 2)),
        "loose": ((0,), (1,)),
    }


def test_heads_are_units_in_flow_mode():
    rng = np.random.default_rng(0)
    shapes = {"q": (6, 2, 4), "k": (6, 2, 4), "v": (6, 2, 4), "z": (2, 4, 3)}
    params = {n: jnp.asarray(rng.standard_normal(s), jnp.float32) for n, s in shapes.items()}

    def attention(p, x):
        q, k, v = (jnp.einsum("bti,ihd->bthd", x, p[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k), axis=-1)
        return jnp.einsum("bthd,hdo->bo", jnp.einsum("bhts,bshd->bthd", weights, v), p["z"])

    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks["z"] = masks["z"].at[1].set(False)  # the second head is not used
    figure = sf.visualize(params, masks, sf.flow_mode(attention), (5, 6))
    assert counts(figure, 0) == [6, 8, 8, 8, 3]
    assert counts(figure, 1) == counts(figure, 2) == [6, 4, 4, 4, 3]


@pytest.mark.parametrize("count", [1, 3, 14, 54])
def test_no_number_and_no_name_lies_upon_another(count):
    units = np.full(2048, 1 / 2048)
    layers = [Layer(f"stage{k}/block/conv/kernel", 10, 10, units, units) for k in range(count)]
    figure = draw([Network(name, tuple(layers), 1, 0.0) for name in ROWS])
    figure.draw_without_rendering()
    for axes in figure.axes[:3]:
        for texts in (axes.texts, axes.get_xticklabels()):
            boxes = [text.get_window_extent() for text in texts]
            assert all(one.x1 <= other.x0 + 1 for one, other in itertools.pairwise(boxes))
            assert all(box.x0 > -1 and box.y0 > -1 for box in boxes)
