"""Budgets: how many weights each competition keeps after each round."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax._types import Schedule, Scope
from synflow_jax.errors import CollapseWarning, is_traced
from synflow_jax.measure import count_dtype
from synflow_jax.schedule import one_shot
from synflow_jax.tree import Layers


def budgets(layers: Layers, rho: Any, rounds: int, schedule: Schedule, scope: Scope) -> Any:
    """Count what each competition keeps after each round, in float64: int[n, competitions]."""
    for name, value in (("schedule", schedule), ("scope", scope)):
        if not callable(value):
            raise TypeError(
                f"{name} must be a function such as those that synflow_jax exports, got {value!r}"
            )
    n = 1 if schedule is one_shot else rounds
    steps = np.arange(1, n + 1, dtype=np.float64)
    if not is_traced(rho):
        densities = np.asarray(schedule(steps, n, np.float64(rho)), np.float64)
        if densities.shape != (n,) or not ((densities >= 0) & (densities <= 1)).all():
            raise ValueError(
                "schedule(k, rounds, rho) must map the array k of rounds to as many densities "
                f"from 0 to 1, got {densities.tolist()}"
            )
        counts = np.asarray(scope(layers.shapes, densities))
        _check_counts(counts, layers, n)
        with jax.enable_x64(True):
            return jnp.asarray(counts, count_dtype(sum(layers.sizes)))
    with jax.enable_x64(True):  # float32 would miss by several weights in ten million
        wide = lax.convert_element_type(rho, jnp.float64)
        # What a traced rho is cannot be checked: below 1 it keeps all, NaN and infinity nothing.
        counts = scope(layers.shapes, schedule(jnp.asarray(steps), n, wide))
        most = jnp.float64(sum(layers.sizes))
        counts = jnp.clip(jnp.where(jnp.isnan(counts), 0.0, counts), 0.0, most)
        return lax.convert_element_type(counts, count_dtype(sum(layers.sizes)))


def _check_counts(counts: np.ndarray, layers: Layers, rounds: int) -> None:
    allowed = [(rounds, 1), (rounds, len(layers.paths))]
    known = counts.shape in allowed and np.isfinite(counts).all()
    sizes = np.array(layers.sizes) if counts.shape == allowed[1] else sum(layers.sizes)
    if not known or (counts < 0).any() or (counts > sizes).any():
        raise ValueError(
            f"scope must return counts of shape {allowed[0]} or {allowed[1]}, from 0 to the "
            f"weights there are, got shape {counts.shape}: {counts.tolist()}"
        )
    last = int(counts[-1].sum())
    if last < len(layers.paths):
        most = sum(layers.sizes) / len(layers.paths)
        warnings.warn(
            f"rho leaves {last} weights for {len(layers.paths)} layers, so some layer must "
            f"collapse; the largest rho without is N/L = {most:.6g}",
            CollapseWarning,
            stacklevel=4,
        )
