"""Two processes, joined by `jax.distributed`, prune as one does."""

from benchmarks.devices.distributed import compare


def test_two_processes_find_the_masks_of_one(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # small arrays: compiling is all
    found = compare(processes=2, devices=2, limit=120.0)
    assert found["shards of others"]  # no process holds all
    assert found["differing entries"] == [0, 0]
    assert found["laid out as params"]
    assert found["kept"] == [2048] * 3
    assert max(found["log2 flow"]) - min(found["log2 flow"]) < 1e-12
