import io

import pytest
from rich.console import Console

from experiments.common import rows as store
from experiments.common.table import critical, details, summary

ROW = {
    "method": "synflow",
    "log10_rho": 1.0,
    "accuracy": 0.5,
    "accuracy_best": 0.5,
    "kept": 10,
    "collapsed": [],
    "log10_flow": 1.0,
    "seconds": 0.1,
    "train_seconds": 1.0,
}


def text(table):
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_rows_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    rows = [{"config": "a", "x": 1.5, "flow": None}, {"config": "b", "layers": ["ρ"]}]
    assert store.read(path) == []
    store.write(path, rows)
    assert store.read(path) == rows


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    store.write(path, [{"config": "a"}])
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write(path, [{"config": "a"}, {"config": "b", "flow": float("inf")}])
    assert store.read(path) == [{"config": "a"}]


@pytest.mark.parametrize("line", ['{"config": "b", "x"', "[1]", '{"x": 1}', ""])
def test_a_malformed_line_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"config": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2"):
        store.read(path)


def test_a_fingerprint_hangs_on_values_and_not_on_order():
    assert store.fingerprint({"a": 1, "b": 2}) == store.fingerprint({"b": 2, "a": 1})
    assert store.fingerprint({"a": 1}) != store.fingerprint({"a": 2})


def test_critical_compression_is_the_last_ratio_before_any_seed_collapses():
    lost = {**ROW, "log10_rho": 2.0, "collapsed": ["w"]}
    rows = [ROW, ROW, {**ROW, "log10_rho": 2.0}, lost, {**ROW, "log10_rho": 3.0}]
    assert critical(rows, "synflow") == 1.0
    assert critical([lost], "synflow") is None


def test_tables_show_winner_spread_and_collapse():
    lost = {
        **ROW,
        "method": "snip",
        "accuracy": 0.25,
        "collapsed": ["a/kernel"],
        "log10_flow": None,
    }
    whole = {**ROW, "method": "dense", "log10_rho": 0.0, "accuracy": 1.0}
    rows = [
        whole,
        {**ROW, "accuracy": 0.4},
        {**ROW, "accuracy": 0.6},
        lost,
        {**lost, "collapsed": []},
    ]
    overview, every = text(summary(rows)), text(details(rows))
    assert "dense: 100.0" in overview
    assert "50.0*" in overview
    assert "25.0 †" in overview
    assert "50.0 ± 14.1" in every
    assert "a 1/2" in every
    assert "−∞" in every
