"""Budgets: how many weights each competition keeps after each round."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax._types import Schedule, Scope
from synflow_jax.errors import CollapseWarning, is_traced
from synflow_jax.schedule import one_shot
from synflow_jax.tree import Layers


def budgets(layers: Layers, rho: Any, rounds: int, schedule: Schedule, scope: Scope) -> Any:
    """Count what each competition keeps after each round, in float64: int32[n, competitions]."""
    n = 1 if schedule is one_shot else rounds
    steps = np.arange(1, n + 1, dtype=np.float64)
    if not is_traced(rho):
        counts = np.asarray(scope(layers.shapes, schedule(steps, n, np.float64(rho))))
        _check_counts(counts, layers, n)
        return jnp.asarray(np.clip(counts, 0, sum(layers.sizes)), jnp.int32)
    with jax.enable_x64(True):  # float32 would miss by several weights in ten million
        wide = lax.convert_element_type(rho, jnp.float64)
        counts = scope(layers.shapes, schedule(jnp.asarray(steps), n, wide))
        return lax.convert_element_type(counts, jnp.int32)


def _check_counts(counts: np.ndarray, layers: Layers, rounds: int) -> None:
    allowed = [(rounds, 1), (rounds, len(layers.paths))]
    if counts.shape not in allowed or not np.isfinite(counts).all():
        raise ValueError(
            f"scope must return finite counts of shape {allowed[0]} or {allowed[1]}, got "
            f"{counts.shape}; schedule must map an array of rounds to densities"
        )
    if sum(layers.sizes) >= 2**31 - 1:
        raise ValueError(f"params has {sum(layers.sizes)} prunable weights; the most is 2^31 - 2")
    last = int(counts[-1].sum())
    if last < len(layers.paths):
        most = sum(layers.sizes) / len(layers.paths)
        warnings.warn(
            f"rho leaves {last} weights for {len(layers.paths)} layers, so some layer must "
            f"collapse; the largest rho without is N/L = {most:.6g}",
            CollapseWarning,
            stacklevel=4,
        )
