import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import decoder
from experiments.cells.decoder import start
from experiments.data import text
from experiments.decoder import Config
from experiments.draw import decoder as decoder_report
from experiments.models.decoder import Decoder
from experiments.records import rows as store

ROOT = Path(__file__).parents[2]
SMOKE = Config(smoke=True, methods=("synflow", "random-erk"))


@pytest.fixture(scope="module", autouse=True)
def _as_a_user():
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix int and float
        yield


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """The plan of a smoke run that is done."""
    plans, prepare = [], decoder.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "prepare", lambda config: plans.append(prepare(config)) or plans[0])
        out = tmp_path_factory.mktemp("smoke")
        decoder.main(decoder.dataclasses.replace(SMOKE, out=out))
    return plans[0]


@pytest.fixture
def finished(plan):
    return plan.path.parent


def test_a_comparison_leaves_rows_tables_and_figure(finished):
    rows = store.read(finished / "rows.json")
    assert [row["method"] for row in rows] == ["dense", *SMOKE.methods]
    assert rows[0]["kept"] == rows[0]["prunable"]
    for row in rows[1:]:
        assert row["kept"] == -(-row["prunable"] // 4) == sum(row["kept_per_layer"].values())
        assert 0 < row["bits"] < 10
        assert row["collapsed"] == [k for k, n in row["kept_per_layer"].items() if n == 0]
    assert (finished / "figure.png").read_bytes()[:4] == b"\x89PNG"
    written = (finished / "table.txt").read_text(encoding="utf-8")
    assert "attention0/out" in written
    assert f"dense: {rows[0]['bits']:.3f}" in written


def test_a_stopped_comparison_does_only_what_is_missing(finished, tmp_path, monkeypatch):
    whole = store.read(finished / "rows.json")
    store.write(tmp_path / "rows.json", whole[:-1])
    asked = []
    once = lambda cell, *_: asked.append(cell.method) or {"bits": None}
    monkeypatch.setattr(decoder, "run_one", once)
    plan = decoder.prepare(decoder.dataclasses.replace(SMOKE, out=tmp_path))
    rows = decoder.run(plan, Console(quiet=True))
    assert asked == ["random-erk"]
    assert rows[:-1] == whole[:-1]
    assert rows[-1]["config"] == whole[-1]["config"]


def row(method, rho, bits, kept=1):
    return {
        **{"method": method, "log10_rho": store.log10_key(rho), "bits": bits, "rho": rho},
        **{"diverged": bits is None, "collapsed": [] if kept else ["a/kernel"], "steps": 1},
        **{"kept_per_layer": {"a/kernel": kept}, "density_per_layer": {"a/kernel": kept / 4}},
        **{"seed": 0},
    }


def test_tables_mark_the_best_the_empty_and_the_diverged(tmp_path):
    rows = [row("dense", 1.0, 2.0, 4), row("synflow", 10.0, 2.5, 0), row("synflow", 10.0, 2.7)]
    rows += [row("magnitude", 10.0, 2.5), row("magnitude", 10.0, None)]
    console = Console(record=True, width=100, quiet=True)
    decoder_report.show(rows, tmp_path / "table.txt", console)
    decoder_report.plot(rows, tmp_path / "figure.png")
    written = (tmp_path / "table.txt").read_text(encoding="utf-8")
    assert "2.600 ± 0.141†" in written
    assert "2.500‡*" in written
    assert "12.5 †1/2" in written


def test_the_text_is_the_same_in_every_process_and_its_parts_share_no_string():
    code = "from experiments.data.text import load; print(load().digest)"
    others = "import jax, flax, optax, grain, sklearn, matplotlib.pyplot, typing_extensions, pytest"
    found = [
        subprocess.run(
            [sys.executable, "-c", first + code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            **{"capture_output": True, "text": True, "check": True},
        ).stdout
        for seed, first in (("1", ""), ("2", others + "; "))
    ]
    assert found[0] == found[1]
    assert 500_000 < len(text.load().train) < 1_500_000
    whole = text.load(["abc", "io"] * 4 + ["io", "abc"])
    assert decode(whole.train).count("Metaclass for defining Abstract Base") == 1


def decode(codes):
    return "".join(text.CHARACTERS[i] for i in codes)


def test_characters_are_one_byte_each():
    assert decode(text.encode("a b\nc~é\t")) == "a b\nc~??"


def test_a_text_without_a_validation_part_is_refused():
    with pytest.raises(ValueError, match="no documentation strings"):
        text.load(["abc"])


def test_the_decoder_does_not_look_ahead():
    model, tokens = Decoder(5, width=8, depth=1), jnp.zeros((2, 6), jnp.int32).at[1, 3].set(1)
    logits, _ = jax.jit(model.init_with_output)(jax.random.key(0), tokens)
    moved = logits[0] != logits[1]
    assert moved.any(-1).tolist() == [False] * 3 + [True] * 3


def test_a_pruned_decoder_learns_and_stays_pruned(plan):
    net = start(plan.config.model, plan.config.context, 0)
    masks = jax.tree.map(lambda leaf: leaf > -0.5, net.params)
    outcome = plan.trainer(net.params, masks, net.order_key)
    assert outcome.validation < 5.5  # of log2 96 = 6.6 bits at the start
    assert bool(outcome.finite)
    kernel = np.asarray(outcome.params["head"]["kernel"])
    np.testing.assert_array_equal(kernel != 0, masks["head"]["kernel"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("methods", (), "methods must be one or more of"),
        ("rho", (0.5,), "rho must be one or more finite numbers of at least 1, got .0.5"),
        ("rho", (), "rho must be one or more"),
        ("steps", 0, "steps must be at least 1, got 0"),
        ("width", 12, "width must be a multiple of 8, got 12"),
        ("learning_rate", 0.0, "learning_rate must be finite and above 0"),
        ("weight_decay", -1.0, "weight_decay must be finite and at least 0"),
    ],
)
def test_what_is_not_allowed_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        Config(**{name: value})


def test_a_context_longer_than_the_text_ends_before_training(tmp_path, capsys):
    with pytest.raises(SystemExit):
        decoder.main(Config(context=10**7, out=tmp_path))
    assert "error: context must be below" in capsys.readouterr().err


def test_the_page_has_the_numbers_of_the_stored_rows():
    rows = store.read(ROOT / "experiments/results/decoder/rows.json")
    page = (ROOT / "docs/decoder.md").read_text(encoding="utf-8")
    lines = [line.split(" | ") for line in page.splitlines()]
    lines = [[cell.strip("|* ") for cell in line] for line in lines if len(line) > 2]
    for table in (decoder_report.losses(rows), decoder_report.densities(rows)):
        columns = [[cell.rstrip("*") for cell in column.cells] for column in table.columns]
        for row in zip(*columns, strict=True):
            assert list(row) in lines
    assert decoder_report.losses(rows).title.split(": ")[1] in page


def test_pairs_of_characters_give_the_loss_that_the_page_compares_with():
    whole = text.load()
    train, validation = whole.train, whole.validation
    counts = np.full((96, 96), 0.1)
    np.add.at(counts, (train[:-1], train[1:]), 1)
    bits = -np.log2(counts / counts.sum(1, keepdims=True))[validation[:-1], validation[1:]].mean()
    assert bits == pytest.approx(3.9, abs=0.05)  # documentation changes with Python's version
