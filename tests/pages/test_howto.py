"""The pages that show how: their blocks run, as a user's session would."""

import json
import pathlib
from statistics import fmean

import pytest

from benchmarks.compaction import slim
from tests.support.pages import run_blocks

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ROOT / "docs" / "howto"


@pytest.mark.parametrize(
    ("page", "least"), [("choosing.md", 6), ("watching.md", 2), ("patterns.md", 3), ("slim.md", 2)]
)
def test_the_blocks_of_a_page_run(page, least):
    run_blocks(PAGES / page, least)


def test_the_page_of_networks_runs_and_is_as_said():
    scope = run_blocks(PAGES / "networks.md", 5)
    sizes = {"actor_hidden": 512, "critic_hidden": 512, "actor_head": 256, "critic_head": 64}
    assert {k: v.size for k, v in named_kernels(scope["params"])} == sizes
    together, apart = scope["together"], scope["apart"]
    assert sum(together.values()) == 448  # ⌈1344 / 3⌉
    assert apart["critic_hidden/kernel"] + apart["critic_head/kernel"] == 192  # ⌈576 / 3⌉
    caches = [sum(counts.values()) for counts in (scope["with_cache"], scope["alone"])]
    assert caches == [570, 570]  # ⌈(4·32·32 + 32·50) / 10⌉
    # 8·32 into, 16·16 step, 16·8 b and c, 16·5 out
    assert sum(int(mask.sum()) for _, mask in named_kernels(scope["state_masks"])) == 144


def named_kernels(tree):
    return [(name, layer["kernel"]) for name, layer in tree.items() if isinstance(layer, dict)]


def test_the_table_of_slim_networks_is_what_was_measured():
    rows = json.loads((ROOT / "benchmarks/results/slim.json").read_text())["rows"]
    lines = (PAGES / "slim.md").read_text().splitlines()
    for form in slim.FORMS:
        found = [
            [row["top1"] for row in rows if (row["form"], row["rho"]) == (form, rho)]
            for rho in (10, 30)
        ]
        assert {len(seeds) for seeds in found} == {2}
        line = next(line for line in lines if line.startswith(f"| {form} |"))
        cells = [float(cell) for cell in line.split("|")[2:-1]]
        # To a tenth of a percent.
        assert cells == pytest.approx([100 * fmean(seeds) for seeds in found], abs=0.051)
        if form != "slim by magnitude":
            assert max(max(seeds) - min(seeds) for seeds in found) < 0.0245
