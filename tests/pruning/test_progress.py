"""What is said while rounds run, and that nothing is where nothing was asked for."""

import itertools
import re
import time

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.meshes import mesh_of, spread
from tests.support.nets import batches, equal, mlp, mlp_params, squared_loss

SALIENCY = sf.synflow_saliency(mlp, (5,))


@pytest.fixture
def slow(monkeypatch):
    """Advance the clock by three seconds at each reading: progress is printed after two."""
    seconds = itertools.count(step=3.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))


def run(params, **extra):
    return sf.prune(params, SALIENCY, 4.0, 5, nested=True, **extra)


def lines(capfd):
    out, err = capfd.readouterr()
    assert not out
    return [line.strip() for line in re.split(r"[\r\n]+", err) if line.strip()]


def test_each_round_says_how_far_it_got(slow, capfd):
    params = mlp_params(0)
    masks, info = run(params, progress=True)
    said = lines(capfd)
    assert [line.split(",")[0] for line in said] == [f"round {k} of 5" for k in range(1, 6)]
    for k, line in enumerate(said):
        density, flow = re.search(r"density ([\d.]+), log2 flow ([\d.]+)", line).groups()
        assert float(density) == pytest.approx(int(info.kept[k].sum()) / 101, abs=6e-4)  # 3 digits
        assert float(flow) == pytest.approx(float(info.log2_flow[k]), abs=0.051)  # 1 decimal
    assert "left" in said[0] and "left" not in said[-1]
    assert equal(masks, run(params)[0])


def test_short_runs_say_nothing(capfd):
    run(mlp_params(1), progress=True)
    assert lines(capfd) == []


def test_it_works_inside_of_jit_and_vmap(slow, capfd):
    params = mlp_params(2)
    inside = jax.jit(lambda p: run(p, progress=True)[0])
    assert equal(inside(params), run(params)[0])
    jax.effects_barrier()
    assert len(lines(capfd)) == 5
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    jax.vmap(lambda p: run(p, progress=True)[0])(two)
    jax.effects_barrier()
    assert len(lines(capfd)) == 10


def test_it_works_on_a_mesh(slow, capfd):
    params = {"a": jax.random.normal(jax.random.key(0), (8, 16)), "c": jnp.ones((16, 8))}
    net = lambda p, x: x @ p["a"] @ p["c"]
    masks = sf.synflow(
        spread(params, mesh_of("auto"), "both"), net, (8,), 4.0, rounds=3, progress=True
    )
    assert len(lines(capfd)) == 3
    assert equal(masks, sf.synflow(params, net, (8,), 4.0, rounds=3))


def test_certified_rounds_and_rounds_on_the_host_speak_too(slow, capfd):
    params = mlp_params(3)
    info = run(params, schedule=sf.certified(), progress=True)[1]
    said = lines(capfd)
    assert len(said) == int(info.rounds)
    assert said[-1].startswith(f"round {len(said)}, density 0.257")  # ⌈101/4⌉ of 101
    sf.snip(params, squared_loss, batches(), 4.0, rounds=3, progress=True)
    assert [line.split(",")[0] for line in lines(capfd)] == [f"round {k} of 3" for k in (1, 2, 3)]


def test_a_silent_program_has_no_trace_of_it():
    params = mlp_params(4)
    program = str(jax.make_jaxpr(lambda p: run(p)[0])(params))
    assert "callback" not in program
    assert "callback" in str(jax.make_jaxpr(lambda p: run(p, progress=True)[0])(params))
