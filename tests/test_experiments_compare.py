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
from experiments.common import rows as store
from experiments.common.models.fc import FC

ROOT = Path(__file__).parent.parent
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
from experiments.common.models.fc import FC
compare.MODELS["fc"] = partial(FC, width=20, depth=1)
compare.main(tyro.cli(compare.Config))
"""


@pytest.fixture(scope="module", autouse=True)
def _small():
    """One hidden layer, quick to compile; optax's cosine schedule mixes int and float."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):
        patch.setitem(compare.MODELS, "fc", partial(FC, width=20, depth=1))
        yield


def configured(out, **changes):
    return compare.dataclasses.replace(TINY, out=out, **changes)


def timeless(rows):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    compare.main(configured(out))
    return out


def test_a_comparison_leaves_rows_table_and_figure(finished):
    rows = store.read(finished / "rows.jsonl")
    assert len(rows) == 2 * (1 + 2 * 2)
    assert (finished / "figure.png").read_bytes()[:4] == b"\x89PNG"
    text = (finished / "table.txt").read_text()
    assert "magnitude" in text
    assert "†" in text
    for row in rows:
        assert (
            row["kept"] == -(-row["prunable"] // row["rho"]) == sum(row["kept_per_layer"].values())
        )
        assert row["accuracy"] <= row["accuracy_best"] <= 1
        assert bool(row["collapsed"]) == (0 in row["kept_per_layer"].values())


def test_every_method_prunes_to_the_same_count(tmp_path):
    methods = compare.Config().methods
    config = configured(tmp_path, methods=methods, rho=(10.0,), seeds=1, examples=256)
    rows = compare.run(config, Console(quiet=True))
    assert [row["method"] for row in rows] == ["dense", *methods]
    assert {row["kept"] for row in rows[1:]} == {-(-rows[0]["prunable"] // 10)}
    by_method = {row["method"]: row for row in rows}
    assert by_method["synflow"]["kept_per_layer"] == by_method["synflow-shuffled"]["kept_per_layer"]
    assert by_method["synflow"]["log10_flow"] > by_method["synflow-shuffled"]["log10_flow"]


def test_a_finished_comparison_is_only_read(finished, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(compare, "run_cell", refuse)
    before = store.read(finished / "rows.jsonl")
    assert compare.run(configured(finished), Console(quiet=True)) == before


def test_another_configuration_is_not_mixed_in(finished, tmp_path):
    before = store.read(finished / "rows.jsonl")
    store.write(tmp_path / "rows.jsonl", before)
    config = configured(tmp_path, methods=("magnitude",), rho=(4.0,), weight_decay=0.5)
    rows = compare.run(config, Console(quiet=True))
    assert len(rows) == 4
    assert {row["weight_decay"] for row in rows} == {0.5}
    assert store.read(tmp_path / "rows.jsonl") == before + rows


def test_a_killed_comparison_goes_on_and_ends_the_same(finished, tmp_path):
    command = [sys.executable, "-c", SCRIPT, *FLAGS.split(), "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    path = tmp_path / "rows.jsonl"
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 120
        while not path.exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    stored = store.read(path)
    whole = store.read(finished / "rows.jsonl")
    assert 0 < len(stored) < len(whole)
    compare.main(configured(tmp_path))
    ended = store.read(path)
    assert ended[: len(stored)] == stored
    assert timeless(ended) == timeless(whole)
    tables = [
        (out / "table.txt").read_text().split("Accuracy in")[1] for out in (finished, tmp_path)
    ]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("name", ["seeds", "epochs", "batch_size"])
def test_a_count_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        compare.Config(**{name: 0})


def test_the_default_grid_ends_at_the_maximal_compression(tmp_path):
    params = {
        "a": {"kernel": jax.numpy.ones((100, 50))},
        "b": {"kernel": jax.numpy.ones((50, 100))},
    }
    assert compare.grid(configured(tmp_path, rho=()), params) == pytest.approx(
        [10**0.5, 10, 10**1.5, 100, 10**2.5, 1000, 10**3.5]
    )
