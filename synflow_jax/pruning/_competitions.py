"""Competitions: which units stay, by their scores, within a network, a layer, a group or a run.

Scores and masks are packed: lists of arrays whose leading axis is that of layers, except that a
stack of layers has its own axes, which competitions by layer move. Every competition
keeps exactly as many as its count says; ties go to what is kept so far, then to the first.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.plan import ByGroup, ByLayer, InRuns, Members, Plan, Runs, Together
from synflow_jax.selection import (
    Leaves,
    Packing,
    count_dtype,
    cut_scores,
    key_of,
    octave_of,
    select,
)
from synflow_jax.trees import as_if_auto


class Trail(NamedTuple):
    """Where the last rounds cut, for the next one to begin its search nearby."""

    cut: jax.Array  # float64: the last cut's key plus exponent × keys an octave, so that rounds
    # whose scores have different exponents compare
    drift: jax.Array  # float64: how far it moved in that round


def compete(
    scores: Leaves, kept: Leaves, counts: jax.Array, trail: Trail, exponent: jax.Array, plan: Plan
) -> tuple[Leaves, Trail]:
    """Select the units to keep, in each competition of the plan.

    Args:
      scores: in units of 2^exponent.
      kept: the masks so far.
      counts: how many each competition keeps; in runs, how many each layer keeps.
      trail: where the last rounds cut.
      exponent: int32 scalar.
      plan: says what competes.

    Returns:
      The new masks, and the trail with this cut, where there is only one.
    """
    if plan.floors:
        scores = raise_to_floors(scores, kept, plan)
    match plan.competition:
        case InRuns(runs):
            return _select_in_runs(scores, kept, counts, runs, plan), trail
        case Together():
            return _select_together(scores, kept, counts[0], trail, exponent, plan)
        case ByLayer():
            return _select_by_layer(scores, kept, counts, plan.packing), trail
        case ByGroup(members):
            return _select_by_group(scores, kept, counts, members, plan), trail


def raise_to_floors(scores: Leaves, kept: Leaves, plan: Plan) -> Leaves:
    """Set the best scores of every layer to ∞, as many as its floor, so that they stay."""
    with jax.enable_x64(True):
        floors = jnp.asarray(np.array(plan.floors), count_dtype(max(plan.sizes)))
    best = _select_by_layer(scores, kept, floors, plan.packing)
    return [jnp.where(b, jnp.full_like(s, jnp.inf), s) for s, b in zip(scores, best, strict=True)]


def _select_together(
    scores: Leaves,
    kept: Leaves,
    count: jax.Array,
    trail: Trail,
    exponent: jax.Array,
    plan: Plan,
) -> tuple[Leaves, Trail]:
    """Select among all units, and search the cut first where the last ones lead."""
    with jax.enable_x64(True):
        unit = exponent.astype(jnp.float64) * octave_of(scores[0].dtype)
        cut = cut_scores(scores, count, trail.cut + trail.drift - unit)
        now = cut.low.astype(jnp.float64) + unit
        trail = Trail(now, now - trail.cut)
    return select(scores, kept, count, plan.packing.starts(plan.sizes), cut), trail


def _select_by_group(
    scores: Leaves, kept: Leaves, counts: jax.Array, groups: Members, plan: Plan
) -> Leaves:
    new = list(scores)
    for group, members in enumerate(groups):
        sizes = tuple(size * (at in members) for at, size in enumerate(plan.sizes))
        starts, packs = plan.packing.starts(sizes), plan.packing.of_group(members)
        mine, before = ([part[at] for at in packs] for part in (scores, kept))
        found = select(mine, before, counts[group], [starts[at] for at in packs])
        for at, mask in zip(packs, found, strict=True):
            new[at] = mask
    return new


def _select_by_layer(scores: Leaves, kept: Leaves, counts: jax.Array, packing: Packing) -> Leaves:
    scores, kept = packing.in_front(scores), packing.in_front(kept)
    triples = zip(scores, kept, packing.rows_of(counts), strict=True)
    return packing.in_place([_select_rows(*triple) for triple in triples])


def _select_rows(scores: jax.Array, masks: jax.Array, counts: jax.Array) -> jax.Array:
    """Select within each layer of a pack."""
    if len(counts) == 1:
        return select([scores], [masks], counts[0])[0]
    return as_if_auto(jax.vmap(lambda s, m, c: select([s], [m], c)[0]), scores, masks, counts)


def _select_in_runs(
    scores: Leaves, kept: Leaves, counts: jax.Array, runs: Runs, plan: Plan
) -> Leaves:
    """Select within each run of neighbours; keep layers without runs whole."""
    new = []
    axes, packing = plan.axes_of(runs), plan.packing
    scores, kept = packing.in_front(scores), packing.in_front(kept)
    of_packs = (packing.rows_of(counts), packing.layers)
    for score, mask, count, layers in zip(scores, kept, *of_packs, strict=True):
        axis = axes[layers[0]]
        if axis is None:
            new.append(jnp.ones_like(mask))
            continue
        of_each = count // (math.prod(score.shape[1:]) // runs.length)
        select_some = partial(_select_runs, length=runs.length, axis=axis + 1)
        new.append(as_if_auto(select_some, score, mask, of_each))
    return packing.in_place(new)


def _select_runs(
    score: jax.Array, kept: jax.Array, counts: jax.Array, length: int, axis: int
) -> jax.Array:
    """Keep the best of each run of a pack: those that fewer than `counts` others outrank.

    Args:
      score: [layers, …], floating.
      kept: the masks so far.
      counts: how many of each run to keep, one number a layer.
      length: M.
      axis: along which runs lie.
    """
    cut = (*score.shape[:axis], score.shape[axis] // length, length, *score.shape[axis + 1 :])
    keys, before = key_of(score).reshape(cut), kept.reshape(cut)
    place = jax.lax.broadcasted_iota(jnp.int32, cut, axis + 1)
    ahead = jnp.zeros(cut, jnp.int32)
    for j in range(length):
        key, was = (jax.lax.slice_in_dim(a, j, j + 1, axis=axis + 1) for a in (keys, before))
        first = (was & ~before) | ((was == before) & (place > j))
        ahead += ((key > keys) | ((key == keys) & first)).astype(jnp.int32)
    most = counts.astype(jnp.int32).reshape(-1, *(1,) * (len(cut) - 1))
    return (ahead < most).reshape(score.shape)
