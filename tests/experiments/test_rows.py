import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from experiments.draw.table import details, summaries, summary
from experiments.records import rows as store
from experiments.records.groups import critical

ROOT = Path(__file__).parents[2]
ROW = {
    "method": "synflow",
    "log10_rho": 1.0,
    "accuracy": 0.5,
    "accuracy_best": 0.5,
    "kept": 10,
    "diverged": False,
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
    path = tmp_path / "deep" / "rows.json"
    rows = [{"config": "a", "x": 1.5, "flow": None}, {"config": "b", "layers": ["ρ"]}]
    assert store.read(path) == []
    store.write(path, rows)
    assert store.read(path) == rows


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.json"
    store.write(path, [{"config": "a"}])
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write(path, [{"config": "a"}, {"config": "b", "flow": float("inf")}])
    assert store.read(path) == [{"config": "a"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"config": {},\n"rows": [{"config": "a"}, ]}', r"rows\.json: not JSON .*line 2"),
        ("[1]", "not an object"),
        ('{"config": {}}', "not an object"),
        ('{"config": 1, "rows": []}', "not an object"),
        ('{"config": {}, "rows": [{"config": "a"}, {"x": 1}]}', "row 2: .*deleting the row"),
        ('{"config": {}, "rows": [1]}', "row 1: .*deleting the row"),
        ("", "not JSON"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, text, message):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        store.read(path)


def test_the_config_of_a_file_stays_until_another_is_given(tmp_path):
    path = tmp_path / "rows.json"
    store.add(path, [{"config": "a"}], {"epochs": 1})
    store.add(path, [{"config": "b"}])
    assert store.load(path) == ({"epochs": 1}, [{"config": "a"}, {"config": "b"}])
    store.add(path, [], {"epochs": 2})
    assert store.load(path)[0] == {"epochs": 2}
    assert len(path.read_text().splitlines()) == 5


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
    assert "2/2 dead" in every
    assert "‡" not in overview.split("*: best")[0]


def test_a_diverged_seed_is_marked():
    rows = [{**ROW, "method": "dense", "log10_rho": 0.0}, ROW, {**ROW, "diverged": True}]
    assert "50.0*‡" in text(summary(rows))
    assert "‡ 50.0" in text(details(rows))


def test_a_cell_that_is_out_of_reach_has_no_number():
    dense = {**ROW, "method": "dense", "log10_rho": 0.0}
    further = {**ROW, "method": "snip", "log10_rho": 2.0}
    rows = [dense, ROW, {**ROW, "method": "snip"}, further]
    (line,) = [line for line in text(summary(rows)).splitlines() if line.startswith(" synflow")]
    assert line.split() == ["synflow", "50.0*", "–", "1.00"]


def test_a_wide_summary_is_split_and_nothing_is_cut():
    grid = [x / 2 for x in range(1, 19)]
    rows = [{**ROW, "method": "dense", "log10_rho": 0.0}, *({**ROW, "log10_rho": x} for x in grid)]
    parts = [text(table) for table in summaries(rows, 80)]
    assert len(parts) > 1
    assert max(len(line) for part in parts for line in part.splitlines()) <= 80
    assert sum(part.count("50.0*") for part in parts) == len(grid)


ADDING = """
import sys
from pathlib import Path
from experiments.records import rows
for number in range(40):
    rows.add(Path(sys.argv[1]), [{"config": f"{sys.argv[2]}{number}"}, {"config": "both"}])
"""


def test_two_writers_lose_no_row_of_one_another(tmp_path):
    path = tmp_path / "rows.json"
    command = [sys.executable, "-c", ADDING, str(path)]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    wanted = {f"{name}{number}" for name in "ab" for number in range(40)} | {"both"}
    found = [row["config"] for row in store.read(path)]
    assert set(found) == wanted
    assert len(found) == len(wanted)
    assert {file.name for file in tmp_path.iterdir()} == {"rows.json", "rows.lock"}
