"""The page of figures is whole, and what it and the README say of comparisons is in the rows."""

import re

import pytest

from tests.support.pages import README, ROOT, words_of

PAGE = ROOT / "docs" / "figures.md"
FIGURES = ROOT / "experiments" / "README.md"
RESULTS = ROOT / "experiments" / "results" / "compare"
METHODS = {
    "SynFlow": "synflow",
    "SNIP": "snip",
    "GraSP": "grasp",
    "magnitude": "magnitude",
    "random": "random",
    "SynFlow, shuffled in its layers": "synflow-shuffled",
    "random at ERK densities": "random-erk",
}
RATIOS = ["ρ = 10^0.5", "10", "10^1.5", "100", "10^2.5", "1000"]


def table_of(name):
    """Accuracies by method, in the order of ρ, and each method's last ρ without a lost layer."""
    text = (RESULTS / name / "table.txt").read_text()
    _, summary = text.split("Accuracy in % by log10 ρ")
    found, last = {}, {}
    for method in METHODS.values():
        cells = re.search(rf"^ {method} +(.*\d)\s*$", summary, re.M)[1]
        *accuracies, reached = re.findall(r"≥ [\d.]+|[\d.]+", cells)
        found[method], last[method] = [float(one) for one in accuracies], reached
    return found, last


def flows_of(name, ratio):
    """The median log10 of the flow that is left, by method, at one log10 ρ."""
    text = (RESULTS / name / "table.txt").read_text().split("Accuracy in % by log10 ρ")[0]
    rows = re.findall(rf"^ {ratio} (\S+) .* (-?[\d.]+) +[\d.]+ +[\d.]+ *$", text, re.M)
    return {method: float(flow) for method, flow in rows}


def test_the_page_of_figures_is_whole():
    lines = FIGURES.read_text().splitlines()
    assert not [line for line in lines if line.startswith("@") or "FILL IN" in line]
    rows = [line for line in lines if line.startswith("| [")]
    names = [re.match(r"\| \[(\w+)\]", line)[1] for line in rows]
    assert names == ["1", "2", "3", "4", "5a", "5b", "6", "7", "critical"]
    assert {line.count("|") for line in rows} == {8}


def test_the_table_of_the_comparison_has_every_method_and_ratio():
    lines = PAGE.read_text().split("| method |")[1].split("\n\n")[0].splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[:6]] == RATIOS
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(METHODS)


@pytest.mark.parametrize("title", METHODS)
def test_the_table_of_the_comparison_is_what_was_measured(title):
    accuracies, last = table_of("fashion_mnist-fc")
    line = next(x for x in PAGE.read_text().splitlines() if x.startswith(f"| {title} |"))
    *cells, reached = [cell.strip() for cell in line.split("|")[2:-1]]
    best = [max(column) for column in zip(*accuracies.values(), strict=True)]
    for cell, value, top in zip(cells, accuracies[METHODS[title]], best, strict=False):
        assert cell == (f"**{value:.1f}**" if value == top else f"{value:.1f}")
    assert len(cells) == len(RATIOS)
    exponent = {"10": 1.0}.get(reached) or float(re.match(r"10\^([\d.]+)", reached)[1])
    assert last[METHODS[title]] in {f"{exponent:.2f}", f"≥ {exponent:.2f}"}


def test_what_is_said_of_the_comparison_is_in_the_rows():
    found, _ = table_of("fashion_mnist-fc")
    for column in (0, 1):  # ρ = 10^0.5 and 10
        assert found["random"][column] >= max(row[column] for row in found.values()) - 1
    said = "At ρ = 100 SynFlow has {:.1f} %, SNIP {:.1f} % and random weights {:.1f} %"
    assert said.format(*(found[name][3] for name in ("synflow", "snip", "random"))) in words_of(
        README
    )
    flows = flows_of("fashion_mnist-fc", "2.00")
    assert f"10^−{flows['synflow'] - flows['synflow-shuffled']:.1f} of its flow" in words_of(PAGE)
    for column in range(2, 6):
        assert max(found, key=lambda name, at=column: found[name][at]) == "synflow"


def test_what_is_said_of_cifar10_is_in_the_rows():
    found, _ = table_of("cifar10-fc")
    synflow, snip, random = (found[name] for name in ("synflow", "snip", "random"))
    page = words_of(PAGE)
    assert f"at ρ = 10^1.5 SNIP has {snip[2]:.1f} % and SynFlow {synflow[2]:.1f} %" in words_of(
        README
    )
    assert f"fall at ρ = 10 already, to {random[1]:.1f}" in page
    assert f"SNIP leads with {snip[2]:.1f}, and SynFlow has {synflow[2]:.1f}" in page
    assert f"there it has {synflow[3]:.1f}, SNIP {snip[3]:.1f}, and all others 10.0" in page
    assert max(row[2] for row in found.values()) == snip[2]
    others = [row for name, row in found.items() if name not in ("synflow", "snip")]
    assert all(row[3] == 10.0 for row in others)
    assert all(synflow[at] == max(row[at] for row in found.values()) for at in (3, 4, 5))
    dense = re.search(
        r"by log10 ρ; dense: ([\d.]+)", (RESULTS / "cifar10-fc/table.txt").read_text()
    )
    assert f"dense {dense[1]}: random weights" in page
