"""A round (score, select, measure), and the loops around it: fixed, certified, on the host.

Three forms of masks: `kept` in a loop is packed (lists of arrays whose leading axis is that of
layers, entries are units), what a loop takes and returns is a list of one array a layer (units),
and a saliency sees a full tree (weights). 64-bit types are switched on only for counts, for sums,
and for where the last cut lay.
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax._progress import start_clock, tell
from synflow_jax.plan import Certified, Plan, spread_units
from synflow_jax.pruning._competitions import Trail, compete
from synflow_jax.pruning._info import almost_one
from synflow_jax.saliency import Saliency, unit_scores
from synflow_jax.scaled import Scaled, log2
from synflow_jax.selection import Leaves, count_dtype, count_true, prefix_size, unsigned_of
from synflow_jax.trees import Function, Masks, Params, all_true, lay_out_as, pick, place

Count = Callable[[Leaves, Leaves, jax.Array], jax.Array]  # (scores, masks, flow) -> counts


class State(NamedTuple):
    """What a round passes to the next."""

    kept: Leaves  # packed masks
    trail: Trail  # where it cut


class Rows(NamedTuple):
    """Measurements, one row a round.

    log2_flow has one row more, for the masks after the last round. Where a saliency that measures
    flow runs in `fixed_loop`, idle has that row too.
    """

    kept: jax.Array  # int[layers], kept units of each layer
    log2_flow: jax.Array  # before the round; NaN where the saliency measures no flow
    share: jax.Array  # ΣS of the pruned units over the flow
    finite: jax.Array  # whether every score was finite
    idle: jax.Array  # bool[layers], whether all scores of a layer were 0
    negative: jax.Array  # bool[layers], whether a score of a layer was below 0


def first_state(plan: Plan, masks: Leaves) -> State:
    """Start from masks of the layers."""
    with jax.enable_x64(True):
        nowhere = jnp.zeros((), jnp.float64)
        return State(plan.packing.pack(masks), Trail(nowhere, nowhere))


def first_masks(params: Params, plan: Plan) -> Leaves:
    """Make masks that keep every unit."""
    if not plan.units:
        return [all_true(leaf) for leaf in pick(params, plan.prunable)]
    masks: list[Any] = [np.ones(grid, bool) for grid in plan.grids]
    return masks


def full_masks(params: Params, plan: Plan, kept: Leaves) -> Masks:
    """Build the mask tree of the params: masks of units spread over weights, all else kept."""
    if plan.units:
        trios = zip(kept, plan.units, pick(params, plan.prunable), strict=True)
        kept = [lay_out_as(spread_units(m, unit, leaf.shape), leaf) for m, unit, leaf in trios]
    return place(params, plan.prunable, kept, all_true)


def _score(
    params: Params, saliency: Saliency, plan: Plan, kept: Leaves, nested: bool
) -> tuple[Scaled, Leaves]:
    """Return the flow, 1 where the saliency measures none, and the scores of all units."""
    masks = full_masks(params, plan, plan.packing.unpack(kept))
    flow, tree = saliency.flow_and_scores(params, masks)
    flow = flow if saliency.measures_flow else no_flow()
    scores = plan.packing.pack(unit_scores(tree, params, plan, saliency))
    return flow, _only_kept(scores, kept) if nested else scores


def no_flow() -> Scaled:
    """Make a number in the place of a flow that is not measured; `unmeasured` puts NaN there.

    A NaN in a compiled round would stop it under jax_debug_nans.
    """
    return Scaled(jnp.float32(1), jnp.int32(0))


def _only_kept(scores: Leaves, kept: Leaves) -> Leaves:
    """Set the scores of pruned units to −∞."""
    pairs = zip(scores, kept, strict=True)
    return [jnp.where(mask, s, jnp.full_like(s, -jnp.inf)) for s, mask in pairs]


def _in_unit(flow: Scaled, scores: Leaves) -> jax.Array:
    """Return the flow in the unit of the scores."""
    return flow.mantissa.astype(scores[0].dtype)


def one_round(
    params: Params, saliency: Saliency, plan: Plan, nested: bool, state: State, count: Count
) -> tuple[State, Rows]:
    """Score once, keep as many as count(scores, masks, flow) says, and measure."""
    flow, scores = _score(params, saliency, plan, state.kept, nested)
    counts = count(scores, state.kept, _in_unit(flow, scores))
    return _select_and_measure(scores, state, counts, flow, plan, nested)


def _round_or_measure(
    params: Params,
    saliency: Saliency,
    plan: Plan,
    nested: bool,
    state: State,
    counts: jax.Array,
    measure_only: jax.Array,
) -> tuple[State, Rows]:
    """Run a round; where `measure_only` is true, measure the flow and keep all."""
    flow, scores = _score(params, saliency, plan, state.kept, nested)

    def prune_some() -> tuple[State, Rows]:
        return _select_and_measure(scores, state, counts, flow, plan, nested)

    def keep_all() -> tuple[State, Rows]:
        return state, _flow_alone(flow, scores, state.kept, plan)

    return lax.cond(measure_only, keep_all, prune_some)


def _flow_alone(flow: Scaled, scores: Leaves, kept: Leaves, plan: Plan) -> Rows:
    """Make the row of a turn that only measures the flow; only log2_flow and idle are read."""
    count, none = len(plan.sizes), jnp.zeros((), scores[0].dtype)
    with jax.enable_x64(True):
        nothing = lax.full((count,), 0, count_dtype(max(plan.sizes)))
    pairs = zip(*map(plan.packing.in_front, (scores, kept)), strict=True)
    flows = [jnp.any((s != 0) & mask, axis=tuple(range(1, s.ndim))) for s, mask in pairs]
    idle = ~plan.packing.in_order(flows)
    return Rows(nothing, log2(flow), none, jnp.array(True), idle, jnp.zeros(count, bool))


def _select_and_measure(
    scores: Leaves, state: State, counts: jax.Array, flow: Scaled, plan: Plan, nested: bool
) -> tuple[State, Rows]:
    """Keep counts[competitions] of the scores, and measure what that did."""
    new, trail = compete(scores, state.kept, counts, state.trail, flow.exponent, plan)
    front = plan.packing.in_front
    kept, lost, top, negative = measure(front(scores), front(state.kept), front(new), nested)
    whole = _in_unit(flow, scores)
    # 0 * whole makes the share NaN where the flow is.
    share = 0 * whole + lost / jnp.where(whole > 0, whole, jnp.ones_like(whole))
    highest = plan.packing.in_order(top)
    finite = jnp.all(jnp.isfinite(highest))
    in_order = plan.packing.in_order
    rows = Rows(in_order(kept), log2(flow), share, finite, highest == 0, in_order(negative))
    return State(new, trail), rows


def measure(
    scores: Leaves, before: Leaves, after: Leaves, nested: bool = False
) -> tuple[Leaves, jax.Array, Leaves, Leaves]:
    """Measure, in one pass over scores and masks, what a round kept and what it cost.

    Args:
      scores: arrays of one floating dtype; the leading axis is that of layers.
      before: the masks that were scored.
      after: the masks that were selected.
      nested: what was pruned before has no score, whatever stands in its place.

    Returns:
      Kept units of each layer, in arrays of int32, or int64 where a layer has more than int32 can
      count; the sum, taken in float64, of the scores of what was pruned, a scalar of their dtype;
      the largest |score| of each layer, NaN where one is NaN, in arrays; and, in arrays, whether
      a score of each layer is below 0.
    """
    with jax.enable_x64(True):
        triples = zip(scores, before, after, strict=True)
        measured = (_measure_pack(*triple, nested) for triple in triples)
        kept, lost, top, negative = zip(*measured, strict=True)
        costs = [jnp.sum(part) for part in lost]
        cost = reduce(lax.add, costs)
        most = max(kept, key=lambda count: count.dtype.itemsize).dtype
        kept = [lax.convert_element_type(count, most) for count in kept]
        cost = lax.convert_element_type(cost, scores[0].dtype)
        return kept, cost, list(top), list(negative)


def _measure_pack(
    score: jax.Array, before: jax.Array, after: jax.Array, nested: bool
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    # The bits of |score| order as it does, NaN last; and XLA wants the floats of one pass alike.
    none = jnp.zeros_like(score)
    lost = jnp.where(before & ~after, score, none)
    known = jnp.where(before, score, none) if nested else score
    dtype = count_dtype(math.prod(score.shape[1:]))
    parts = (
        lax.convert_element_type(lost, jnp.float64),
        lax.convert_element_type(after, dtype),
        lax.bitcast_convert_type(jnp.abs(known), unsigned_of(score.dtype)),
        known < none,
    )
    zeros = tuple(lax.full((), 0, part.dtype) for part in parts)
    cost, kept, bits, negative = lax.reduce(parts, zeros, _combine, tuple(range(1, score.ndim)))
    return kept, cost, lax.bitcast_convert_type(bits, score.dtype), negative


def _combine(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    sums = lax.add(a[0], b[0]), lax.add(a[1], b[1])
    return *sums, lax.max(a[2], b[2]), lax.bitwise_or(a[3], b[3])


@partial(jax.jit, static_argnames=("plan", "nested", "progress"))
def fixed_loop(
    params: Params,
    held: Function,
    start: Leaves,
    counts: jax.Array,
    *,
    plan: Plan,
    nested: bool,
    progress: bool,
) -> tuple[Leaves, Rows]:
    """Run one round for each row of counts[n, competitions]; then measure the flow that is left."""
    saliency: Any = held.fn
    parts, state = (params, saliency, plan, nested), first_state(plan, start)
    telling = partial(_scan_with_progress, plan, len(counts), saliency.measures_flow)
    scan = telling if progress else lax.scan
    # A scan is a fori_loop that stacks one row of measurements a round.
    if not saliency.measures_flow:
        state, rows = scan(lambda s, c: one_round(*parts, s, lambda *_: c), state, counts)
        return plan.packing.unpack(state.kept), rows
    # One turn more than rounds measures the flow that is left: a program for that alone would cost
    # more to compile than its gradient costs to run.
    measure_only = jnp.arange(len(counts) + 1) == len(counts)
    turns = (jnp.concatenate([counts, counts[-1:]]), measure_only)
    state, rows = scan(lambda s, now: _round_or_measure(*parts, s, *now), state, turns)
    rounds = jax.tree.map(lambda column: column[:-1], rows)
    whole = {"log2_flow": rows.log2_flow, "idle": rows.idle}
    return plan.packing.unpack(state.kept), rounds._replace(**whole)


def _scan_with_progress(
    plan: Plan, rounds: int, measured: bool, turn: Any, state: Any, xs: Any
) -> Any:
    """Scan, and report progress after each round; a turn after the rounds reports nothing."""
    started = start_clock()
    size = sum(plan.sizes)

    def told(state: Any, now: Any) -> Any:
        k, x = now
        state, row = turn(state, x)
        shown = row if measured else row._replace(log2_flow=None)
        say = partial(tell, started, k, k == rounds, shown, rounds, size)
        lax.cond(k <= rounds, say, lambda: None)
        return state, row

    turns = jax.tree.leaves(xs)[0].shape[0]
    return lax.scan(told, state, (jnp.arange(1, turns + 1, dtype=jnp.int32), xs))


def unmeasured(rows: Rows) -> Rows:
    """Write NaN for flows and shares that were not measured; there is one flow more than rounds."""
    rounds = len(rows.share)
    # From NumPy: what JAX computes is checked under jax_debug_nans.
    flows = np.full(rounds + 1, np.nan, rows.log2_flow.dtype)
    shares = np.full(rounds, np.nan, rows.share.dtype)
    return rows._replace(log2_flow=jax.device_put(flows), share=jax.device_put(shares))


@partial(jax.jit, static_argnames=("plan", "schedule", "progress"))
def certified_loop(
    params: Params,
    held: Function,
    start: Leaves,
    target: jax.Array,
    *,
    plan: Plan,
    schedule: Certified,
    progress: bool,
) -> tuple[Leaves, Rows, jax.Array]:
    """Run certified rounds, until the target, a standstill or the limit of rounds."""
    saliency: Any = held.fn
    started = start_clock() if progress else None

    def count(scores: Leaves, kept: Leaves, whole: jax.Array) -> jax.Array:
        masks = full_masks(params, plan, plan.packing.unpack(kept))
        claim = saliency.least_claim(params, masks, whole, _flow_of_layers(scores, kept, plan))
        return _certified_count(scores, kept, claim, schedule.alpha, target)

    def turn(state: Any) -> Any:
        i, now, table, before, _ = state
        new, row = one_round(params, saliency, plan, True, now, count)
        with jax.enable_x64(True):
            table = jax.tree.map(lambda column, cell: column.at[i].set(cell), table, row)
            left = jnp.sum(row.kept, dtype=jnp.int64)
        after = i + 1, new, table, left, left < before
        if started is not None:
            tell(started, i + 1, ~unfinished(after), row, None, sum(plan.sizes))
        return after

    def unfinished(state: Any) -> jax.Array:
        i, _, _, left, moved = state
        with jax.enable_x64(True):
            above = left > target.astype(jnp.int64)
        return (i == 0) | (above & moved & (i < schedule.most))

    first = first_state(plan, start)
    turn_once = partial(one_round, params, saliency, plan, True, first, count)
    table = _blank_rows(jax.eval_shape(turn_once)[1], schedule.most)
    with jax.enable_x64(True):
        size = lax.full((), sum(plan.sizes), jnp.int64)
    state = (jnp.int32(0), first, table, size, jnp.array(True))
    i, last, table, _, _ = lax.while_loop(unfinished, turn, state)
    kept = plan.packing.unpack(last.kept)
    after = log2(saliency.flow(params, full_masks(params, plan, kept)))
    return kept, _fill(table, i, after), i


def _flow_of_layers(scores: Leaves, kept: Leaves, plan: Plan) -> jax.Array:
    """Sum the scores of what each layer keeps, in float64."""
    front = plan.packing.in_front
    with jax.enable_x64(True):
        sums = [
            jnp.sum(jnp.where(mask, s, 0).astype(jnp.float64), axis=tuple(range(1, s.ndim)))
            for s, mask in zip(front(scores), front(kept), strict=True)
        ]
        return lax.convert_element_type(plan.packing.in_order(sums), scores[0].dtype)


def _certified_count(
    scores: Leaves, kept: Leaves, whole: jax.Array, alpha: float, target: jax.Array
) -> jax.Array:
    """Count what a certified round keeps, never less than the target.

    It prunes every weight without flow, and the lowest scores whose sum is at most α·`whole`, at
    least the lowest one with flow unless that one carries all of `whole`: R, or the least of the
    flows that must not be lost.
    """
    live = [(score > 0) & mask for score, mask in zip(scores, kept, strict=True)]
    count, lives = count_true(list(zip(kept, live, strict=True)))
    pairs = zip(scores, live, strict=True)
    infinity = jnp.array(jnp.inf, whole.dtype)
    lowest = jnp.stack([jnp.min(s, where=one, initial=infinity) for s, one in pairs])
    # The lowest live weight goes even beyond α, unless it may carry all of the flow.
    may_go = jnp.min(lowest) < almost_one(whole.dtype) * whole
    with jax.enable_x64(True):
        least = count - lives + may_go.astype(jnp.int64)
        goes = jnp.maximum(prefix_size(scores, kept, alpha * whole), least)
        return jnp.clip(count - goes, jnp.minimum(target.astype(jnp.int64), count), count)[None]


def _blank_rows(row: Rows, *lead: int) -> Rows:
    """Make zeros of the shapes and dtypes of a row, int64 included; `lead` axes come first."""
    with jax.enable_x64(True):
        return jax.tree.map(lambda cell: lax.full((*lead, *cell.shape), 0, cell.dtype), row)


def _fill(table: Rows, rounds: jax.Array, after: jax.Array) -> Rows:
    """Make the rows of rounds that did not run read as rounds that prune nothing."""
    ran = jnp.arange(table.share.shape[0], dtype=jnp.int32) < rounds
    log2_flow = jnp.where(ran, table.log2_flow, after.astype(table.log2_flow.dtype))
    return Rows(
        kept=jnp.where(ran[:, None], table.kept, table.kept[rounds - 1][None, :]),
        log2_flow=jnp.append(log2_flow, after.astype(log2_flow.dtype)),
        share=table.share,
        finite=table.finite | ~ran,
        idle=table.idle,
        negative=table.negative,
    )


def host_loop(
    params: Params,
    saliency: Saliency,
    plan: Plan,
    kept: Leaves,
    counts: jax.Array,
    nested: bool,
    progress: bool,
) -> tuple[Leaves, Rows]:
    """Run the rounds of a saliency that reads data, which no compiled loop can."""
    rows = []
    started = start_clock() if progress else None
    for k, count in enumerate(counts, start=1):
        tree = saliency.scores(params, full_masks(params, plan, kept))
        scores = unit_scores(tree, params, plan, saliency)
        kept, row = _select_round(scores, kept, count, plan=plan, nested=nested)
        rows.append(row)
        if started is not None:
            shown = row._replace(log2_flow=None)
            tell(started, k, k == len(counts), shown, len(counts), sum(plan.sizes))
    table = jax.tree.map(lambda *cells: jnp.stack(cells), *rows)
    return kept, table


@partial(jax.jit, static_argnames=("plan", "nested"))
def _select_round(
    scores: Leaves, kept: Leaves, counts: jax.Array, *, plan: Plan, nested: bool
) -> tuple[Leaves, Rows]:
    flow = Scaled(jnp.ones((), scores[0].dtype), jnp.int32(0))
    state, packed = first_state(plan, kept), plan.packing.pack(scores)
    packed = _only_kept(packed, state.kept) if nested else packed
    new, row = _select_and_measure(packed, state, counts, flow, plan, nested)
    return plan.packing.unpack(new.kept), row
