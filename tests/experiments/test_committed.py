"""The committed rows are those that the commands ask for: their fingerprints, without any data."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from experiments import compare, fig1, fig5, fig6
from experiments.cells import trained
from experiments.cells.plan import Plan
from experiments.compare import Config
from experiments.models import MODELS
from experiments.records import rows as store
from experiments.records.claims import critical
from experiments.records.groups import by_compression, mean

SHAPES = {"digits": (8, 8, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def params_of(case):
    """The shapes of a network: all of it that a fingerprint sees."""
    images = jnp.ones((1, *SHAPES[case.dataset]))
    return jax.eval_shape(MODELS[case.model](10).init, jax.random.key(0), images)["params"]


def keys_of(case, cells):
    """The fingerprints under which a command looks for its rows."""
    plan = Plan(case, [SimpleNamespace(params=params_of(case))], None, cells, Path())
    return {plan.key(cell, seed) for cell in cells for seed in range(case.seeds)}


@pytest.mark.parametrize("figure", [fig1, fig5, fig6])
def test_a_figure_finds_all_its_rows_and_makes_none_again(figure):
    path = trained.RESULTS / f"{figure.__name__.rpartition('.')[2]}.json"
    rows, tasks = store.read(path), figure.tasks(figure.Config(small=True))
    wanted = set().union(*(keys_of(task.case, task.cells) for task in tasks))
    assert {row["config"] for row in rows} == wanted
    drawn = trained.stored(path, tasks)
    assert len(drawn) == len(rows)
    assert {row["config"] for row in drawn} == wanted


def test_rows_say_how_often_a_method_looked():
    rows = store.read(trained.RESULTS / "fig1.json")
    assert {row["method"]: row["rounds"] for row in rows} == {
        "dense": 1,
        **dict.fromkeys(("magnitude", "random", "random-erk"), 1),
        **dict.fromkeys(("synflow", "synflow-shuffled", "snip", "grasp"), 100),
        "synflow-certified": 0,  # its own count
    }


@pytest.mark.parametrize("name", ["cifar10-fc", "fashion_mnist-fc"])
def test_a_comparison_finds_all_its_rows(name):
    path = trained.RESULTS / "compare" / name / "rows.json"
    head, rows = store.load(path)
    asked = {name: head[name] for name in head.keys() - {"version", "recipe", "date"}}
    ratios = tuple(sorted({row["rho"] for row in rows} - {1.0}))
    config = Config(**asked, seeds=len({row["seed"] for row in rows}), rho=ratios)
    cells = compare._cells(config, params_of(config.case))
    assert len(rows) == config.seeds * len(cells)
    assert {row["config"] for row in rows} == keys_of(config.case, cells)


def test_what_is_said_of_the_small_figure_1_is_in_its_rows():
    rows = store.read(trained.RESULTS / "fig1.json")
    names = ("synflow", "grasp", "snip", "random", "magnitude")
    assert [critical(rows, name) for name in names] == [3.75, 3.75, 3.25, 3.25, 2.25]
    groups = by_compression(rows, "grasp")
    low = [row["top1_best"] for x in groups if 0 < x <= 1 for row in groups[x]]
    assert (round(min(low), 2), round(max(low), 2)) == (0.10, 0.13)
    assert round(mean(groups[1.5]), 2) == 0.71
    assert not any(row["collapsed"] for x in groups for row in groups[x])
