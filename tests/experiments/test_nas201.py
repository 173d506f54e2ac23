"""The NAS-Bench-201 space: its published sizes, and networks built apart that score the same."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks.speed import search
from experiments import nas201 as experiment
from experiments.draw.nas201 import finite, joined
from experiments.models import nas201
from experiments.records import machine
from experiments.records import rows as store
from experiments.records.rows import RESULTS

HAS_TORCH = machine.has_torch()
SIDE, CHANNELS = 6, (3, 5)
CELL = (3, 1, 2, 4, 0, 3)  # every operation
NO_PATH = (0, 1, 2, 0, 3, 0)


def drawn(channels, cells):
    return nas201.initialise(jax.random.key(1), 4, channels, cells, jnp.float64)


def shapes():
    return jax.eval_shape(nas201.initialise, jax.random.key(0))


def convolved(x, kernel, stride=1):
    size = (kernel.shape[0] - 1) // 2
    pads = [(size, size)] * 2
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, pads, dimension_numbers=axes)


def pooled(x, size, stride, padding):
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    total, count = (
        lax.reduce_window(one, 0.0, lax.add, window, strides, padding)
        for one in (x, jnp.ones_like(x))
    )
    return total / count


def built(cell, norm):
    """Build the network of a cell with no other edge in it than those that do something."""

    def inside(kernels, x):
        values = {0: x}
        for node in (1, 2, 3):
            found = []
            for edge, (start, end) in enumerate(nas201.EDGES):
                if end == node and cell[edge] and start in values:
                    here = values[start]
                    if cell[edge] in (2, 3):
                        name = "one" if cell[edge] == 2 else "three"
                        found.append(norm(convolved(jnp.maximum(here, 0.0), kernels[name][edge])))
                    else:
                        found.append(here if cell[edge] == 1 else pooled(here, 3, 1, "SAME"))
            if found:
                values[node] = sum(found[1:], start=found[0])
        return values[3]

    def apply_fn(params, x):
        x = norm(convolved(x, params["stem"]))
        for stage in range(2):
            if f"reduce{stage}" in params:
                block = params[f"reduce{stage}"]
                y = norm(convolved(jnp.maximum(x, 0.0), block["first"], 2))
                y = norm(convolved(jnp.maximum(y, 0.0), block["second"]))
                x = y + convolved(pooled(x, 2, 2, "VALID"), block["shortcut"])
            kernels = params.get(f"stage{stage}", {"one": (), "three": ()})
            for pair in zip(kernels["one"], kernels["three"], strict=True):
                x = inside(dict(zip(("one", "three"), pair, strict=True)), x)
        return jnp.maximum(norm(x), 0.0).mean((1, 2)) @ params["classifier"]["kernel"]

    return apply_fn


def plain_score(cell, params, norm, side=SIDE):
    """Sum |θ ⊙ g| in double precision, with JAX's own evaluation and gradient."""
    apply_fn, ones = built(cell, norm), jnp.ones((1, side, side, 3))
    positive = jax.tree.map(jnp.abs, params)
    slopes = jax.jit(jax.grad(lambda p: apply_fn(p, ones).sum()))(positive)
    parts = jax.tree.map(lambda k, slope: jnp.abs(k * slope).sum(), positive, slopes)
    return float(np.log10(float(sum(jax.tree.leaves(parts)))))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out, traced = tmp_path_factory.mktemp("nas201"), []
    with pytest.MonkeyPatch.context() as patch:
        network = nas201.network

        def counted(*args, **settings):
            traced.append(settings)
            return network(*args, **settings)

        patch.setattr(nas201, "network", counted)
        experiment.main(experiment.Config(smoke=True, out=out))
    return out, len(traced)


@pytest.mark.parametrize(("form", "count"), [("synflow", 4), ("synflow_bn", 2)])
def test_a_cell_in_an_array_scores_as_the_network_without_its_missing_edges(
    form, count, finished, x64
):
    row = next(row for row in store.read(finished[0] / "nas201.json") if row["form"] == form)
    params = jax.tree.map(lambda leaf: leaf.astype(float), experiment.Config(smoke=True).params())
    assert row["cells"][0] == 0 and row["score"][0] is None
    for number, score in list(zip(row["cells"], row["score"], strict=True))[1 : count + 1]:
        wanted = plain_score(nas201.cell_of(number), params, experiment.RUNS[form][0], side=8)
        assert score == pytest.approx(wanted, abs=2e-5), number  # float32, or five digits


def test_the_whole_network_computes_what_one_built_apart_does(x64):
    params, norm = drawn(CHANNELS, 2), nas201.batch_norm
    images = jax.random.normal(jax.random.key(2), (2, SIDE, SIDE, 3))
    found = jax.jit(nas201.network, static_argnames="norm")(
        jnp.array(CELL, jnp.int32), params, images, norm=norm
    )
    wanted = jax.jit(built(CELL, norm))(params, images)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


if HAS_TORCH:  # an optional peer: [test] does not install it

    @pytest.mark.parametrize("name", ["no_norm", "batch_norm"])
    def test_pytorch_scores_the_same(name, x64):
        from benchmarks.peers import torch_nas201

        params = drawn(CHANNELS, 1)
        own, norm = torch_nas201.as_torch(params), getattr(torch_nas201, name)
        found = torch_nas201.score(CELL, own, SIDE, norm)
        wanted = plain_score(CELL, params, getattr(nas201, name))
        assert found == pytest.approx(wanted, abs=1e-10)
        assert torch_nas201.score(NO_PATH, own, SIDE, norm) == -np.inf


@pytest.mark.parametrize(
    ("cell", "weights", "flops"), [((0,) * 6, 73306, 7783050), ((3,) * 6, 1531546, 220119690)]
)
def test_the_smallest_and_the_largest_network_have_their_published_sizes(cell, weights, flops):
    """The benchmark counts norms' scales and shifts, and the biases of its linear layer, too."""
    found, products = nas201.cost(cell, shapes())
    convolutions = sum(operation in (2, 3) for operation in cell)
    norms = 16 + 2 * 32 + 2 * 64 + 64 + 5 * convolutions * (16 + 32 + 64)
    assert (found + 2 * norms + 10, products + 10) == (weights, flops)


def test_every_cell_is_there_once_and_is_written_as_the_benchmark_writes_it():
    cells = [nas201.cell_of(number) for number in range(nas201.SPACE)]
    assert sorted(cells) == sorted(itertools.product(range(5), repeat=6))
    assert nas201.written((3, 1, 2, 0, 4, 1)) == (
        "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|skip_connect~2|"
    )


def test_a_cell_connects_where_a_power_of_its_matrix_says():
    for cell in itertools.product((0, 3), repeat=6):
        matrix = np.eye(4, dtype=int)
        for operation, edge in zip(cell, nas201.EDGES, strict=True):
            matrix[edge] += operation > 0
        assert nas201.connects(cell) == (np.linalg.matrix_power(matrix, 3)[0, 3] > 0)


def test_a_smoke_run_scores_all_its_cells_with_one_compile_a_form(finished):
    out, traced = finished
    head, rows = store.load(out / "nas201.json")
    assert head["smoke"] is True
    assert [row["form"] for row in rows] == ["synflow", "synflow_bn"]
    assert all(len(set(row["cells"])) == len(row["score"]) == 10 for row in rows)
    assert traced <= 2 * 2  # of each form, the score and perhaps its shapes, whatever the cells
    assert (out / "nas201.png").read_bytes()[:4] == b"\x89PNG"


def test_a_finished_run_is_drawn_from_its_rows_alone(finished, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "make", None)
    experiment.main(experiment.Config(smoke=True, draw=True, out=finished[0]))
    said = capsys.readouterr().out
    assert "yes  synflow: of 10 cells" in said
    assert "2 of 2 rows" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"cells": 0}, "cells must be from 1 to 15625, got 0"), ({"seed": -1}, "seed must be at")],
)
def test_what_makes_no_sense_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        experiment.Config(**settings)


def test_the_benchmark_times_ways_that_score_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.time, "sleep", lambda _: None)
    config = search.Config(3, 1, turns=1, side=4, channels=(2,), out=tmp_path)
    rows = search.measure(config)
    assert len(rows) == 3 + 2 * HAS_TORCH
    assert all(row["difference"] < 1e-5 and row["a second"] > 0 for row in rows)


def test_the_committed_rows_are_those_that_the_command_asks_for_and_the_page_tells():
    rows, config = store.read(RESULTS / "nas201.json"), experiment.Config()
    wanted = [row for form in experiment.RUNS for row in config.settings(form)]
    assert [row["config"] for row in rows] == [store.fingerprint(row) for row in wanted]
    assert all(holds for _, holds in experiment.claims(config, rows))
    scores = {form: joined(rows, form) for form in experiment.RUNS}
    plain, normed = (sorted(finite(scores[form]).values()) for form in experiment.RUNS)
    ends = [plain[0], plain[-1], normed[0], normed[-1]]
    assert [f"{end:.2f}" for end in ends] == ["6.38", "49.31", "1.10", "1.61"]
    assert len(plain) == len(normed) == 1000 - 17
    assert sum(score > np.log10(np.finfo(np.float32).max) for score in plain) == 59
    found = experiment.ranks(rows, experiment.costs_of(config, rows))
    assert [f"{value:.2f}" for value in found.values()] == ["0.77", "0.13", "-0.06"]


def test_the_speeds_that_the_page_tells_are_those_of_the_committed_rows():
    root = machine.ROOT
    rows = json.loads((root / "benchmarks/results/search.json").read_text())["rows"]
    lines = (root / "docs/howto/search.md").read_text().splitlines()
    told = [
        line.split("|")[2].strip()
        for line in lines
        if line.startswith(("| `flow", "| the same", "| PyT"))
    ]
    assert told == [f"{row['a second']:.2f}" for row in rows]
