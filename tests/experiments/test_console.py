"""Commands end in one line when they are interrupted, and name rows that are malformed."""

import dataclasses
import json

import pytest

from experiments.records import rows
from experiments.records.console import run_command


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    seeds: int = 3
    """How many."""


def test_a_command_is_given_its_settings(monkeypatch):
    monkeypatch.setattr("sys.argv", ["prog", "--seeds", "5"])
    found = []
    run_command(found.append, Config, "compare", "What it does.")
    assert found == [Config(5)]


def test_an_interrupted_command_ends_in_one_line(monkeypatch, capsys):
    def main(config):
        raise KeyboardInterrupt

    ended = []
    monkeypatch.setattr("sys.argv", ["prog"])
    monkeypatch.setattr("os._exit", ended.append)
    run_command(main, Config, "compare", None)
    assert ended == [130]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "\nstopped: what is finished is stored, and the same command goes on from there\n"
    )


GOOD = {"config": "ab", "method": "synflow", "log10_rho": 1.0, "seed": 0}


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"method": None}, "no valid method"),
        ({"log10_rho": "1"}, "no valid log10_rho"),
        ({"seed": True}, "no valid seed"),
        ({"seed": 0.5, "log10_rho": None}, "no valid log10_rho and no valid seed"),
    ],
)
def test_a_malformed_row_is_named(bad, named, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"config": {}, "rows": [GOOD, GOOD | bad]}))
    with pytest.raises(ValueError, match="row 2: ") as caught:
        rows.check_cells(path)
    assert named in str(caught.value)
    assert "deleting the row makes it anew" in str(caught.value)
    path.write_text(json.dumps({"config": {}, "rows": [GOOD]}))
    rows.check_cells(path)
