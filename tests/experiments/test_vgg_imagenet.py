"""ImageNet's VGG, and what the committed results of the figures about it must agree with."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from experiments import fig2, fig3, fig4, fig7
from experiments.cells.initial import Config, Start, network_order
from experiments.cells.scored import METHODS, ScoredConfig
from experiments.models.vgg_imagenet import VGGImageNet
from experiments.records import rows as store

RESULTS = Path(fig2.__file__).parent / "results"


@pytest.fixture(scope="module")
def start():
    return Start(Config(smoke=True))


def test_imagenets_vgg_has_the_weights_of_the_paper():
    shapes = jax.eval_shape(
        lambda: VGGImageNet(1000).init(jax.random.key(0), jnp.ones((1, 224, 224, 3)))
    )["params"]
    flat = traverse_util.flatten_dict(shapes, sep="/")
    kernels = [flat[path] for path in network_order(flat) if path.endswith("kernel")]
    assert sum(kernel.size for kernel in kernels) == 143_652_544
    assert len(kernels) == 19
    assert [kernel.shape for kernel in kernels[-3:]] == [(25088, 4096), (4096, 4096), (4096, 1000)]
    units = [kernel.shape[-1] for kernel in kernels[:15]]
    assert sum(units) == 4992


@pytest.mark.parametrize(
    ("depth", "count"), [(11, 132_851_392), (13, 133_035_712), (16, 138_344_128)]
)
def test_shallower_vggs_have_torchvisions_counts(depth, count):
    # torchvision's parameters, less the biases of the convolutions and of 4096 + 4096 + 1000 units.
    model = VGGImageNet(1000, depth=depth)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.ones((1, 224, 224, 3))))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim > 1) == count


def test_initialisation_is_torchvisions(start):
    flat = traverse_util.flatten_dict(start.params, sep="/")
    # Deviations of 9,216 and 928 draws are known to 0.8 and 2.4 percent.
    dense = [leaf.ravel() for path, leaf in flat.items() if path.startswith("Dense")]
    kernels = np.concatenate([leaf for leaf in dense if leaf.any()])
    np.testing.assert_allclose(jnp.std(flat["Conv_7/kernel"]), math.sqrt(2 / (9 * 32)), rtol=0.03)
    np.testing.assert_allclose(np.std(kernels), 0.01, rtol=0.1)
    assert not any(leaf.any() for path, leaf in flat.items() if path.endswith("bias"))


def test_dropout_is_on_in_training_only(start):
    model, x = start.config.model, jnp.ones((2, 32, 32, 3))
    variables = {"params": start.params}
    still = model.apply(variables, x)
    np.testing.assert_array_equal(still, start.apply_fn(start.params, x))
    rngs = {"dropout": jax.random.key(1)}
    assert not jnp.allclose(still, model.apply(variables, x, train=True, rngs=rngs))


def test_images_that_the_pools_would_empty_are_refused():
    with pytest.raises(ValueError, match="images of 32×32 or more, got \\(31, 40\\)"):
        VGGImageNet(10).init(jax.random.key(0), jnp.ones((1, 31, 40, 3)))


def committed(name):
    return store.load(RESULTS / f"{name}.json")[1]


@pytest.mark.parametrize("name", ["fig3", "fig4"])
def test_the_committed_rows_are_of_every_method(name):
    config = ScoredConfig()
    expected = {method: store.fingerprint(config.of_method(method)) for method in METHODS}
    assert len(committed(name)) == 5
    assert {row["method"]: row["config"] for row in committed(name)} == expected


def test_the_committed_masks_are_of_every_method():
    rows = committed("fig2")
    for cells in fig2.groups(ScoredConfig()):
        mine = [row["config"] for row in rows if row["method"] == cells[0]["method"]]
        asked = [store.fingerprint(cell) for cell in cells]
        assert mine == asked


def test_the_committed_shares_are_of_runs_that_are_asked_for():
    rows = committed("fig7")
    asked = [store.fingerprint(cell) for cells in fig7.groups(fig7.SweepConfig()) for cell in cells]
    assert {row["config"] for row in rows} <= set(asked)
    found = {(row["schedule"], row["log10_rho"], row["rounds"]): row for row in rows}
    for half in fig7.HALF_DECADES:  # one round is the same on both schedules
        once = [found[name, half / 2, 1]["max_prune_to_cut"] for name in fig7.SCHEDULES]
        assert once[0] == once[1]
    # Below 1, no round can have cut the network; and none did.
    assert not [row for row in rows if row["max_prune_to_cut"] < 1 and row["flow_died_in_round"]]


def test_the_committed_figure_3_has_every_unit():
    for row in committed("fig3"):
        into, out_of = (np.concatenate(row[name]) for name in ("into", "out_of"))
        assert into.shape == out_of.shape == (4992,)
        gaps = fig3.relative_gap(into, out_of)
        # Of sums with four digits.
        assert np.median(gaps) == pytest.approx(row["median_gap"], rel=0.05, abs=1e-3)


def test_the_committed_magnitudes_are_those_of_the_initialisation():
    row = next(row for row in committed("fig4") if row["method"] == "magnitude")
    channels = np.repeat([64, 128, 256, 512], [2, 2, 4, 8])
    deviations = np.concatenate([np.sqrt(2 / (9 * channels)), [0.01] * 3])
    means = np.array([*row["mean_per_layer"].values()])
    assert sum(row["prunable_per_layer"].values()) == 143_652_544
    # Four standard errors of a mean of |N(0, 1)|, relative to it: √(π/2 − 1) of one draw.
    errors = 4 * math.sqrt(math.pi / 2 - 1) / np.sqrt([*row["prunable_per_layer"].values()])
    assert (np.abs(means / (math.sqrt(2 / math.pi) * deviations) - 1) < errors).all()


def test_the_committed_synflow_carries_the_same_flow_through_every_layer():
    row = next(row for row in committed("fig4") if row["method"] == "synflow")
    pairs = zip(row["mean_per_layer"].values(), row["prunable_per_layer"].values(), strict=True)
    flows = np.array([mean * size for mean, size in pairs])
    np.testing.assert_allclose(flows, flows.mean(), rtol=1e-5)


def test_the_committed_masks_keep_what_was_asked():
    for row in committed("fig2"):
        sizes, kept = (np.array([*row[f"{x}_per_layer"].values()]) for x in ("prunable", "kept"))
        assert kept.sum() == -(-143_652_544 // row["rho"])
        if row["method"] == "random":
            # Within five deviations of a binomial count, and what a count of 1 may be off.
            spread = 5 * np.sqrt(sizes / row["rho"]) + 5
            assert (np.abs(kept - sizes / row["rho"]) < spread).all()


def masks(**layers):
    """Rows of two layers: how many weights the second one keeps at ρ = 1, 4, 16 …."""
    return [
        {
            "method": method,
            "rho": rho,
            "kept_per_layer": {"a": 1, "b": b},
            "prunable_per_layer": {"a": 4**12, "b": 4**12},
        }
        for method, kept in layers.items()
        for rho, b in zip(fig2.RATIOS, kept, strict=False)
    ]


def test_collapse_is_read_off_the_rows():
    rows = masks(snip=[1, 0, 0], synflow=[2, 2, 2])
    assert fig2.collapsed(rows[1]) == [2]
    assert fig2.first_collapse(rows, "snip") == 4
    assert fig2.first_collapse(rows, "synflow") == math.inf


def test_nothing_is_claimed_beyond_the_rows():
    most = "(at most 1.678e+07 can be reached)"
    claimed = list(fig2.claims(masks(random=[1, 0], snip=[1, 1, 0], grasp=[1, 1], synflow=[1, 1])))
    assert claimed == [
        (f"SynFlow empties no layer up to 4, its rows end at 4 {most}", True),
        ("random empties a layer before SynFlow: first at 4, its rows end at 4", True),
        ("SNIP empties a layer: first at 16, its rows end at 16", True),
        ("GraSP empties a layer: none up to 4, its rows end at 4", False),
    ]
    first = dict(fig2.claims(masks(snip=[1, 1, 0], synflow=[1, 0])))
    assert list(first.values()) == [False, False]


def test_all_is_claimed_of_all_rows():
    claimed = list(fig2.claims(masks(snip=[1] * 11 + [0], synflow=[1] * 12)))
    assert claimed == [
        ("SynFlow empties no layer up to 4194304 (at most 1.678e+07 can be reached)", True),
        ("SNIP empties a layer before SynFlow: first at 4194304", True),
    ]


def test_rounds_are_claimed_as_far_as_they_go():
    cells = [(1, 1, 5.0), (1, 10, 0.5), (2, 1, 7.0)]
    rows = [
        {"schedule": "linear", "log10_rho": rho, "rounds": rounds, "max_prune_to_cut": share}
        for rho, rounds, share in cells
    ]
    assert [claim for claim, _ in fig7.claims(rows)] == [
        "linear: the largest share falls as the rounds grow in number, up to 1 to 10, "
        "at the 2 ρ that are there",
        "linear: 1 to 10 rounds are certified at the 2 ρ that are there (they are at 10^1)",
    ]
    assert [good for _, good in fig7.claims(rows)] == [True, False]


@pytest.mark.parametrize("module", [fig2, fig3, fig4])
def test_stored_rows_are_drawn_and_none_is_made(module, tmp_path, monkeypatch, capsys):
    name = module.__name__.rpartition(".")[2]
    config, rows = store.load(RESULTS / f"{name}.json")
    path = tmp_path / f"{name}.json"
    store.write(path, [row for row in rows if row["method"] != "random"][:-1], config)
    monkeypatch.setattr(module, "make", None)
    before = path.read_bytes()
    module.main(ScoredConfig(draw=True, out=tmp_path))
    assert path.read_bytes() == before
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert f"of {60 if module is fig2 else 5} rows are in" in capsys.readouterr().out


def test_where_nothing_is_stored_nothing_is_drawn(tmp_path, capsys):
    with pytest.raises(SystemExit):
        fig7.main(fig7.SweepConfig(draw=True, out=tmp_path))
    assert "without --draw they are made" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
