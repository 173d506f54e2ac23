"""Joining the results of several machines: each row once, and nothing that is no result."""

import pytest

from experiments import merge
from experiments.records import rows as store


def test_merging_takes_each_row_once(tmp_path, capsys):
    one, two, into = (tmp_path / f"{name}.json" for name in ("one", "two", "into"))
    store.write(one, [{"config": "a", "x": 1}, {"config": "b", "x": 1}], {"seeds": 1})
    store.write(two, [{"config": "b", "x": 2}, {"config": "c", "x": 2}], {"seeds": 2})
    merge.main(merge.Config(into, (one, two)))
    assert "3 new rows, 3 in all" in capsys.readouterr().out
    assert store.load(into) == (
        {"seeds": 1},
        [{"config": "a", "x": 1}, {"config": "b", "x": 1}, {"config": "c", "x": 2}],
    )
    assert merge.merge(merge.Config(into, (two,))) == 0


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((), "sources must be one or more files"),
        (("missing.json",), "no such file"),
        (("text.json",), "not JSON"),
        (("list.json",), "not an object"),
        (("good.json", "text.json"), "not JSON"),
        (("into.json",), "sources must be other files than into"),
    ],
)
def test_merging_refuses_what_is_no_result(tmp_path, capsys, sources, message):
    (tmp_path / "text.json").write_text("rows")
    (tmp_path / "list.json").write_text("[]")
    store.write(tmp_path / "good.json", [{"config": "b"}])
    into = tmp_path / "into.json"
    store.write(into, [{"config": "a"}])
    with pytest.raises(SystemExit):
        merge.main(merge.Config(into, tuple(tmp_path / name for name in sources)))
    assert message in capsys.readouterr().err
    assert store.read(into) == [{"config": "a"}]
