"""What is timed side by side does the same: same networks, same weights, same masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from benchmarks import peers
from benchmarks.peers import floor, naive_jax
from benchmarks.shared.networks import convolving, draw, xla_convolution
from benchmarks.speed import growth, measure, run_steps, selection, vmapped
from benchmarks.speed.timed_networks import NETWORKS, Timed
from experiments.models.fc import FC
from experiments.records import machine
from synflow_jax import synflow
from synflow_jax.plan import is_prunable

SHAPE, CLASSES, WIDTH, DEPTH = (4, 5, 1), 6, 30, 3
HAS_TORCH = machine.has_torch()
# ρ = 100 in few rounds leaves tiny networks little flow, or none: what is timed is the same.
pytestmark = [
    pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning"),
    pytest.mark.filterwarnings("ignore::synflow_jax.CollapseWarning"),
]


@pytest.fixture(autouse=True)
def _as_a_user(flax_promotes, monkeypatch):
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
        assert "PyTorch" not in run_steps.Config().contenders
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


def test_the_floor_tries_both_forms_of_a_convolution():
    params, apply_fn = draw(NETWORKS["resnet20"])
    with xla_convolution():
        texts = []
        for form in floor.FORMS.values():
            with convolving(form):
                # A new function each time: what was traced before would come again.
                again = lambda p, x: apply_fn(p, x)
                traced = jax.make_jaxpr(again)(params, jnp.ones((1, 32, 32, 3)))
            texts.append("conv_general_dilated" in str(traced))
    assert texts == [True, False]


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
