"""Competitions within layers, groups of them and runs: what each lets stay."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.cut import key_of
from synflow_jax.layout import as_if_auto
from synflow_jax.measure import count_dtype
from synflow_jax.packing import Leaves
from synflow_jax.select import select
from synflow_jax.tree import Layers


def floored(scores: Leaves, chosen: Leaves, layers: Layers) -> Leaves:
    """Let the best of every layer, as many as its floor, win against all that is finite."""
    with jax.enable_x64(True):
        floors = jnp.asarray(np.array(layers.floors), count_dtype(max(layers.sizes)))
    best = select_all_rows(scores, chosen, floors, layers)
    return [jnp.where(b, jnp.full_like(s, jnp.inf), s) for s, b in zip(scores, best, strict=True)]


def select_groups(scores: Leaves, chosen: Leaves, counts: jax.Array, layers: Layers) -> Leaves:
    """Let each group of layers compete within itself."""
    new = list(scores)
    for group, members in enumerate(layers.members):
        sizes = tuple(size * (at in members) for at, size in enumerate(layers.sizes))
        starts, packs = layers.packing.starts(sizes), layers.packing.of_group(members)
        mine, before = ([part[at] for at in packs] for part in (scores, chosen))
        found = select(mine, before, counts[group], [starts[at] for at in packs])
        for at, mask in zip(packs, found, strict=True):
            new[at] = mask
    return new


def select_all_runs(scores: Leaves, chosen: Leaves, counts: jax.Array, layers: Layers) -> Leaves:
    """Let each run of neighbours compete within itself; what is not cut in runs stays."""
    runs, new = layers.runs, []
    triples = zip(scores, chosen, layers.packing.rows_of(counts), strict=True)
    for score, kept, count in triples:
        if not runs.cuts(score.shape[1:]):
            new.append(jnp.ones_like(kept))
            continue
        of_each = count // (math.prod(score.shape[1:]) // runs.length)
        select_some = partial(_select_runs, length=runs.length, axis=runs.axis)
        new.append(as_if_auto(select_some, score, kept, of_each))
    return new


def select_all_rows(scores: Leaves, chosen: Leaves, counts: jax.Array, layers: Layers) -> Leaves:
    """Let each layer compete within itself."""
    triples = zip(scores, chosen, layers.packing.rows_of(counts), strict=True)
    return [_select_rows(*triple) for triple in triples]


def _select_rows(scores: jax.Array, masks: jax.Array, counts: jax.Array) -> jax.Array:
    """Let each layer of a pack compete within itself."""
    if len(counts) == 1:
        return select([scores], [masks], counts[0])[0]
    return jax.vmap(lambda s, m, c: select([s], [m], c)[0])(scores, masks, counts)


def _select_runs(
    score: jax.Array, kept: jax.Array, counts: jax.Array, length: int, axis: int
) -> jax.Array:
    """Keep counts[0] of each run; ties go to those kept so far, then to the first.

    Args:
      score: [layers, …], floating.
      kept: the masks so far.
      counts: whole numbers, as many of each run as there are to stay, one a layer.
      length: M.
      axis: along which runs lie, from the end.
    """
    at = score.ndim + axis
    cut = (*score.shape[:at], score.shape[at] // length, length, *score.shape[at + 1 :])
    keys, before = key_of(score).reshape(cut), kept.reshape(cut)
    place = jax.lax.broadcasted_iota(jnp.int32, cut, at + 1)
    ahead = jnp.zeros(cut, jnp.int32)
    for j in range(length):
        key, was = (jax.lax.slice_in_dim(a, j, j + 1, axis=at + 1) for a in (keys, before))
        first = (was & ~before) | ((was == before) & (place > j))
        ahead += ((key > keys) | ((key == keys) & first)).astype(jnp.int32)
    most = counts.astype(jnp.int32).reshape(-1, *(1,) * (len(cut) - 1))
    return (ahead < most).reshape(score.shape)
