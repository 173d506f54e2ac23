"""The page on flow: its block runs, and its tables and numbers are those measured."""

import math
import re

import pytest

from tests.support.pages import ROOT, result_rows, run_blocks, words_of

PAGE = ROOT / "docs" / "flow.md"
WORDS = words_of(PAGE)
NETWORKS = {
    "VGG-16": ["vgg16"],
    "CIFAR ResNet-20": ["resnet20"],
    "CIFAR ResNet-56": ["resnet56"],
    "CIFAR ResNet-110": ["resnet110"],
    "ResNet-50 (64×64 images)": ["resnet50"],
    "ResNet-101, ResNet-152 (64×64)": ["resnet101", "resnet152"],
    "DenseNet-121 (64×64)": ["densenet121"],
    "U-Net (64×64 images)": ["unet"],
    "MLP of 1,000 layers": ["mlp1000"],
    "residual MLP of 400 blocks": ["residual_mlp400"],
}


def test_the_page_on_flow_runs():
    scope = run_blocks(PAGE, 1)
    assert float(scope["gap"]) > 0.5  # tanh
    assert sum(int(mask.sum()) for name, mask in scope["masks"].items() if name != "bias") == 150


@pytest.mark.parametrize("title", NETWORKS)
def test_the_table_of_depth_is_what_was_measured(title):
    found = {row["network"]: row for row in result_rows("deep") if row["kind"] == "flow"}
    rows = [found[name] for name in NETWORKS[title]]
    line = next(x for x in PAGE.read_text().splitlines() if x.startswith(f"| {title} |"))
    plain32, plain64, scaled, error = (cell.strip() for cell in line.split("|")[2:-1])
    for cell, kinds in (
        (plain32, ["plain 32"]),
        (plain64, ["plain 64"]),
        (scaled, ["scaled 32", "scaled 64"]),
    ):
        said = [float(one.replace("−", "-")) for one in cell.split(", ")]
        for kind in kinds:
            logs = [float(row[kind]) * math.log10(2) for row in rows]
            assert said == pytest.approx(logs, abs=6e-4)  # three decimals
    largest = max(row["score error"] for row in rows)
    assert float(error.split(" ")[0]) == pytest.approx(largest, rel=0.04)  # two digits


def test_the_table_of_depth_has_every_network_measured():
    found = {row["network"] for row in result_rows("deep") if row["kind"] == "flow"}
    assert found == {name for names in NETWORKS.values() for name in names}


def test_the_times_in_prose_are_those_measured():
    found = {row["network"]: row["ratios"] for row in result_rows("deep") if row["kind"] == "time"}
    for kind in ("run", "compile"):
        *first, last = (
            f"{found[name][kind]:.2f}" for name in ("vgg16", "resnet20", "resnet56", "resnet110")
        )
        assert f"{', '.join(first)} and {last}" in WORDS


def test_the_rounds_of_the_certified_schedule_are_those_measured():
    rows = [row for row in result_rows("certified") if row["network"] == "vgg11"]
    rounds = [row["rounds"][1] for row in rows if row["schedule"] == "certified"]
    said = re.search(r"on VGG-11 (\d+) for ρ = 10, (\d+) for ρ = 1000, and (\d+) to one", WORDS)
    assert [int(one) for one in said.groups()] == rounds
