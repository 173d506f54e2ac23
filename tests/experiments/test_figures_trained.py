"""Figures 1, 5 and 6: what is asked, rows, claims and pictures, on a tiny network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import fig1, fig5, fig6
from experiments.cells import plan as plans
from experiments.cells import trained
from experiments.cells.cell import Cell
from experiments.cells.describe import brief
from experiments.cells.iterative import Iterative
from experiments.data.dataset import load
from experiments.models import MODELS
from experiments.records import rows as store
from experiments.records.groups import DENSE
from experiments.records.machine import EXPERIMENTS, stamp
from experiments.training.optimiser import Budget
from experiments.training.settings import CIFAR_RESNET

pytestmark = pytest.mark.usefixtures("small_fc")
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def sixth(tmp_path_factory):
    """A finished smoke run of Figure 6."""
    out = tmp_path_factory.mktemp("fig6")
    config = fig6.Config(smoke=True, methods=("synflow", "snip", "magnitude"), out=out)
    fig6.main(config)
    return config


def test_a_figure_leaves_rows_and_pictures(sixth):
    config, rows = store.load(sixth.folder / "fig6.json")
    assert {"methods", "machine", "commit", "date"} <= config.keys()
    assert config["source"] == stamp(EXPERIMENTS)["source"] != stamp()["source"]
    assert [row["method"] for row in rows] == ["dense", *2 * ["synflow", "snip", "magnitude"]]
    assert [row["log10_rho"] for row in rows] == [0.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
    for row in rows:
        assert 0 <= row["top1_final"] <= row["top1_best"] <= row["top5_final"] + 1e-9 <= 1 + 1e-9
        # A dense layer uses each weight once an example, so that multiply-adds are kept weights.
        assert row["multiply_adds_per_layer"] == [*row["kept_per_layer"].values()]
        assert row["multiply_adds"] == row["kept"] == sum(row["kept_per_layer"].values())
        assert row["multiply_adds_dense"] == row["prunable"] == 64 * 20 + 20 * 10
        assert row["effective_density"] <= row["kept"] / row["prunable"] + 1e-6
    assert rows[0]["effective_density"] == 1
    for name in ("fig6", "fig6_effective"):
        assert (sixth.folder / f"{name}.png").read_bytes()[:4] == PNG


def test_a_finished_figure_needs_no_data_and_is_drawn_from_its_rows(sixth, monkeypatch, capsys):
    monkeypatch.setattr(plans, "load", None)
    before = (sixth.folder / "fig6.json").read_text()
    fig6.main(dataclasses.replace(sixth, draw=True))
    fig6.main(sixth)
    fig6.main(dataclasses.replace(sixth, seeds_at_once=1))  # nothing new: the head stays
    assert (sixth.folder / "fig6.json").read_text() == before
    assert "no method keeps all layers longer" in capsys.readouterr().out


def test_rows_of_another_precision_or_budget_are_not_drawn(sixth):
    path = sixth.folder / "fig6.json"
    assert len(trained.stored(path, fig6.tasks(sixth))) == 7
    for changes in ({"precision": "bfloat16"}, {"epochs": 2}):
        other = dataclasses.replace(sixth, **changes)
        assert trained.stored(path, fig6.tasks(other)) == []
        with pytest.raises(SystemExit, match="no rows of these settings"):
            fig6.main(dataclasses.replace(other, draw=True))


def test_rounds_are_as_asked_for_and_what_is_out_of_reach_is_left_out(tmp_path, capsys):
    methods = ("snip", "synflow-shuffled", "synflow-certified")
    fig1.main(fig1.Config(smoke=True, methods=methods, rounds=3, out=tmp_path))
    rows = store.read(tmp_path / "fig1.json")
    assert {row["method"]: row["rounds"] for row in rows} == {
        DENSE: 1,
        "snip": 3,
        "synflow-shuffled": 3,
        "synflow-certified": 0,
    }
    counts = {(row["log10_rho"], row["kept"]) for row in rows}
    # rho = 10^3.75 is beyond N / L of this network: one weight is kept.
    assert counts == {(0.0, 1480), (2.0, 15), (3.75, 1)}
    certified = [row["log10_rho"] for row in rows if row["method"] == "synflow-certified"]
    assert certified == [2.0]
    assert "synflow-certified at ρ = 5623 is left out: certified pruning stands" in (
        capsys.readouterr().out
    )


def test_iterative_pruning_and_layers_that_are_watched(tmp_path):
    fig5.main(fig5.Config(smoke=True, methods=("random-erk",), iterations=(1, 2), out=tmp_path))
    rows = store.read(tmp_path / "fig5.json")
    assert [(row["method"], row["rounds"]) for row in rows] == [
        ("dense", 1),
        ("random-erk", 1),
        ("imp", 1),
        ("imp", 2),
        ("xavier", 1),
    ]
    assert [row["kept"] for row in rows[1:4]] == [15, 15, 15]
    last = rows[-1]
    assert last["size_per_layer"] == {"Dense_0/kernel": 1280, "Dense_1/kernel": 200}
    begun, ended = np.array(last["mean_square_per_layer"])
    # Deviation of a mean of n squares of normal numbers: sqrt(2/n), at most 0.1 here; three of it.
    np.testing.assert_allclose(begun, [2 / 84, 2 / 30], rtol=0.3)
    assert not np.array_equal(begun, ended)
    assert (tmp_path / "fig5.png").read_bytes()[:4] == PNG


def test_one_iteration_keeps_the_largest_weights_of_the_dense_training():
    case = fig5.Config(seeds=1).case("fc", "digits", trained.SMOKE, examples=96)
    plan = plans.prepare(case, [], path=None)
    work = Iterative()
    ticks = []
    found = [
        work(Cell("imp", rho, 1), plan.networks, plan.trainer, lambda: ticks.append(0))
        for rho in (10.0, 100.0)
    ]
    level = work._begun[1]
    sizes = np.concatenate([np.ravel(abs(leaf["kernel"])) for leaf in _layers(level.trained)])
    for (one,), rho in zip(found, (10.0, 100.0), strict=True):
        kept = np.concatenate([np.ravel(leaf["kernel"]) for leaf in one.masks.values()])
        assert kept.sum() == round(1480 / rho + 0.49)
        assert sizes[kept].min() >= sizes[~kept].max()
    assert len(ticks) == 2


def _layers(variables):
    return [jax.tree.map(lambda leaf: leaf[0], layer) for layer in variables["params"].values()]


def test_a_long_training_is_stored_on_the_way_and_cleared_when_its_row_is_there(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(plans, "LONG", 1)
    case = fig6.Config(seeds=1).case("fc", "digits", trained.SMOKE, examples=96)
    budget = dataclasses.replace(trained.SMOKE, epochs=10)
    case = dataclasses.replace(case, budget=budget)
    plan = plans.prepare(case, [Cell(DENSE, 1.0, 1)], tmp_path / "rows.json")
    plan = dataclasses.replace(plan, checkpoints=tmp_path / "held")

    def killed(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plans.run(plan, Console(quiet=True), killed)
    (held,) = (tmp_path / "held").iterdir()
    assert held == plan.resume(plan.cells[0], [0]).folder
    plan.trainer._epochs = None  # all epochs are there: none is trained again
    (row,) = plans.run(plan, Console(quiet=True), brief)
    assert row["accuracy_best"] > 0.2
    assert not held.exists()


def test_settings_move_with_the_epochs_and_the_paper_s_come_first():
    quarter = fig6.Config(epochs=40, precision="bfloat16").fitted(CIFAR_RESNET)
    assert (quarter.epochs, quarter.drops, quarter.precision) == (40, (15, 30), "bfloat16")
    assert fig6.Config(epochs=2).fitted(CIFAR_RESNET).drops == (1,)
    assert fig6.Config().fitted(CIFAR_RESNET) == CIFAR_RESNET
    assert fig6.Config(epochs=2).fitted(trained.SMALL).drops is None
    full = fig6.tasks(fig6.Config())
    assert len(full) == 9
    assert {len(task.cells) for task in full} == {1 + 12 * 8}
    assert {task.case.model for task in full} >= {"vgg11", "vgg16-tiny", "resnet18"}
    assert [len(task.cells) for task in fig1.tasks(fig1.Config())] == [1 + 24 * 8]
    rounds = {cell.method: cell.rounds for cell in full[0].cells}
    assert (rounds["synflow"], rounds["snip"]) == (100, 1)
    rounds = {cell.method: cell.rounds for cell in fig1.tasks(fig1.Config())[0].cells}
    assert {name for name, count in rounds.items() if count == 100} == {
        *("synflow", "synflow-shuffled", "snip", "grasp")
    }


def test_a_budget_is_told_as_before_where_nothing_new_is_asked():
    case = plans.Case("fc", "digits", Budget(1, 2, 0.1, 0.0, None))
    told = case.settings(Cell("snip", 10.0), 0)
    assert told.keys().isdisjoint({"drops", "factor", "optimiser", "precision", "rounds"})
    other = dataclasses.replace(case, budget=CIFAR_RESNET, augmented=True)
    told = other.settings(Cell("snip", 10.0, 1), 0)
    assert (told["drops"], told["augmented"], told["rounds"]) == ([60, 120], True, 1)
    assert plans.decided({**told, "top1_best": 0.5, "config": "x"}) == told


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (fig6.Config, {"seeds": 0}, "seeds must be None or at least 1, got 0"),
        (fig6.Config, {"methods": ("best",)}, "methods must be one or more of"),
        (fig6.Config, {"small": True, "smoke": True}, "small and smoke must not both"),
        (fig6.Config, {"step": 0.0}, "step must be above 0"),
        (fig1.Config, {"rounds": 0}, "rounds must be at least 1, got 0"),
        (fig5.Config, {"iterations": ()}, "iterations must be one or more"),
        (fig5.Config, {"iterations": (1, 4)}, r"numbers of 1 to 3, got \(1, 4\)"),
    ],
)
def test_what_is_not_allowed_is_named(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


def test_scoring_on_augmented_images_keeps_the_drawn_ones_where_none_are(sixth):
    dataset = load("digits")
    plain, mixed = (
        plans.Network(MODELS["fc"](10), dataset, 0, augmented=augmented).batches
        for augmented in (False, True)
    )
    assert [len(labels) for _, labels in plain] == [len(labels) for _, labels in mixed] == [100]
    assert jnp.array_equal(jnp.sort(plain[0][1]), jnp.sort(mixed[0][1]))
    rows = [np.sort(np.asarray(x).reshape(100, -1), axis=0) for (x, _), *_ in (plain, mixed)]
    np.testing.assert_array_equal(*rows)
