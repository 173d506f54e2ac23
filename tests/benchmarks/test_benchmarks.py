"""A run of the benchmarks leaves rows, goes on where it was, and says what it left out."""

import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks.shared import processes, records
from benchmarks.speed import run, run_steps, run_table
from experiments.records import machine


class Machine:
    """Processes that take no time, by their arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, arguments, limit, **settings):
        _, kind, network, _, *rest = arguments
        self.calls.append((kind, network, *rest))
        sizes = {"weights": 120, "prunable": 100}
        if kind == "steady":
            speeds = {"ours": 0.01, "PyTorch": 0.04, "naive JAX": 8.0, "floor": 0.005}
            turns = {name: {"best": speeds[name], "median": 1.0, "turns": 2} for name in rest[1:]}
            return {name: sizes | {"steady": one} for name, one in turns.items()}
        if kind == "first":
            return sizes | {
                "first": 2.0,
                "temporaries": 240,
                "temporaries ratio": 0.5,
                "started": 1,
            }
        masks = {"kernel": np.packbits(np.arange(100) < 1)}
        np.savez(rest[2], **masks)
        return sizes | {"started": 10.0, "end": 14.0 if rest[0] == "ours" else 24.0, "kept": 1}


def cells(path):
    rows = json.loads(path.read_text())["rows"]
    return {(row["network"], row["contender"]): row for row in rows}


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "in_new_process", Machine())
    return run_steps.Config(networks=("fc", "vgg16"), out=tmp_path), Console(width=200, record=True)


def test_a_run_leaves_rows_ratios_and_a_figure(quick, monkeypatch):
    config, console = quick
    monkeypatch.setattr(run_steps, "has_torch", lambda: True)
    run.run(config, console)
    rows = cells(config.path)
    assert len(rows) == 8
    ours = rows["fc", "ours"]
    assert ours["ratios"] == {"round": 4.0, "first": 1.0, "whole": 3.5, "over floor": 2.0}
    assert (ours["kept"], ours["asked"], ours["overlap"]) == (1, 1, 1.0)
    assert rows["fc", "naive JAX"]["made up"]
    assert rows["fc", "naive JAX"]["whole"]["best"] == 2.0 + 97 * 8.0
    assert config.path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    text = console.export_text()
    assert "VGG-16" in text
    assert "(778)" in text


def test_a_second_run_does_only_what_is_missing(quick, monkeypatch):
    config, console = quick
    monkeypatch.setattr(run_steps, "has_torch", lambda: True)
    run.run(config, console)
    rows = cells(config.path)
    del rows["vgg16", "ours"]["whole"]
    records.store(config.path, machine.machine("cpu"), list(rows.values()))
    done = len(run.in_new_process.calls)
    run.run(config, console)
    assert [call[:3] for call in run.in_new_process.calls[done:]] == [("whole", "vgg16", "ours")]
    rows, done = cells(config.path), len(run.in_new_process.calls)
    rows["fc", "ours"]["source"] = "other"
    records.store(config.path, machine.machine("cpu"), list(rows.values()))
    run.run(config, console)
    assert run.in_new_process.calls[done][:2] == ("steady", "fc")  # all of them, to be side by side
    assert {call[1] for call in run.in_new_process.calls[done:]} == {"fc"}


def test_a_run_without_torch_says_so(quick, monkeypatch):
    config, console = quick
    for module in (run_steps, run):
        monkeypatch.setattr(module, "has_torch", lambda: False)
    run.run(config, console)
    assert "PyTorch is not installed: its rows are left out" in console.export_text()
    assert {name for _, name in cells(config.path)} == {"ours", "naive JAX", "floor"}
    assert "round" not in cells(config.path)["fc", "ours"]["ratios"]


def test_a_network_of_another_size_is_an_error_in_its_row():
    row = {"weights": 10, "prunable": 8, "steady": {"best": 1.0}}
    run._enter(row, "first", {"weights": 11, "prunable": 8, "first": 3.0})
    assert row["failed"] == "its network has 11 weights, not 10"
    assert "first" not in row


@pytest.mark.parametrize(
    ("settings", "what"), [({"networks": ("vgg",)}, "networks"), ({"turns": 0}, "turns")]
)
def test_what_makes_no_sense_is_refused(settings, what):
    with pytest.raises(ValueError, match=what):
        run_steps.Config(**settings)


def test_a_process_that_fails_says_why():
    assert "No module named" in processes.in_new_process(["benchmarks.nothing"], 60.0)["failed"]
    assert processes.in_new_process(["timeit", "-n1", "import time; time.sleep(9)"], 0.5)["failed"]


def test_the_table_names_a_contender_that_failed():
    console = Console(record=True, width=120)
    row = {"network": "fc", "contender": "ours", "failed": "more than 900 seconds"}
    console.print(run_table.table(run_table.ratios([row])))
    assert "more than 900 seconds" in console.export_text()
