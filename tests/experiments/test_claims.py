"""What the claims say of rows, whole and partial, and the paper's numbers beside them."""

import pytest

from experiments import fig1, fig5
from experiments.records import published
from experiments.records.claims import crashes, critical, leads, worth
from experiments.records.published import Panel


def rows_of(method, points):
    return [
        {
            "dataset": "digits",
            "method": method,
            "rounds": 1,
            "log10_rho": x,
            "top1_best": top1,
            "collapsed": ["a"] if lost else [],
        }
        for x, top1, lost in points
    ]


def test_claims_follow_the_rows():
    rows = [
        *rows_of("dense", [(0.0, 0.9, False)]),
        *rows_of("synflow", [(1.0, 0.8, False), (2.0, 0.7, False)]),
        *rows_of("snip", [(1.0, 0.85, False), (2.0, 0.75, False), (2.0, 0.1, True)]),
        *rows_of("magnitude", [(1.0, 0.1, True), (2.0, 0.1, False)]),
    ]
    names = ("synflow", "snip", "magnitude")
    assert [critical(rows, name) for name in (*names, "random")] == [2.0, 1.0, 0.0, None]
    (claim,) = leads(Panel("net", rows, {}), names)
    assert claim == ("net: SynFlow leads at ρ = 10^2: 70.0, best of the others 42.5 (snip)", True)
    better = [{**row, "top1_best": 0.9} if row["method"] == "snip" else row for row in rows]
    assert not next(leads(Panel("net", better, {}), names))[1]


def test_the_paper_s_numbers_are_those_of_its_tables():
    curves = published.curves("fig6", "vgg16", "cifar10")
    at = {
        method: dict(zip(curve.log10_rho, curve.mean, strict=True))
        for method, curve in curves.items()
    }
    means = {method: [at[method][x] for x in (1.0, 2.0, 3.0)] for method in at}
    table = {
        "synflow": [93.3, 90.1, 80.4],
        "snip": [92.3, 89.2, 76.3],
        "grasp": [91.8, 87.5, 70.9],
        "magnitude": [93.1, 89.8, 10.0],
        "random": [91.2, 79.1, 10.0],
    }
    assert means.keys() == table.keys()
    for method, numbers in table.items():  # rounded to one digit, 76.25 up
        assert means[method] == pytest.approx(numbers, abs=0.051)
    assert {row["runs"] for row in published.table("fig6") if row["model"] == "resnet18"} == {6.0}
    assert published.curves("fig6", "fc", "digits") == {}
    assert len(published.curves("fig1", "vgg16", "cifar100")["synflow"].mean) == 25
    found = [row["log10_rho_cr"] for row in published.table("critical")]
    assert found == [
        3.5,
        3.75,
        3.5,
        2.75,
        2.75,
        2.75,
        2.75,
        3.75,
        3.5,
        3.75,
        3.5,
        3.5,
        6.0,
        6.0,
        5.75,
    ]


def test_claims_speak_of_what_is_there():
    """A run that was stopped has some methods only up to some ρ."""
    rows = [
        *rows_of("synflow", [(1.0, 0.8, False), (2.0, 0.7, False), (3.0, 0.6, False)]),
        *rows_of("synflow-shuffled", [(1.0, 0.8, False), (2.0, 0.5, False)]),
        *rows_of("snip", [(1.0, 0.7, False), (2.0, 0.6, False)]),
    ]
    panel, names = Panel("net", rows, {}), ("synflow", "snip", "magnitude")
    assert [text.split(":")[1] for text, _ in leads(panel, names)] == [" SynFlow leads at ρ = 10^2"]
    assert [*worth(panel, names)] == [
        ("net: shuffling inside layers costs < 1 point, up to 10^1", False)
    ]
    ((text, holds),) = fig1._trains(rows)
    assert holds
    assert text.endswith("synflow 10^3, snip 10^2")
    alone = [row for row in rows if row["method"] == "snip"]
    assert [*fig1._trains(alone), *leads(Panel("net", alone, {}), names)] == []
    apart = [*rows_of("synflow", [(1.0, 0.8, False)]), *rows_of("snip", [(2.0, 0.6, False)])]
    assert [*leads(Panel("net", apart, {}), names)] == []


def test_nobody_leads_at_chance():
    rows = [
        *rows_of("synflow", [(2.0, 0.3, False), (3.0, 0.103, False)]),
        *rows_of("snip", [(2.0, 0.2, False), (3.0, 0.094, False)]),
    ]
    assert len([*leads(Panel("net", rows, {}), ("synflow", "snip"))]) == 1


@pytest.mark.parametrize("dense", [True, False])
def test_a_layer_lost_at_the_first_ratio_is_a_critical_compression_of_zero(dense):
    rows = rows_of("snip", [(1.0, 0.1, True), (2.0, 0.1, True)])
    rows = [*rows_of("dense", [(0.0, 0.9, False)]), *rows] if dense else rows
    assert critical(rows, "snip") == 0.0
    assert critical(rows, "grasp") is None
    assert [*crashes(Panel("net", rows, {}), ("snip",))] == []


def test_iterations_are_compared_where_there_are_several_counts():
    one = rows_of("imp", [(1.0, 0.9, False), (2.0, 0.1, True), (3.0, 0.1, True)])
    two = [{**row, "rounds": 2, "top1_best": 0.5} for row in one[:2]]
    assert [*fig5._better({1: one})] == [*fig5._better({})] == []
    assert [*fig5._better({1: one, 2: two})] == [
        ("2 iterations beat 1 at 10^2: 50.0 and 10.0", True)
    ]
