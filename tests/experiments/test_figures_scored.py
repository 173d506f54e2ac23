import io

import jax
import numpy as np
import pytest
from flax import traverse_util
from rich.console import Console

from experiments import fig2, fig3, fig4, fig7
from experiments.cells import figure
from experiments.cells.figure import Figure
from experiments.cells.initial import Config, Start, network_order
from experiments.cells.scored import METHODS, ScoredConfig, batches, scores
from experiments.records import rows as store
from synflow_jax import cross_entropy, prune
from synflow_jax.measure import neuron_flow

FIGURES = {
    "fig2": (fig2, ScoredConfig),
    "fig3": (fig3, ScoredConfig),
    "fig4": (fig4, ScoredConfig),
    "fig7": (fig7, fig7.SweepConfig),
}
FEW = {"fig2": 5 * 12, "fig3": 5, "fig4": 5, "fig7": 2 * 6 * 2}
LAYERS = 11


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Few rounds, as many as of figure 7; images are brought to another size in mixed dtypes."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setattr(fig2, "ROUNDS", 4)
        yield


def configured(name, out, **changes):
    kind = FIGURES[name][1]
    parts = {"rounds": (2, 4)} if name == "fig7" else {"dataset": "digits", "keep": out / "kept"}
    return kind(smoke=True, out=out, **{**parts, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    for name, (module, _) in FIGURES.items():
        module.main(configured(name, out))
    return out


@pytest.fixture(scope="module")
def start():
    return Start(Config(smoke=True))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_leaves_rows_and_a_picture(finished, name):
    config, rows = store.load(finished / f"{name}.json")
    assert config["smoke"] is True
    assert len(rows) == FEW[name]
    assert (finished / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", FIGURES)
def test_a_finished_figure_is_drawn_from_its_rows_alone(
    finished, name, monkeypatch, capsys, tmp_path
):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(FIGURES[name][0], "make", refuse)
    FIGURES[name][0].main(configured(name, finished))
    said = capsys.readouterr().out
    assert "yes  " in said
    assert f"{name}.png" in said


def test_images_are_brought_to_the_size_of_the_network(tmp_path):
    config = configured("fig3", tmp_path)
    found = batches(config)
    images, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert images.shape == (100, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels), [10] * 10)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    # Bilinear weights at a scale of 4 are symmetric, and pixels at the border are repeated.
    corner = images[:, :2, :2].reshape(100, -1)
    np.testing.assert_allclose(corner, np.broadcast_to(corner[:, :1], corner.shape), rtol=1e-5)
    again = batches(config)
    np.testing.assert_array_equal(again[3][0], found[3][0])
    assert not np.array_equal(batches(configured("fig3", tmp_path, seed=1))[3][0], found[3][0])


def test_scores_that_were_kept_are_read(finished, start, monkeypatch):
    config = configured("fig3", finished)
    monkeypatch.setattr("experiments.cells.scored._saliency", None)
    kept = {method: scores(method, start, config) for method in METHODS}
    paths = [list(found) for found in kept.values()]
    assert paths == [network_order(paths[0])] * len(METHODS)
    flat = traverse_util.flatten_dict(start.params, sep="/")
    for path, found in kept["magnitude"].items():
        np.testing.assert_array_equal(found, np.abs(flat[path]))
    normal = np.concatenate([found.ravel() for found in kept["random"].values()])
    # 37,000 draws: three standard errors are 0.016 and 0.011.
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.015


def test_sums_of_synflow_are_the_flow_of_the_units(finished, start):
    flows = neuron_flow(start.params, start.apply_fn, start.config.shape)
    row = store.read(finished / "fig3.json")[METHODS.index("synflow")]
    for layer, (into, out_of) in enumerate(zip(row["into"], row["out_of"], strict=True)):
        # Four digits are stored.
        np.testing.assert_allclose(into, flows[f"Conv_{layer}/kernel"].into, rtol=6e-4)
        np.testing.assert_allclose(out_of, flows[f"Conv_{layer + 1}/kernel"].out_of, rtol=6e-4)
    assert row["largest_gap"] < 1e-5


def test_grasp_breaks_conservation_by_squared_gradients(finished, start):
    config = configured("fig3", finished)
    loss = cross_entropy(start.apply_fn, 200.0)
    gradient = jax.jit(jax.grad(loss))
    parts = [gradient(start.params, batch) for batch in batches(config)]
    total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    squares = {path: value**2 for path, value in traverse_util.flatten_dict(total, sep="/").items()}
    order = [path for path in network_order(squares) if path.endswith("kernel")]
    expected = fig3.unit_sums({path: np.asarray(squares[path]) for path in order})
    found = fig3.unit_sums(scores("grasp", start, config))
    for (s_in, s_out), (g_in, g_out) in zip(
        zip(*found, strict=True), zip(*expected, strict=True), strict=True
    ):
        # The difference of sums that nearly agree, in float32.
        scale = np.abs(s_in).max()
        np.testing.assert_allclose(s_in - s_out, g_out - g_in, atol=1e-4 * scale)


def test_snip_would_be_conserved_without_absolute_values(finished, start):
    gradient = jax.jit(jax.grad(cross_entropy(start.apply_fn)))
    parts = [gradient(start.params, batch) for batch in batches(configured("fig3", finished))[:2]]
    signed = jax.tree.map(lambda theta, a, b: theta * (a + b), start.params, *parts)
    flat = traverse_util.flatten_dict(signed, sep="/")
    order = [path for path in network_order(flat) if path.endswith("kernel")]
    for s_in, s_out in zip(
        *fig3.unit_sums({path: np.asarray(flat[path]) for path in order}), strict=True
    ):
        # Sums of terms of both signs, in float32.
        np.testing.assert_allclose(s_in, s_out, atol=1e-4 * np.abs(s_in).max())


def test_gaps_are_relative():
    into, out_of = np.array([1.0, 2.0, 0.0, -1.0]), np.array([1.0, 1.0, 0.0, 1.0])
    np.testing.assert_array_equal(fig3.relative_gap(into, out_of), [0, 0.5, 0, 2])


def test_one_shot_masks_keep_the_highest_of_all_layers(finished, start):
    config = configured("fig2", finished)
    rows = store.read(finished / "fig2.json")
    for row in rows:
        size = sum(row["prunable_per_layer"].values())
        assert sum(row["kept_per_layer"].values()) == -(-size // row["rho"])
        assert len(row["kept_per_layer"]) == LAYERS
    for method in ("magnitude", "grasp"):
        found = scores(method, start, config)
        ranked = np.sort(np.concatenate([score.ravel() for score in found.values()]))[::-1]
        row = next(row for row in rows if row["method"] == method and row["rho"] == 16)
        cut = ranked[sum(row["kept_per_layer"].values()) - 1]
        counted = {path: int((score >= cut).sum()) for path, score in found.items()}
        assert counted == row["kept_per_layer"]


@pytest.mark.parametrize("power", [1.0, 0.5, -0.25])
def test_slopes_are_those_of_power_laws(power):
    sizes = {str(i): 4**i for i in range(1, 8)}
    means = {path: -3 * size**-power for path, size in sizes.items()}
    found = fig4.slope({"prunable_per_layer": sizes, "mean_per_layer": means})
    assert found == pytest.approx(power)


@pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning")
def test_runs_that_begin_alike_are_made_once(finished, start):
    config = configured("fig7", finished)
    cells = [cell for group in fig7.groups(config) for cell in group]
    keys = {(cell["schedule"], cell["log10_rho"], cell["rounds"]) for cell in cells}
    assert len(cells) == len(keys) == 24
    assert len(fig7.groups(config)) == 24 - 3
    begun = {
        row["log10_rho"]: row
        for row in store.read(finished / "fig7.json")
        if row["schedule"] == "exponential" and row["rounds"] == 2
    }
    for log10_rho in (0.5, 1.5):
        info = prune(start.params, start.saliency, 10**log10_rho, 2)[1]
        share = float(info.share.max())
        assert begun[log10_rho]["max_prune_to_cut"] == pytest.approx(share, rel=1e-5)


def test_runs_of_few_rounds_come_first():
    found = fig7.groups(fig7.SweepConfig())
    longest = [max(cell["rounds"] for cell in group) for group in found]
    assert longest[:12] == [1] * 12
    assert longest[-1] == max(longest) == 100


def test_a_stopped_figure_does_only_what_is_missing(tmp_path):
    made = []

    def make(cells):
        for cell in cells:
            if len(made) == 3:
                raise KeyboardInterrupt
            made.append(cell["x"])
            yield {"y": cell["x"] ** 2}

    groups = [[{"x": 1}, {"x": 2}], [{"x": 3}, {"x": 4}]]
    parts = "toy", groups, make, lambda rows, path: None, lambda rows: iter(())
    path, console = tmp_path / "toy.json", Console(file=io.StringIO())
    config = Config(smoke=True, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        figure.complete(Figure(*parts), config, path, console)
    assert [row["y"] for row in figure.stored(Figure(*parts), path)] == [1, 4, 9]
    made.append(0)
    rows = figure.complete(Figure(*parts), config, path, console)
    assert made == [1, 2, 3, 0, 4]
    assert [row["y"] for row in rows] == [1, 4, 9, 16]
    before = path.read_bytes()
    figure.complete(
        Figure(*parts), Config(smoke=True, out=tmp_path / "other", seed=7), path, console
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (ScoredConfig, {"seed": -1}, "seed must be at least 0, got -1"),
        (fig7.SweepConfig, {"seed": -1}, "seed must be at least 0, got -1"),
        (fig7.SweepConfig, {"rounds": ()}, "rounds must be one or more numbers from 1"),
        (fig7.SweepConfig, {"rounds": (3, 0)}, "got \\(3, 0\\)"),
    ],
)
def test_what_is_not_allowed_is_named(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


def test_what_cannot_be_written_ends_without_a_traceback(finished, capsys):
    with pytest.raises(SystemExit) as caught:
        fig4.main(configured("fig4", finished / "fig4.png"))
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
