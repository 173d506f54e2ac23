"""The benchmarks time programs that do the same: same weights, same masks; and they leave rows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from benchmarks import fresh, growth, machine, measure, peers, plan, run, selection, shown, vmapped
from benchmarks.deep_networks import draw
from benchmarks.peers import floor, naive_jax
from benchmarks.timed_networks import NETWORKS, Timed
from experiments.common.models.fc import FC
from synflow_jax import is_prunable, synflow

SHAPE, CLASSES, WIDTH, DEPTH = (4, 5, 1), 6, 30, 3
HAS_TORCH = machine.has_torch()
# ρ = 100 in few rounds leaves tiny networks little flow, or none: what is timed is the same.
pytestmark = [
    pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning"),
    pytest.mark.filterwarnings("ignore::synflow_jax.CollapseWarning"),
]


@pytest.fixture(autouse=True)
def _as_a_user(compiled_fast, flax_promotes, monkeypatch):
    monkeypatch.setattr(machine.time, "sleep", lambda _: None)


def tiny(dtype):
    return draw(Timed(lambda: FC(CLASSES, WIDTH, DEPTH), SHAPE), dtype=dtype)


def by_naive_jax(rounds):
    params, apply_fn = tiny(np.float64)
    return naive_jax.prune_naively(params, apply_fn, SHAPE, rounds)


def by_torch(rounds):
    import torch

    from benchmarks.peers import plain_torch, torch_networks

    model = torch_networks.draw(torch_networks.fc(20, CLASSES, WIDTH, DEPTH)).double()
    x = torch.ones(1, 1, *SHAPE[:2], dtype=torch.double)
    return plain_torch.on_host(plain_torch.prune_in_torch(model, x, rounds))


@pytest.mark.parametrize("peer", [by_naive_jax, *[by_torch] * HAS_TORCH])
def test_peers_prune_as_this_library_does(peer, x64, monkeypatch):
    monkeypatch.setattr(peers, "RHO", 5.0)  # weights in series tie at more, and PyTorch drops both
    params, apply_fn = tiny(np.float64)
    ours = synflow(params, apply_fn, SHAPE, peers.RHO, rounds=7)
    expected = naive_jax.host_masks(naive_jax.by_path(ours), naive_jax.by_path(params))
    found = peer(7)
    assert list(found) == list(expected)
    for path, mask in expected.items():
        np.testing.assert_array_equal(found[path], mask, err_msg=path)


def test_the_weights_are_given_back(x64):
    if not HAS_TORCH:
        assert "PyTorch" not in plan.Config().contenders
        return
    from benchmarks.peers import plain_torch, torch_networks

    torch = plain_torch.torch
    model = torch_networks.draw(torch_networks.fc(20, CLASSES, WIDTH, DEPTH)).double()
    before = [weight.detach().clone() for weight in model.parameters()]
    plain_torch.prune_in_torch(model, torch.ones(1, 1, *SHAPE[:2], dtype=torch.double), 2)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    params = naive_jax.by_path(tiny(np.float64)[0])
    for path, kernel in torch_networks.kernels(model).items():
        np.testing.assert_array_equal(
            torch_networks.as_flax(kernel).detach().numpy(), params[path], err_msg=path
        )


@pytest.mark.parametrize("name", list(NETWORKS) * HAS_TORCH or ["fc"])
def test_networks_are_the_same_in_both_frameworks(name):
    ones = jax.ShapeDtypeStruct((1, *NETWORKS[name].shape), jnp.float32)
    shapes = jax.eval_shape(NETWORKS[name].build().init, jax.random.key(0), ones)["params"]
    leaves = naive_jax.by_path(shapes)
    expected = {path: leaf.shape for path, leaf in leaves.items() if is_prunable(path, leaf)}
    if not HAS_TORCH:
        assert len(expected) == 6
        return
    import torch

    from benchmarks.peers import torch_networks

    with torch.device("meta"):
        model = torch_networks.NETWORKS[name][0]()
    found = torch_networks.kernels(model).items()
    assert {p: tuple(torch_networks.as_flax(k).shape) for p, k in found} == expected
    total = sum(weight.numel() for weight in model.parameters())
    assert total == sum(leaf.size for leaf in leaves.values())


def test_counts_are_those_of_the_exponential_schedule():
    assert [peers.kept_after(k, 2, 1000) for k in (1, 2)] == [100, 10]
    assert peers.kept_after(1, 1, 119_400) == 1194
    assert floor.passes(10**9, 10e9) == pytest.approx(1.0)


class Machine:
    """Processes that take no time, by their arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, arguments, limit, **settings):
        _, kind, network, _, *rest = arguments
        self.calls.append((kind, network, *rest))
        sizes = {"weights": 120, "prunable": 100}
        if kind == "steady":
            speeds = {"ours": 0.01, "PyTorch": 0.04, "naive JAX": 8.0, "floor": 0.005}
            turns = {name: {"best": speeds[name], "median": 1.0, "turns": 2} for name in rest[1:]}
            return {name: sizes | {"steady": one} for name, one in turns.items()}
        if kind == "first":
            return sizes | {
                "first": 2.0,
                "temporaries": 240,
                "temporaries ratio": 0.5,
                "started": 1,
            }
        masks = {"kernel": np.packbits(np.arange(100) < 1)}
        np.savez(rest[2], **masks)
        return sizes | {"started": 10.0, "end": 14.0 if rest[0] == "ours" else 24.0, "kept": 1}


def cells(path):
    rows = json.loads(path.read_text())["rows"]
    return {(row["network"], row["contender"]): row for row in rows}


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "fresh", Machine())
    return plan.Config(networks=("fc", "vgg16"), out=tmp_path), Console(width=200, record=True)


def test_a_run_leaves_rows_ratios_and_a_figure(quick, monkeypatch):
    config, console = quick
    monkeypatch.setattr(plan, "has_torch", lambda: True)
    run.run(config, console)
    rows = cells(config.path)
    assert len(rows) == 8
    ours = rows["fc", "ours"]
    assert ours["ratios"] == {"round": 4.0, "first": 1.0, "whole": 3.5, "over floor": 2.0}
    assert (ours["kept"], ours["asked"], ours["overlap"]) == (1, 1, 1.0)
    assert rows["fc", "naive JAX"]["made up"]
    assert rows["fc", "naive JAX"]["whole"]["best"] == 2.0 + 97 * 8.0
    assert config.path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    text = console.export_text()
    assert "VGG-16" in text
    assert "(778)" in text


def test_a_second_run_does_only_what_is_missing(quick, monkeypatch):
    config, console = quick
    monkeypatch.setattr(plan, "has_torch", lambda: True)
    run.run(config, console)
    rows = cells(config.path)
    del rows["vgg16", "ours"]["whole"]
    fresh.store(config.path, machine.machine("cpu"), list(rows.values()))
    done = len(run.fresh.calls)
    run.run(config, console)
    assert [call[:3] for call in run.fresh.calls[done:]] == [("whole", "vgg16", "ours")]
    rows, done = cells(config.path), len(run.fresh.calls)
    rows["fc", "ours"]["source"] = "other"
    fresh.store(config.path, machine.machine("cpu"), list(rows.values()))
    run.run(config, console)
    assert run.fresh.calls[done][:2] == ("steady", "fc")  # all of them, to be side by side
    assert {call[1] for call in run.fresh.calls[done:]} == {"fc"}


def test_a_run_without_torch_says_so(quick, monkeypatch):
    config, console = quick
    for module in (plan, run):
        monkeypatch.setattr(module, "has_torch", lambda: False)
    run.run(config, console)
    assert "PyTorch is not installed: its rows are left out" in console.export_text()
    assert {name for _, name in cells(config.path)} == {"ours", "naive JAX", "floor"}
    assert "round" not in cells(config.path)["fc", "ours"]["ratios"]


def test_a_network_of_another_size_is_an_error_in_its_row():
    row = {"weights": 10, "prunable": 8, "steady": {"best": 1.0}}
    run._enter(row, "first", {"weights": 11, "prunable": 8, "first": 3.0})
    assert row["failed"] == "its network has 11 weights, not 10"
    assert "first" not in row


@pytest.mark.parametrize(
    ("settings", "what"), [({"networks": ("vgg",)}, "networks"), ({"turns": 0}, "turns")]
)
def test_what_makes_no_sense_is_refused(settings, what):
    with pytest.raises(ValueError, match=what):
        plan.Config(**settings)


def test_a_process_that_fails_says_why():
    assert "No module named" in fresh.fresh(["benchmarks.nothing"], 60.0)["failed"]
    assert fresh.fresh(["timeit", "-n1", "import time; time.sleep(9)"], 0.5)["failed"]


def test_rounds_are_timed_by_turns(monkeypatch):
    monkeypatch.setattr(floor, "copy_bandwidth", lambda _: 1e10)
    monkeypatch.setitem(NETWORKS, "fc", Timed(lambda: FC(CLASSES, WIDTH, DEPTH), SHAPE, turn=2))
    found = measure.steady("fc", "cpu", "2", "ours", "floor", "nobody")
    assert found["nobody"]["failed"]
    for name in ("ours", "floor"):
        assert found[name]["steady"]["turns"] == 2
        assert 0 < found[name]["steady"]["best"] <= found[name]["steady"]["median"]
    assert found["floor"]["steady"]["best"] > found["floor"]["passes"] > 0
    assert found["ours"]["weights"] == 20 * 30 + 30 + 2 * 930 + 186


def test_selection_is_timed_on_scores_of_a_network(monkeypatch):
    monkeypatch.setattr(selection, "copy_bandwidth", lambda _: 1e10)
    monkeypatch.setattr(selection, "draw_scores", lambda _: [np.ones((20, 3), np.float32)] * 2)
    rows = selection.measure(selection.Config(turns=1))
    assert [row["way"] for row in rows if row["way"].startswith("torch")] == (
        ["torch.kthvalue"] * HAS_TORCH
    )
    assert rows[0]["way"] == "ours"
    assert rows[0]["over ours"] == 1.0
    assert (rows[0]["scores"], rows[0]["kept"]) == (120, 2)


def test_growth_is_measured_and_drawn(tmp_path):
    row = growth.measure(1e3, "float32", once=True)
    assert (row["weights"], row["kept"]) == (1000, 10)
    assert row["argument"] >= 4 * 1000
    rows = [row | {"size": 1e3, "dtype": "float32"}, row | {"size": 1e4, "dtype": "float32"}]
    growth.draw(rows, tmp_path / "growth.png")
    growth.show(rows, Console(record=True))
    assert (tmp_path / "growth.png").exists()


@pytest.mark.parametrize("axis", vmapped.AXES)
def test_vmap_and_separate_runs_agree(axis, monkeypatch):
    monkeypatch.setitem(NETWORKS, "fc", Timed(lambda: FC(CLASSES, 8, 2), SHAPE))
    row = vmapped.measure("fc", axis, 2, 1)
    assert row["overlap"] > 0.9  # float32, sums in another order
    assert row["ratio"] == row["separate"]["best"] / row["vmap"]["best"]


def test_the_table_names_a_contender_that_failed():
    console = Console(record=True, width=120)
    row = {"network": "fc", "contender": "ours", "failed": "more than 900 seconds"}
    console.print(shown.table(shown.ratios([row])))
    assert "more than 900 seconds" in console.export_text()
