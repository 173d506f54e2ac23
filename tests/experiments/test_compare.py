import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import pytest
from rich.console import Console

from experiments import compare
from experiments.cells import plan as plans
from experiments.cells.cell import Cell
from experiments.models import MODELS
from experiments.models.fc import FC
from experiments.records import rows as store

ROOT = Path(__file__).parents[2]
TINY = compare.Config(
    model="fc",
    methods=("synflow", "magnitude"),
    rho=(4.0, 400.0),
    seeds=2,
    epochs=1,
    examples=96,
)
FLAGS = "--model fc --methods synflow magnitude --rho 4 400 --seeds 2 --epochs 1 --examples 96"
TIMES = ("seconds", "train_seconds")


SCRIPT = """
from functools import partial
import tyro
from experiments import compare
from experiments.models import MODELS
from experiments.models.fc import FC
MODELS["fc"] = partial(FC, width=20, depth=1)
compare.main(tyro.cli(compare.Config))
"""


@pytest.fixture(scope="module", autouse=True)
def _small():
    """One hidden layer, quick to compile; optax's cosine schedule mixes int and float."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setitem(MODELS, "fc", partial(FC, width=20, depth=1))
        yield


def configured(out, **changes):
    return dataclasses.replace(TINY, out=out, **changes)


def quietly(config):
    return compare.run(compare.prepare(config), Console(quiet=True))


def timeless(rows):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    compare.main(configured(out))
    return out


def test_a_comparison_leaves_rows_table_and_figure(finished):
    rows = store.read(finished / "rows.json")
    assert len(rows) == 2 * (1 + 2 * 2)
    assert (finished / "figure.png").read_bytes()[:4] == b"\x89PNG"
    text = (finished / "table.txt").read_text(encoding="utf-8")
    assert "magnitude" in text
    assert "†" in text
    for row in rows:
        assert (
            row["kept"] == -(-row["prunable"] // row["rho"]) == sum(row["kept_per_layer"].values())
        )
        assert row["accuracy"] <= row["accuracy_best"] <= 1
        assert not row["diverged"]
        assert bool(row["collapsed"]) == (0 in row["kept_per_layer"].values())


def test_every_method_prunes_to_the_same_count(tmp_path):
    methods = compare.Config().methods
    config = configured(tmp_path, methods=methods, rho=(10.0,), seeds=1, examples=256)
    rows = quietly(config)
    assert [row["method"] for row in rows] == ["dense", *methods]
    assert {row["kept"] for row in rows[1:]} == {-(-rows[0]["prunable"] // 10)}
    by_method = {row["method"]: row for row in rows}
    assert by_method["synflow"]["kept_per_layer"] == by_method["synflow-shuffled"]["kept_per_layer"]
    assert by_method["synflow"]["log10_flow"] > by_method["synflow-shuffled"]["log10_flow"]


def test_a_finished_comparison_is_only_read(finished, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(plans, "run_cell", refuse)
    before = store.read(finished / "rows.json")
    assert quietly(configured(finished)) == before


def test_another_configuration_is_not_mixed_in(finished, tmp_path):
    before = store.read(finished / "rows.json")
    store.write(tmp_path / "rows.json", before)
    config = configured(tmp_path, methods=("magnitude",), rho=(4.0,), weight_decay=0.5)
    console = Console(file=io.StringIO(), width=100)
    rows = compare.run(compare.prepare(config), console)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["dense", "magnitude"]
    assert len(rows) == 4
    assert {row["weight_decay"] for row in rows} == {0.5}
    assert store.read(tmp_path / "rows.json") == before + rows


def test_a_killed_comparison_goes_on_and_ends_the_same(finished, tmp_path):
    command = [sys.executable, "-c", SCRIPT, *FLAGS.split(), "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    path = tmp_path / "rows.json"
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 120
        while not store.read(path) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    stored = store.read(path)
    whole = store.read(finished / "rows.json")
    assert 0 < len(stored) < len(whole)
    compare.main(configured(tmp_path))
    ended = store.read(path)
    assert ended[: len(stored)] == stored
    assert timeless(ended) == timeless(whole)
    tables = [
        (out / "table.txt").read_text(encoding="utf-8").split("Accuracy in")[1]
        for out in (finished, tmp_path)
    ]
    assert tables[0] == tables[1]


def test_the_same_ratio_or_method_twice_is_one_cell(finished):
    twice = {"rho": (400.0, 10**0.60206, 4.0), "methods": ("magnitude", "synflow", "magnitude")}
    cells = compare.prepare(configured(finished, **twice)).cells
    once = compare.prepare(configured(finished)).cells
    assert len(cells) == len(once) == 5
    assert {(cell.method, cell.log10_rho) for cell in cells} == {
        (cell.method, cell.log10_rho) for cell in once
    }
    keys = [
        configured(finished).case.settings(Cell("snip", rho), 0) for rho in (31.6227766, 10**1.5)
    ]
    assert keys[0] == keys[1]


def test_another_network_of_the_same_name_is_another_configuration(finished, monkeypatch):
    plan = compare.prepare(configured(finished))
    monkeypatch.setitem(MODELS, "fc", partial(FC, width=21, depth=1))
    wider = compare.prepare(configured(finished))
    assert plan.key(plan.cells[0], 0) != wider.key(plan.cells[0], 0)


def test_a_diverged_network_is_seen(tmp_path):
    wild = {"methods": ("magnitude",), "rho": (4.0,), "seeds": 1, "clip": None}
    rows = quietly(configured(tmp_path, learning_rate=1e30, **wild))
    assert [row["diverged"] for row in rows] == [True, True]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rho", (10.0, 0.1), "rho must be finite and at least 1, got 0.1; .* is rho 10"),
        ("rho", (float("inf"),), "rho must be finite"),
        ("rho", (float("nan"),), "rho must be finite"),
        ("seeds", 0, "seeds must be at least 1, got 0"),
        ("epochs", 0, "epochs must be at least 1, got 0"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("examples", 0, "examples must be None or at least 1, got 0"),
        ("seeds_at_once", 0, "seeds_at_once must be None or at least 1, got 0"),
        ("learning_rate", 0.0, "learning_rate must be finite and above 0, got 0.0"),
        ("weight_decay", -1.0, "weight_decay must be finite and at least 0, got -1.0"),
        ("clip", 0.0, "clip must be None or above 0, got 0.0"),
        ("methods", (), "methods must be one or more of"),
        ("methods", ("best",), "methods must be one or more of .* got .'best'"),
        ("model", "mlp", "model must be one of .* got 'mlp'"),
    ],
)
def test_what_is_not_allowed_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        compare.Config(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 97}, "batch_size must be 1 to 96"),
        ({"examples": 1438}, "examples must be 1 to 1437"),
        ({"model": "vgg11"}, "16×16"),
        ({"methods": ("snip",)}, "at least 10 of every class"),
        ({"out": Path(__file__)}, "exists"),
    ],
)
def test_what_does_not_fit_ends_before_training_without_a_traceback(
    tmp_path, capsys, changes, message
):
    with pytest.raises(SystemExit) as caught:
        compare.main(configured(**{"out": tmp_path, **changes}))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_the_default_grid_ends_at_the_maximal_compression(tmp_path):
    params = {
        "a": {"kernel": jax.numpy.ones((100, 50))},
        "b": {"kernel": jax.numpy.ones((50, 100))},
    }
    assert compare.grid(configured(tmp_path, rho=()), params) == pytest.approx(
        [10**0.5, 10, 10**1.5, 100, 10**2.5, 1000, 10**3.5]
    )
