"""Networks with branches: a smoke run of every task, and CartPole against NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import branches
from experiments.branches import Config
from experiments.cells.branches import METHODS
from experiments.cells.tasks import NAMES, SMALL, SPELLED, part_of
from experiments.data import cartpole
from experiments.draw import branches as branches_report
from experiments.models.resnet import cifar_resnet
from experiments.records import rows as store
from experiments.training.ppo import DISCOUNT, TRACE, Budget, PolicyTrainer, Steps, _advantages
from synflow_jax import random

# Compiling takes nearly all of the time: a smoke run of two tasks, and a training of each kind.
SMOKE = Config(smoke=True, tasks=("cartpole", "digits"), methods=("fair", "random-erk"))
KINDS = ("digits", "cartpole", "decoder-2", "towers")


@pytest.fixture(scope="module", autouse=True)
def _as_a_user():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a smoke run that is done."""
    out = tmp_path_factory.mktemp("smoke")
    branches.main(branches.dataclasses.replace(SMOKE, out=out))
    return out


def test_a_comparison_leaves_rows_tables_and_figure(finished):
    rows = store.read(finished / "rows.json")
    expected = [(task, method) for task in SMOKE.tasks for method in ("dense", *SMOKE.methods)]
    assert [(row["task"], row["method"]) for row in rows] == expected
    sizes = {row["task"]: row["prunable"] for row in rows if row["method"] == "dense"}
    for row in rows:
        assert row["prunable"] == sizes[row["task"]]
        assert row["kept"] == math.ceil(row["prunable"] / row["rho"])
        assert row["kept"] == sum(row["kept_per_layer"].values())
        assert row["collapsed"] == [k for k, n in row["kept_per_layer"].items() if n == 0]
        assert not row["diverged"]
        assert math.isfinite(row["value"])
        assert row["seconds"] >= 0 < row["train_seconds"]
    assert (finished / "figure.png").read_bytes()[:4] == b"\x89PNG"
    written = (finished / "table.txt").read_text(encoding="utf-8")
    assert "digits: test accuracy (%), higher is better" in written
    assert "shortcuts" in written


def test_densities_of_parts_add_up_to_what_is_kept(finished):
    row = next(row for row in store.read(finished / "rows.json") if row["task"] == "cartpole")
    hidden, states, actions = 8, 4, 2
    weights = states * hidden + hidden**2 + hidden * actions
    assert row["density_per_part"] == {"actor": 1.0, "critic": 1.0}
    assert row["prunable"] == weights + states * hidden + hidden**2 + hidden
    rows = store.read(finished / "rows.json")
    pruned = next(row for row in rows if row["task"] == "digits" and row["rho"] > 1)
    kept = pruned["kept_per_layer"]
    inside = [n for name, n in kept.items() if "Block" in name and "Conv_2" not in name]
    total = sum(TOTALS[name] for name in kept if "Block" in name and "Conv_2" not in name)
    assert pruned["density_per_part"]["branches"] == round(sum(inside) / total, 5)


# Widths 4, 8 and 16: two 3×3 kernels in each block.
TOTALS = {
    f"Block_{i}/Conv_{j}/kernel": 9 * (wide if j else thin) * wide
    for i, (thin, wide) in enumerate(((4, 4), (4, 8), (8, 16)))
    for j in range(2)
}


def test_a_stopped_comparison_does_only_what_is_missing(finished, tmp_path, monkeypatch):
    whole = store.read(finished / "rows.json")
    store.write(tmp_path / "rows.json", whole[:-2])
    asked = []

    def once(cell, net, task):
        asked.append(cell.method)
        return {"measure": task.measure.name, "value": None, "train_seconds": 0.0}

    monkeypatch.setattr(branches, "run_one", once)
    plan = branches.prepare(branches.dataclasses.replace(SMOKE, out=tmp_path))
    rows = branches.run(plan, Console(quiet=True))
    assert asked == list(SMOKE.methods)
    assert rows[:-2] == whole[:-2]
    assert [row["config"] for row in rows] == [row["config"] for row in whole]


@pytest.mark.parametrize("name", KINDS)
def test_pruned_weights_are_zero_after_training_and_kept_ones_move(name):
    task = SMALL[name]
    net = task.start(0)
    masks = random(net.masks_key, net.params, 3.0)
    trained = task.train(net, masks)
    assert trained.finite
    jax.tree.map(lambda p, m: np.testing.assert_array_equal(p[~m], 0), trained.params, masks)
    kept = jax.tree.map(lambda p, m: p * m, net.params, masks)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), kept, trained.params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize("name", ["digits", "cartpole", "decoder-6", "towers"])
def test_every_kernel_is_in_a_part_of_its_network(name):
    task = SMALL[name]
    paths = jax.tree_util.tree_leaves_with_path(task.start(0).params)
    names = ["/".join(str(key.key) for key in path) for path, _ in paths]
    found = {part_of(path, task.parts) for path in names if path.endswith("kernel")}
    assert found == set(task.parts)


def test_every_method_has_a_line():
    assert set(METHODS) == {"dense", *branches_report.LINES} - {"magnitude"}


def by_hand(state, action):
    """CartPole-v1's own lines, in NumPy's float64."""
    x, x_dot, theta, theta_dot = state
    force = 10.0 if action == 1 else -10.0
    costheta, sintheta = np.cos(theta), np.sin(theta)
    total_mass, polemass_length = 0.1 + 1.0, 0.1 * 0.5
    temp = (force + polemass_length * theta_dot**2 * sintheta) / total_mass
    thetaacc = (9.8 * sintheta - costheta * temp) / (
        0.5 * (4.0 / 3.0 - 0.1 * costheta**2 / total_mass)
    )
    xacc = temp - polemass_length * thetaacc * costheta / total_mass
    return np.array(
        [
            x + 0.02 * x_dot,
            x_dot + 0.02 * xacc,
            theta + 0.02 * theta_dot,
            theta_dot + 0.02 * thetaacc,
        ]
    )


def test_cartpole_moves_as_published():
    state, expected = jnp.array([0.02, -0.4, 0.1, 0.7]), np.array([0.02, -0.4, 0.1, 0.7])
    for action in (1, 0, 0, 1, 1, 1):
        state, expected = cartpole.move(state, jnp.int32(action)), by_hand(expected, action)
        # float32: some roundings of 2^-24 a step, of numbers below 4
        np.testing.assert_allclose(state, expected, rtol=0, atol=5e-6)


def test_cartpole_ends_by_a_fall_or_at_the_cap():
    ends = [
        ((2.39, 0.0, 0.0, 0.0), 0, False),
        ((2.39, 1.0, 0.0, 0.0), 0, True),
        ((-2.39, -1.0, 0.0, 0.0), 0, True),
        ((0.0, 0.0, math.radians(11.9), 0.0), 0, False),
        ((0.0, 0.0, math.radians(11.9), 1.0), 0, True),
        ((0.0, 0.0, 0.0, 0.0), 498, False),
        ((0.0, 0.0, 0.0, 0.0), 499, True),
    ]
    for state, steps, over in ends:
        episode = cartpole.Episode(jnp.array(state), jnp.int32(steps))
        after, ended = cartpole.advance(episode, jnp.int32(1))
        assert bool(ended) == over
        assert after.steps == steps + 1


def test_a_policy_that_always_pushes_left_has_the_return_of_episodes_by_hand():
    class Left:
        def apply(self, variables, states):
            count = states.shape[0]
            return {"logits": jnp.tile(jnp.array([50.0, 0.0]), (count, 1)), "value": states[:, 0]}

    trainer = PolicyTrainer(Left(), Budget(1, 1, 4, 1, 1, 1e-3, 16))
    key = jax.random.key(3)
    starts = trainer._begin(jax.random.split(key)[0], 16).state
    lengths = []
    for state in np.asarray(starts, np.float64):
        lengths.append(0)
        while abs(state[0]) <= 2.4 and abs(state[2]) <= math.radians(12):
            state = by_hand(state, 0)
            lengths[-1] += 1
    assert trainer._mean_return({}, key) == np.mean(lengths)
    assert 8 < np.mean(lengths) < 11


def test_advantages_are_the_discounted_sums_of_errors():
    rng = np.random.default_rng(0)
    value, ended = rng.normal(size=(5, 2)), np.zeros((5, 2), bool)
    ended[2, 0] = True
    last = rng.normal(size=2)
    ends = np.concatenate([value, last[None]])
    expected = np.zeros((5, 2))
    for t in range(5):
        for env in range(2):
            weight = 1.0
            for s in range(t, 5):
                follows = 0.0 if ended[s, env] else ends[s + 1, env]
                expected[t, env] += weight * (1 + DISCOUNT * follows - value[s, env])
                weight *= 0.0 if ended[s, env] else DISCOUNT * TRACE
    nothing = jnp.zeros((5, 2))
    steps = Steps(nothing, nothing, nothing, jnp.asarray(value, jnp.float32), jnp.asarray(ended))
    found = _advantages(steps, jnp.asarray(last, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32, sums of five


def test_steps_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="minibatches must divide 12, the steps of an update"):
        PolicyTrainer(None, Budget(1, 3, 4, 1, 5, 1e-3, 1))


def test_a_closed_block_starts_as_its_shortcut():
    model, images = cifar_resnet(10, 8, 4, closed=True), jnp.ones((1, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    scales = {
        (block, norm): float(jnp.max(jnp.abs(leaf["scale"])))
        for block, parts in variables["params"].items()
        if block.startswith("Block")
        for norm, leaf in parts.items()
        if norm.startswith("BatchNorm")
    }
    closed = {("Block_0", "BatchNorm_1"), ("Block_1", "BatchNorm_2"), ("Block_2", "BatchNorm_2")}
    assert {where for where, scale in scales.items() if scale == 0} == closed
    other = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 2 * leaf if path[1].key == "Block_0" else leaf, variables["params"]
    )
    whole = {**variables, "params": other}
    np.testing.assert_array_equal(model.apply(variables, images), model.apply(whole, images))


def test_towers_compare_an_image_with_every_name():
    task = SMALL["towers"]
    net = task.start(0)
    images = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    pair = {"image": images, "text": jnp.array(SPELLED)}
    logits = net.apply_fn(net.params, pair)
    np.testing.assert_array_equal(logits, task.model.apply({"params": net.params}, images))
    assert logits.shape == (3, len(NAMES))
    assert jnp.abs(logits).max() <= 1.0001 / 0.07  # of unit vectors
    assert net.shape["text"].shape == (5,)


def row(method, rho, value, lost=()):
    return {
        **{"task": "digits", "method": method, "log10_rho": store.log10_key(rho), "rho": rho},
        **{"value": value, "diverged": value is None, "collapsed": [*lost], "seed": 0},
        **{"density_per_part": {"shortcuts": 0.25, "branches": 0.5}},
    }


def test_tables_mark_the_best_the_empty_and_the_diverged(tmp_path):
    rows = [row("dense", 1.0, 99.0), row("synflow", 10.0, 90.0, "ab"), row("synflow", 10.0, 92.0)]
    rows += [row("fair", 10.0, 93.0), row("fair", 10.0, None), row("random-erk", 10.0, None)]
    rows += [{**one, "task": "decoder-2"} for one in rows]
    console = Console(record=True, width=100, quiet=True)
    branches_report.show(rows, tmp_path / "table.txt", console)
    branches_report.plot(rows, tmp_path / "figure.png")
    written = (tmp_path / "table.txt").read_text(encoding="utf-8")
    assert "91.0 ± 1.4 †1" in written
    assert "93.0‡*" in written  # higher is better, of accuracies
    assert "91.000 ± 1.414 †1*" in written  # and lower, of bits
    assert "–‡" in written
    assert "25.0" in written


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tasks", (), "tasks must be one or more of"),
        ("tasks", ("cifar",), "tasks must be one or more of .*, got .'cifar'"),
        ("methods", ("magnitude",), "methods must be one or more of"),
        ("rho", (0.5,), "rho must be one or more finite numbers of at least 1, got .0.5"),
        ("seeds", 0, "seeds must be at least 1, got 0"),
    ],
)
def test_what_is_not_allowed_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        Config(**{name: value})
