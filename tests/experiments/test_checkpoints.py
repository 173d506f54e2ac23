import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training.checkpoints import Checkpoints

ROOT = Path(__file__).parents[2]
# Trains six epochs of two seeds; told an epoch, it is killed after it.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_disable_most_optimizations", True)
from experiments.training.checkpoints import Checkpoints
from experiments.data.dataset import load
from experiments.models.fc import FC
from experiments.training.optimiser import Budget
from experiments.training.trainer import Trainer
from synflow_jax import magnitude

folder, killed = Path(sys.argv[1]), int(sys.argv[2])
data, model = load("digits", examples=200), FC(10, width=20, depth=1)
keys = jax.random.split(jax.random.key(0), 2)
variables = jax.vmap(lambda key: model.init(key, jnp.ones((1, 8, 8, 1))))(keys)
masks = jax.vmap(lambda params: magnitude(params, 5.0))(variables["params"])
trainer = Trainer(model, data, Budget(6, 20, 0.05, 1e-4, None, drops=(4,)))
stored = Checkpoints(folder, {"rho": 5.0, "drops": (4,)}, every=2)
run = []
for epoch, out in enumerate(trainer.epochs(variables, masks, keys, resume=stored), start=1):
    run.append(out)
    if epoch == killed:
        os.kill(os.getpid(), signal.SIGKILL)
whole = list(trainer.epochs(variables, masks, keys))
for got, want in zip(run, whole, strict=True):
    jax.tree.map(np.testing.assert_array_equal, got[1], want[1])
jax.tree.map(np.testing.assert_array_equal, run[-1][0], whole[-1][0])
print([bool((got[0]["params"]["Dense_0"]["kernel"] ==
             want[0]["params"]["Dense_0"]["kernel"]).all()) for got, want in zip(run, whole)])
"""


class State(NamedTuple):
    params: Any
    key: Any


class Row(NamedTuple):
    top1: Any


def state(value):
    return State({"w": jnp.full((2, 3), value)}, jax.random.split(jax.random.key(int(value)), 2))


def start(folder, killed):
    command = [sys.executable, "-c", SCRIPT, str(folder), str(killed)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path):
    assert start(tmp_path / "run", 3).returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["2"]
    done = start(tmp_path / "run", 0)
    assert done.returncode == 0, done.stderr
    # The epochs that were stored yield the variables of the last of them: the first differs.
    assert done.stdout.split() == ["[False,", *["True,"] * 4, "True]"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["6"]


def test_what_is_stored_is_read_back(tmp_path):
    stored = Checkpoints(tmp_path / "one", {"rho": 5.0}, every=1)
    before, row = state(0.0), Row(jnp.zeros(2))
    assert stored.load(before, row) == (before, [])
    rows = [Row(jnp.array([0.25, np.nan])), Row(jnp.array([0.5, 0.75]))]
    stored.save(state(1.0), rows[:1])
    stored.save(state(2.0), rows)
    after, history = Checkpoints(tmp_path / "one", {"rho": 5.0}).load(before, row)
    jax.tree.map(np.testing.assert_array_equal, (after.params, history), (state(2.0).params, rows))
    assert (after.key == state(2.0).key).all()
    stored.clear()
    stored.clear()
    assert stored.load(before, row) == (before, [])


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    Checkpoints(tmp_path, {"rho": 5.0, "drops": (4,)}, every=1).save(state(1.0), [Row(jnp.ones(2))])
    other = Checkpoints(tmp_path, {"rho": 5.0, "drops": (3,), "seed": 1})
    message = r"other settings: drops is \[4\] there and \[3\] here, seed is None there and 1 here$"
    with pytest.raises(ValueError, match=message):
        other.load(state(0.0), Row(jnp.zeros(2)))


def test_every_is_a_number_of_epochs(tmp_path):
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Checkpoints(tmp_path, {}, every=0)
    Checkpoints(tmp_path / "none", {}, every=3).save(state(1.0), [Row(jnp.ones(2))] * 2)
    assert not (tmp_path / "none").exists()
