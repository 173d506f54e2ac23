"""This library, as a user calls it."""

from typing import Any

import jax
import numpy as np

from benchmarks.peers import RHO, Contender
from benchmarks.peers.naive_jax import by_path, host_masks, temporaries_of
from benchmarks.speed.timed_networks import as_pruned, loaded
from synflow_jax import synflow
from synflow_jax.plan import is_prunable


def contend(name: str, device: str) -> Contender:  # noqa: ARG001
    """Prune by `synflow`."""
    params, plain, shape = loaded(name)
    apply_fn = as_pruned(name, plain)

    def prune(rounds: int) -> Any:
        return jax.block_until_ready(synflow(params, apply_fn, shape, RHO, rounds=rounds))

    def temporaries() -> int:
        return temporaries_of(jax.jit(lambda p: synflow(p, apply_fn, shape, RHO)).lower(params))

    def on_host(masks: Any) -> dict[str, np.ndarray]:
        return host_masks(by_path(masks), by_path(params))

    sizes = {path: leaf.size for path, leaf in by_path(params).items()}
    prunable = sum(leaf.size for path, leaf in by_path(params).items() if is_prunable(path, leaf))
    return Contender(
        prune, on_host, sum(sizes.values()), prunable, any_rounds=False, temporaries=temporaries
    )
