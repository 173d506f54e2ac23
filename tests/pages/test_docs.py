"""The documents: every public name on one page, every page in a contents, every block runs."""

import pathlib
import re

import jax
import numpy as np
import pytest

import synflow_jax as sf
from benchmarks.shared.labels import TITLES
from benchmarks.speed.run_table import best
from tests.support.pages import README, ROOT, result_rows, run_blocks, words_of

DOCS = ROOT / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "notebooks" not in page.parts]
DIRECTIVE = r"\.\. auto(?:function|class):: synflow_jax\.([\w.]+)"
FRAMEWORKS = ROOT / "synflow_jax" / "frameworks"
ADAPTERS = sorted(path.stem for path in FRAMEWORKS.glob("[a-z]*.py"))
CONTENTS = r"```\{toctree\}\n(.*?)```"


def the_names_of_the_api():
    return [name for page in PAGES for name in re.findall(DIRECTIVE, page.read_text())]


def the_contents_of(page):
    """Pages that a page's toctrees name."""
    lines = "\n".join(re.findall(CONTENTS, page.read_text(), re.DOTALL)).splitlines()
    names = [line for line in lines if line and not line.startswith(":") and "*" not in line]
    return [page.parent / f"{name}.md" for name in names]


def test_every_public_name_is_on_exactly_one_page_of_the_api():
    wings = [
        name
        for name, value in vars(sf).items()
        if getattr(value, "__name__", "") == f"synflow_jax.{name}" and hasattr(value, "__all__")
    ]
    inner = {f"{wing}.{name}" for wing in wings for name in getattr(sf, wing).__all__}
    public = {name for name in inner if name.split(".")[1] not in sf.__all__} | {*sf.__all__}
    adapters = tuple(f"{name}." for name in ADAPTERS)
    listed = [name for name in the_names_of_the_api() if not name.startswith(adapters)]
    assert sorted(listed) == sorted(public)


def test_every_function_of_an_adapter_is_there_too():
    for name in ADAPTERS:
        path = pathlib.Path(sf.__file__).parent / "frameworks" / f"{name}.py"
        functions = re.findall(r"^def ([a-z]\w*)", path.read_text(), re.M)
        wanted = {f"{name}.{function}" for function in functions}
        assert {one for one in the_names_of_the_api() if one.startswith(f"{name}.")} == wanted


def test_every_page_is_in_exactly_one_contents():
    listed = [page for each in PAGES for page in the_contents_of(each)]
    parts = {DOCS / "index.md", DOCS / "package.md"}  # the root, and a part of it
    assert sorted([*listed, *parts]) == sorted({*PAGES, *listed, *parts})


def test_pages_link_to_what_is_there():
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert (page.parent / link).exists(), f"{page.name} names {link}"


def zeros_hold(params, masks):
    for leaf, mask in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True):
        assert not np.asarray(leaf)[~np.asarray(mask)].any()


def kept(masks):
    return sum(int(np.sum(mask)) for mask in jax.tree.leaves(masks) if mask.ndim > 1)


def test_the_quick_start_runs():
    session = run_blocks(DOCS / "quickstart.md", 5)
    zeros_hold(session["params"], session["masks"])
    zeros_hold(session["nnx"].state(session["twin"], session["nnx"].Param), session["kept"])
    assert session["accuracy"] > 0.9
    assert session["twin_accuracy"] > 0.8
    saved, restored = session["everything"], session["restored"]
    for one, other in zip(jax.tree.leaves(saved), jax.tree.leaves(restored), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_concepts_run_and_are_as_said():
    session = run_blocks(DOCS / "concepts.md", 4)
    assert 0 < session["density"] < 0.02
    sums = [float(one) for one in session["sums"].values()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-5)  # float32 sums of 2,500
    np.testing.assert_allclose(session["into"], session["out_of"], rtol=1e-5)
    assert sf.collapsed_layers(session["once"]) == ("layer1",)  # the largest, as said
    assert float(session["info"].share[0]) > 1
    assert [kept(mask) for mask in session["sure"].values()] == [1, 1, 1]
    assert session["reached"] < session["most"] / 10


def test_the_answers_of_how_to_run():
    session = run_blocks(DOCS / "howto" / "index.md", 7)
    zeros_hold(session["pruned"], session["masks"])
    x = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    masked = sf.apply_masks(session["params"], session["masks"])
    with jax.numpy_rank_promotion("allow"):
        whole, narrow = (session["apply_fn"](tree, x) for tree in (masked, session["narrow"]))
    np.testing.assert_allclose(narrow, whole, atol=1e-5)  # the same sums without zeros
    assert session["narrow"]["first"]["kernel"].shape[1] < 100
    assert session["whole_head"]["last"]["kernel"].all()
    assert min(kept(session["floored"][name]) for name in ("first", "last")) >= 10
    assert [kept(session["even"][name]) for name in ("first", "last")] == [640, 100]
    assert kept(session["by_grasp"]) == kept(session["same"]) == 740
    assert kept(session["tokens"]) == 740 + 50 * 64  # no embedding is pruned


def test_the_questions_run():
    session = run_blocks(DOCS / "faq.md", 3)
    assert {float(one) for one in session["flows"].values()} == {64.0}  # 4 · 8 · 2 paths of ones
    assert "pass rho=100" in session["said"]
    assert kept(session["chosen"]) == (32 + 16) // 2 + 16


def test_the_numbers_of_the_answers_are_those_measured():
    page = words_of(DOCS / "faq.md")
    table = ROOT / "experiments" / "results" / "compare" / "cifar10-fc" / "table.txt"
    for method in ("random", "synflow", "random-erk"):
        accuracy = re.search(rf"^ 1\.00 {method} +([\d.]+)", table.read_text(), re.M)[1]
        assert f"{accuracy} %" in page
    found = [row for row in result_rows("reference_vgg") if row["network"] == "vgg11_bn"]
    rows = {row["case"]: row for row in found if row["bits"] == 32}
    overlaps = [rows[f"exponential_n100_d{d}"]["overlap"] for d in ("0.1", "0.01", "0.001")]
    said = "{:.2f}, {:.2f} and {:.2f}".format(*overlaps)
    assert said in page
    assert f"overlap by {said} at ρ = 10, 100 and 1000" in words_of(README)


def cells(page, first):
    """Cells of the table row that begins so."""
    line = next(line for line in page.read_text().splitlines() if line.startswith(f"| {first} |"))
    return [float(cell) for cell in line.split("|")[2:-1] if re.fullmatch(r" *[\d.]+ *", cell)]


PERFORMANCE = DOCS / "performance.md"


def test_the_table_of_speed_is_what_was_measured():
    """Its cells are those of the committed rows, to three digits."""
    found = {(row["network"], row["contender"]): row for row in result_rows("run_cpu")}
    networks = [name for name in TITLES if (name, "ours") in found]
    assert networks
    for name in networks:
        ours, torch, naive, floor = (
            found[name, one] for one in ("ours", "PyTorch", "naive JAX", "floor")
        )
        rounds = [1e3 * best(row, "steady") for row in (ours, torch, naive, floor)]
        jobs = [best(ours, "first"), best(ours, "whole"), best(torch, "whole")]
        assert cells(PERFORMANCE, TITLES[name]) == pytest.approx([*rounds, *jobs], rel=5e-3)
    largest = max(result_rows("growth"), key=lambda row: row["weights"])
    said = f"ten rounds in {largest['again']:.0f} s, with a peak of {largest['peak'] / 1e9:.1f} GB"
    assert said in words_of(PERFORMANCE)


def test_the_times_of_selection_are_those_measured():
    rows = result_rows("selection_cpu")
    for row in rows:
        assert cells(PERFORMANCE, row["way"]) == pytest.approx([1e3 * row["best"]], rel=5e-3)
    assert f"largest {rows[0]['kept']:,} of {rows[0]['scores']:,}" in PERFORMANCE.read_text()


def test_the_runs_of_certified_rounds_are_those_measured():
    rows = [row for row in result_rows("certified") if row["runs"] == 100]
    for network in {row["network"] for row in rows}:
        few, many, sure = [row for row in rows if row["network"] == network]
        lost = [row["flow lost"] for row in (few, many, sure)]
        said = [round(few["rho"]), *lost, sure["rounds"][1]]
        assert cells(PERFORMANCE, network) == said


def test_the_times_of_vmap_are_those_measured():
    for row in result_rows("vmapped"):
        times = [row[way]["best"] for way in ("vmap", "separate")]
        times += [row["first"][way] for way in ("vmap", "separate")]
        said = cells(PERFORMANCE, f"{row['network']} | {row['axis']}")
        assert said == pytest.approx(times, rel=7e-3)  # three digits
