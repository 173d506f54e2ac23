"""The round, and the loops around it: score, select, measure, and again."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from synflow_jax._types import Masks, Params, Saliency
from synflow_jax.errors import check_structure
from synflow_jax.flow_saliency import FlowSaliency
from synflow_jax.info import almost_one
from synflow_jax.prefix import prefix_size, wide_sum
from synflow_jax.scaled import Scaled, log2
from synflow_jax.schedule import Certified
from synflow_jax.select import select
from synflow_jax.tree import (
    Function,
    Layers,
    all_true,
    floating_dtype,
    is_floating,
    pick,
    place,
    widen,
)

Leaves = list[jax.Array]


class Rows(NamedTuple):
    """Measurements, one row a round; log2_flow has one more, after the last round."""

    kept: jax.Array
    log2_flow: jax.Array
    share: jax.Array
    finite: jax.Array
    idle: jax.Array


def full_masks(params: Params, layers: Layers, chosen: Leaves) -> Masks:
    """Put the masks of the prunable leaves in a tree of masks that keep all else."""
    return place(params, layers.chosen, chosen, all_true)


def _round(
    params: Params,
    saliency: Any,
    layers: Layers,
    nested: bool,
    chosen: Leaves,
    count: Callable[[Leaves, Leaves, jax.Array], jax.Array],
) -> tuple[Leaves, Rows]:
    """Score once, select as many as `count` says, and take the measurements of the round."""
    masks = full_masks(params, layers, chosen)
    if isinstance(saliency, FlowSaliency):
        flow, tree = saliency.flow_and_scores(params, masks)
    else:
        flow, tree = Scaled(jnp.float32(jnp.nan), jnp.int32(0)), saliency(params, masks)
    scores = _checked_scores(tree, params, layers)
    whole = flow.mantissa.astype(scores[0].dtype)  # in the unit of the scores
    counts = count(scores, chosen, whole)
    return _select_and_measure(scores, chosen, counts, log2(flow), whole, nested)


def _select_and_measure(
    scores: Leaves,
    chosen: Leaves,
    counts: jax.Array,
    log2_flow: jax.Array,
    whole: jax.Array,
    nested: bool,
) -> tuple[Leaves, Rows]:
    pairs = list(zip(scores, chosen, strict=True))
    ranked = [jnp.where(m, s, jnp.full_like(s, -jnp.inf)) for s, m in pairs] if nested else scores
    if counts.shape == (1,):
        new = select(ranked, chosen, counts[0])
    else:
        rows = enumerate(zip(ranked, chosen, strict=True))
        new = [select([score], [mask], counts[i])[0] for i, (score, mask) in rows]
    kept = jnp.stack([jnp.sum(mask, dtype=jnp.int32) for mask in new])
    finite = jnp.stack([jnp.all(jnp.isfinite(score)) for score in scores])
    triples = zip(scores, chosen, new, strict=True)
    lost = wide_sum([jnp.where(was & ~now, s, jnp.zeros_like(s)) for s, was, now in triples])
    divisor = jnp.where(whole > 0, whole, jnp.ones_like(whole))
    idle = jnp.stack([~jnp.any(score) for score in scores])
    return new, Rows(kept, log2_flow, 0 * whole + lost / divisor, jnp.all(finite), idle)


def _checked_scores(tree: Any, params: Params, layers: Layers) -> Leaves:
    check_structure(params, tree, "what saliency returns")
    scores = pick(tree, layers.chosen)
    for path, shape, score in zip(layers.paths, layers.shapes, scores, strict=True):
        known = hasattr(score, "dtype") and is_floating(score)
        if not known or tuple(score.shape) != shape:
            found = f"{score.dtype}{score.shape}" if hasattr(score, "dtype") else type(score)
            raise TypeError(
                f"saliency must return a floating score a weight: {path!r} has shape {shape} "
                f"and its scores are {found}"
            )
    wide = floating_dtype(widen(scores))
    return [score.astype(wide) for score in scores]


@partial(jax.jit, static_argnames=("layers", "nested"))
def fixed_loop(
    params: Params,
    held: Function,
    start: Leaves,
    counts: jax.Array,
    *,
    layers: Layers,
    nested: bool,
) -> tuple[Leaves, Rows]:
    """Run one round for each row of counts[n, competitions]."""
    saliency = held.fn

    def turn(chosen: Leaves, count: jax.Array) -> tuple[Leaves, Rows]:
        return _round(params, saliency, layers, nested, chosen, lambda *_: count)

    # A scan is a fori_loop that stacks one row of measurements a round.
    chosen, rows = lax.scan(turn, start, counts)
    after = jnp.nan
    if isinstance(saliency, FlowSaliency):
        after = log2(saliency.flow(params, full_masks(params, layers, chosen)))
    after = jnp.asarray(after, rows.log2_flow.dtype)
    return chosen, rows._replace(log2_flow=jnp.append(rows.log2_flow, after))


def _certified_count(
    scores: Leaves, chosen: Leaves, whole: jax.Array, alpha: float, target: jax.Array
) -> jax.Array:
    """Count what is left when the lowest scores with ΣS ≤ α·R go, but never below the target."""
    kept = sum((jnp.sum(mask, dtype=jnp.int32) for mask in chosen), start=jnp.int32(0))
    live = [(score > 0) & mask for score, mask in zip(scores, chosen, strict=True)]
    lives = sum((jnp.sum(one, dtype=jnp.int32) for one in live), start=jnp.int32(0))
    pairs = zip(scores, live, strict=True)
    infinity = jnp.array(jnp.inf, whole.dtype)
    lowest = jnp.stack([jnp.min(s, where=one, initial=infinity) for s, one in pairs])
    # The lowest live weight goes even beyond α, unless its going may cut the network.
    may_go = jnp.min(lowest) < almost_one(whole.dtype) * whole
    least = kept - lives + may_go.astype(jnp.int32)
    goes = jnp.maximum(prefix_size(scores, chosen, alpha * whole), least)
    return jnp.clip(kept - goes, jnp.minimum(target, kept), kept)[None]


@partial(jax.jit, static_argnames=("layers", "schedule"))
def certified_loop(
    params: Params,
    held: Function,
    start: Leaves,
    target: jax.Array,
    *,
    layers: Layers,
    schedule: Certified,
) -> tuple[Leaves, Rows, jax.Array]:
    """Run rounds that prune at most α of the flow, until the target, a standstill or the cap."""
    saliency: Any = held.fn

    def count(scores: Leaves, chosen: Leaves, whole: jax.Array) -> jax.Array:
        return _certified_count(scores, chosen, whole, schedule.alpha, target)

    def turn(state: Any) -> Any:
        i, chosen, table, _, _ = state
        new, row = _round(params, saliency, layers, True, chosen, count)
        table = jax.tree.map(lambda column, cell: column.at[i].set(cell), table, row)
        left = jnp.sum(row.kept, dtype=jnp.int32)
        before = sum(jnp.sum(mask, dtype=jnp.int32) for mask in chosen)
        return i + 1, new, table, left > target, left < before

    def unfinished(state: Any) -> jax.Array:
        i, _, _, above, moved = state
        return above & moved & (i < schedule.most)

    table = _empty_table(partial(_round, params, saliency, layers, True, start, count), schedule)
    state = (jnp.int32(0), start, table, jnp.array(True), jnp.array(True))
    i, chosen, table, _, _ = lax.while_loop(unfinished, turn, state)
    after = log2(saliency.flow(params, full_masks(params, layers, chosen)))
    return chosen, _fill(table, i, after), i


def _empty_table(turn: Callable[[], Any], schedule: Certified) -> Rows:
    row = jax.eval_shape(turn)[1]
    return jax.tree.map(lambda cell: jnp.zeros((schedule.most, *cell.shape), cell.dtype), row)


def _fill(table: Rows, rounds: jax.Array, after: jax.Array) -> Rows:
    """Let the rows of rounds that did not run read as rounds that prune nothing."""
    ran = jnp.arange(table.share.shape[0], dtype=jnp.int32) < rounds
    log2_flow = jnp.where(ran, table.log2_flow, after.astype(table.log2_flow.dtype))
    return Rows(
        kept=jnp.where(ran[:, None], table.kept, table.kept[rounds - 1][None, :]),
        log2_flow=jnp.append(log2_flow, after.astype(log2_flow.dtype)),
        share=table.share,
        finite=table.finite | ~ran,
        idle=table.idle,
    )


_select_round = jax.jit(_select_and_measure, static_argnames=("nested",))


def host_loop(
    params: Params,
    saliency: Saliency,
    layers: Layers,
    chosen: Leaves,
    counts: jax.Array,
    nested: bool,
) -> tuple[Leaves, Rows]:
    """Run the rounds of a saliency that reads data, which no compiled loop can."""
    rows = []
    for count in counts:
        tree = saliency(params, full_masks(params, layers, chosen))
        scores = _checked_scores(tree, params, layers)
        none = jnp.full((), jnp.nan, scores[0].dtype)
        chosen, row = _select_round(scores, chosen, count, none, none, nested=nested)
        rows.append(row)
    table = jax.tree.map(lambda *cells: jnp.stack(cells), *rows)
    return chosen, table._replace(log2_flow=jnp.append(table.log2_flow, table.log2_flow[:1]))
