"""The loops around the round: a fixed number of them, as few as are certain, or on the host."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from synflow_jax._types import Params, Saliency
from synflow_jax.cut import total
from synflow_jax.flow_saliency import FlowSaliency
from synflow_jax.info import almost_one
from synflow_jax.packing import Leaves
from synflow_jax.prefix import prefix_size
from synflow_jax.progress import start_clock, tell
from synflow_jax.scaled import Scaled, log2
from synflow_jax.schedule import Certified
from synflow_jax.tree import Function, Layers
from synflow_jax.turn import (
    Rows,
    blank_rows,
    cut_and_measure,
    first_state,
    full_masks,
    of_kept,
    one_round,
    round_or_look,
    unit_scores,
)


@partial(jax.jit, static_argnames=("layers", "nested", "progress"))
def fixed_loop(
    params: Params,
    held: Function,
    start: Leaves,
    counts: jax.Array,
    *,
    layers: Layers,
    nested: bool,
    progress: bool,
) -> tuple[Leaves, Rows]:
    """Run one round for each row of counts[n, competitions]."""
    saliency = held.fn
    parts, state = (params, saliency, layers, nested), first_state(layers, start)
    scan = partial(_telling_scan, layers, len(counts)) if progress else lax.scan
    # A scan is a fori_loop that stacks one row of measurements a round.
    if not isinstance(saliency, FlowSaliency):
        state, rows = scan(lambda s, c: one_round(*parts, s, lambda *_: c), state, counts)
        return layers.packing.unpack(state.chosen), _unmeasured(rows)
    # One turn more than rounds measures the flow that is left: a program for that alone would cost
    # more to compile than its gradient costs to run.
    look = jnp.arange(len(counts) + 1) == len(counts)
    turns = (jnp.concatenate([counts, counts[-1:]]), look)
    state, rows = scan(lambda s, now: round_or_look(*parts, s, *now), state, turns)
    rounds = jax.tree.map(lambda column: column[:-1], rows)
    return layers.packing.unpack(state.chosen), rounds._replace(log2_flow=rows.log2_flow)


def _telling_scan(layers: Layers, rounds: int, turn: Any, state: Any, xs: Any) -> Any:
    """Scan, and say after each round how far it got; a turn after the rounds says nothing."""
    started = start_clock()
    size = sum(layers.sizes)

    def told(state: Any, now: Any) -> Any:
        k, x = now
        state, row = turn(state, x)
        say = partial(tell, started, k, k == rounds, row, rounds, size)
        lax.cond(k <= rounds, say, lambda: None)
        return state, row

    turns = jax.tree.leaves(xs)[0].shape[0]
    return lax.scan(told, state, (jnp.arange(1, turns + 1, dtype=jnp.int32), xs))


def _unmeasured(rows: Rows) -> Rows:
    """Let log2_flow, NaN in every row, have the entry of the end as well."""
    return rows._replace(log2_flow=jnp.append(rows.log2_flow, rows.log2_flow[:1]))


def _certified_count(
    scores: Leaves, chosen: Leaves, whole: jax.Array, alpha: float, target: jax.Array
) -> jax.Array:
    """Count what is left when the lowest scores with ΣS ≤ α·R go, but never below the target."""
    live = [(score > 0) & mask for score, mask in zip(scores, chosen, strict=True)]
    kept, lives = total(list(zip(chosen, live, strict=True)))
    pairs = zip(scores, live, strict=True)
    infinity = jnp.array(jnp.inf, whole.dtype)
    lowest = jnp.stack([jnp.min(s, where=one, initial=infinity) for s, one in pairs])
    # The lowest live weight goes even beyond α, unless its going may cut the network.
    may_go = jnp.min(lowest) < almost_one(whole.dtype) * whole
    with jax.enable_x64(True):
        least = kept - lives + may_go.astype(jnp.int64)
        goes = jnp.maximum(prefix_size(scores, chosen, alpha * whole), least)
        return jnp.clip(kept - goes, jnp.minimum(target.astype(jnp.int64), kept), kept)[None]


@partial(jax.jit, static_argnames=("layers", "schedule", "progress"))
def certified_loop(
    params: Params,
    held: Function,
    start: Leaves,
    target: jax.Array,
    *,
    layers: Layers,
    schedule: Certified,
    progress: bool,
) -> tuple[Leaves, Rows, jax.Array]:
    """Run rounds that prune at most α of the flow, until the target, a standstill or the cap."""
    saliency: Any = held.fn
    started = start_clock() if progress else None

    def count(scores: Leaves, chosen: Leaves, whole: jax.Array) -> jax.Array:
        return _certified_count(scores, chosen, whole, schedule.alpha, target)

    def turn(state: Any) -> Any:
        i, now, table, before, _ = state
        new, row = one_round(params, saliency, layers, True, now, count)
        with jax.enable_x64(True):
            table = jax.tree.map(lambda column, cell: column.at[i].set(cell), table, row)
            left = jnp.sum(row.kept, dtype=jnp.int64)
        after = i + 1, new, table, left, left < before
        if started is not None:
            tell(started, i + 1, ~unfinished(after), row, None, sum(layers.sizes))
        return after

    def unfinished(state: Any) -> jax.Array:
        i, _, _, left, moved = state
        with jax.enable_x64(True):
            above = left > target.astype(jnp.int64)
        return (i == 0) | (above & moved & (i < schedule.most))

    first = first_state(layers, start)
    turn_once = partial(one_round, params, saliency, layers, True, first, count)
    table = blank_rows(jax.eval_shape(turn_once)[1], schedule.most)
    with jax.enable_x64(True):
        size = lax.full((), sum(layers.sizes), jnp.int64)
    state = (jnp.int32(0), first, table, size, jnp.array(True))
    i, last, table, _, _ = lax.while_loop(unfinished, turn, state)
    chosen = layers.packing.unpack(last.chosen)
    after = log2(saliency.flow(params, full_masks(params, layers, chosen)))
    return chosen, _fill(table, i, after), i


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


@partial(jax.jit, static_argnames=("layers", "nested"))
def _select_round(
    scores: Leaves, chosen: Leaves, counts: jax.Array, *, layers: Layers, nested: bool
) -> tuple[Leaves, Rows]:
    flow = Scaled(jnp.full((), jnp.nan, scores[0].dtype), jnp.int32(0))
    state, packed = first_state(layers, chosen), layers.packing.pack(scores)
    packed = of_kept(packed, state.chosen) if nested else packed
    new, row = cut_and_measure(packed, state, counts, flow, layers, nested)
    return layers.packing.unpack(new.chosen), row


def host_loop(
    params: Params,
    saliency: Saliency,
    layers: Layers,
    chosen: Leaves,
    counts: jax.Array,
    nested: bool,
    progress: bool,
) -> tuple[Leaves, Rows]:
    """Run the rounds of a saliency that reads data, which no compiled loop can."""
    rows = []
    started = start_clock() if progress else None
    for k, count in enumerate(counts, start=1):
        tree = saliency(params, full_masks(params, layers, chosen))
        scores = unit_scores(tree, params, layers, saliency)
        chosen, row = _select_round(scores, chosen, count, layers=layers, nested=nested)
        rows.append(row)
        if started is not None:
            tell(started, k, k == len(counts), row, len(counts), sum(layers.sizes))
    table = jax.tree.map(lambda *cells: jnp.stack(cells), *rows)
    return chosen, _unmeasured(table)
