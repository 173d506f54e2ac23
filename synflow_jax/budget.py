"""Budgets: how many weights each competition keeps after each round."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax._types import Schedule, Scope
from synflow_jax.errors import CollapseWarning, is_traced
from synflow_jax.measure import count_dtype
from synflow_jax.schedule import one_shot
from synflow_jax.scope import sizes_of
from synflow_jax.tree import Layers


def budgets(
    layers: Layers, ratios: Sequence[Any], rounds: int, schedule: Schedule, scope: Scope
) -> Any:
    """Count what each competition keeps after each round, in float64: int[n, competitions].

    `ratios` has one ρ a group of layers. Competitions are one for all, one a group or one a layer.
    """
    for name, value in (("schedule", schedule), ("scope", scope)):
        if not callable(value):
            raise TypeError(
                f"{name} must be a function such as those that synflow_jax exports, got {value!r}"
            )
    n = 1 if schedule is one_shot else rounds
    members = layers.members
    shapes = [tuple(layers.shapes[i] for i in group) for group in members]
    pairs = list(zip(shapes, ratios, strict=True))
    if not is_traced(ratios):
        parts = [_known(own, float(rho), n, schedule, scope) for own, rho in pairs]
        counts = _joined(np, parts, members, layers)
        _check_sum(counts, members, layers)
        with jax.enable_x64(True):
            return jnp.asarray(counts, count_dtype(sum(layers.sizes)))
    with jax.enable_x64(True):  # float32 would miss by several weights in ten million
        parts = [_traced(own, rho, n, schedule, scope) for own, rho in pairs]
        counts = _joined(jnp, parts, members, layers)
        return lax.convert_element_type(counts, count_dtype(sum(layers.sizes)))


def _steps(n: int) -> np.ndarray:
    return np.arange(1, n + 1, dtype=np.float64)


def _known(shapes: Any, rho: float, n: int, schedule: Schedule, scope: Scope) -> np.ndarray:
    densities = np.asarray(schedule(_steps(n), n, np.float64(rho)), np.float64)
    if densities.shape != (n,) or not ((densities >= 0) & (densities <= 1)).all():
        raise ValueError(
            "schedule(k, rounds, rho) must map the array k of rounds to as many densities "
            f"from 0 to 1, got {densities.tolist()}"
        )
    counts = np.asarray(scope(shapes, densities))
    _check_counts(counts, shapes, n)
    return counts


def _traced(shapes: Any, rho: Any, n: int, schedule: Schedule, scope: Scope) -> jax.Array:
    """Count for a ρ that cannot be checked: below 1 it keeps all, NaN and infinity nothing."""
    wide = lax.convert_element_type(rho, jnp.float64)
    counts = scope(shapes, schedule(jnp.asarray(_steps(n)), n, wide))
    most = jnp.float64(sizes_of(shapes).sum())
    return jnp.clip(jnp.where(jnp.isnan(counts), 0.0, counts), 0.0, most)


def _check_counts(counts: np.ndarray, shapes: Any, rounds: int) -> None:
    sizes = sizes_of(shapes)
    allowed = [(rounds, 1), (rounds, len(shapes))]
    known = counts.shape in allowed and np.isfinite(counts).all()
    most = sizes if counts.shape == allowed[1] else sizes.sum()
    if not known or (counts < 0).any() or (counts > most).any():
        raise ValueError(
            f"scope must return counts of shape {allowed[0]} or {allowed[1]}, from 0 to the "
            f"weights there are, got shape {counts.shape}: {counts.tolist()}"
        )


def _joined(xp: Any, parts: list[Any], members: list[list[int]], layers: Layers) -> Any:
    """Put the counts of groups side by side, each at least as large as its floors."""
    floors = np.array(layers.floors or (0,) * len(layers.paths), np.float64)
    if all(part.shape[1] == 1 for part in parts):
        counts = xp.concatenate(parts, axis=1)
        least = np.array([floors[group].sum() for group in members])
        if xp is np:
            _check_floors(counts[-1], least, members, layers)
        return xp.maximum(counts, least[None])
    if any(part.shape[1] != len(group) for part, group in zip(parts, members, strict=True)):
        raise ValueError(
            "scope must return counts of one kind for all groups of rho, one a group or one a "
            f"layer, got {[part.shape[1] for part in parts]} for groups of "
            f"{[len(group) for group in members]} layers"
        )
    order = np.argsort([i for group in members for i in group])
    return xp.maximum(xp.concatenate(parts, axis=1)[:, order], floors[None])


def _check_floors(
    last: np.ndarray, least: np.ndarray, members: list[list[int]], layers: Layers
) -> None:
    for kept, floor, group in zip(last, least, members, strict=True):
        if kept < floor:
            most = sum(layers.sizes[i] for i in group) / floor
            raise ValueError(
                f"rho leaves {kept:.0f} {layers.units}{_named(group, layers)} and min_keep asks "
                f"for {floor:.0f}: pass a smaller min_keep, or at most {most:.6g} as rho"
            )


def _check_sum(counts: np.ndarray, members: list[list[int]], layers: Layers) -> None:
    """Warn where a group keeps fewer units than it has layers."""
    last = counts[-1]
    for at, group in enumerate(members):
        kept = int(last[at] if len(last) == len(members) else last[group].sum())
        if kept < len(group):
            most = sum(layers.sizes[i] for i in group) / len(group)
            warnings.warn(
                f"rho leaves {kept} {layers.units} for {len(group)} layers{_named(group, layers)}, "
                f"so some layer must collapse; the largest rho without is N/L = {most:.6g}",
                CollapseWarning,
                stacklevel=5,  # who called synflow or magnitude
            )


def _named(group: list[int], layers: Layers) -> str:
    whole = len(group) == len(layers.paths)
    return "" if whole else f" of {', '.join(layers.paths[i] for i in group)}"
