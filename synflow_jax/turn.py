"""One round: score, select, measure.

Masks and scores are packed: lists of arrays whose leading axis is that of layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax._types import Masks, Params
from synflow_jax.compete import floored, select_all_rows, select_all_runs, select_groups
from synflow_jax.cut import Cut, cut_scores, octave_of
from synflow_jax.errors import check_structure
from synflow_jax.flow_saliency import FlowSaliency
from synflow_jax.layout import as_if_auto, laid_as
from synflow_jax.measure import count_dtype, measure
from synflow_jax.packing import Leaves
from synflow_jax.scaled import Scaled, log2
from synflow_jax.select import select
from synflow_jax.tiles import spread_units, sum_units
from synflow_jax.tree import (
    Layers,
    all_true,
    floating_dtype,
    is_floating,
    pick,
    place,
    widen,
)

Count = Callable[[Leaves, Leaves, jax.Array], jax.Array]


class State(NamedTuple):
    """What a round hands on: the masks, and where it cut, as the next one cuts nearby."""

    chosen: Leaves
    cut: jax.Array  # float64: the key of the last cut, of scores in units of 1
    drift: jax.Array  # float64: how far it had moved in that round


class Rows(NamedTuple):
    """Measurements, one row a round; log2_flow has one more, after the last round."""

    kept: jax.Array
    log2_flow: jax.Array
    share: jax.Array
    finite: jax.Array
    idle: jax.Array


def first_state(layers: Layers, masks: Leaves) -> State:
    """Start with the masks of the prunable leaves, in the order of the layers."""
    with jax.enable_x64(True):
        nowhere = jnp.zeros((), jnp.float64)
        return State(layers.packing.pack(masks), nowhere, nowhere)


def full_masks(params: Params, layers: Layers, chosen: Leaves) -> Masks:
    """Put the masks of the prunable leaves in a tree of masks that keep all else."""
    if layers.blocks:
        trios = zip(chosen, layers.blocks, pick(params, layers.chosen), strict=True)
        chosen = [laid_as(spread_units(m, block, leaf.shape), leaf) for m, block, leaf in trios]
    return place(params, layers.chosen, chosen, all_true)


def first_masks(params: Params, layers: Layers) -> Leaves:
    """Keep every unit of the prunable leaves."""
    if not layers.blocks:
        return [all_true(leaf) for leaf in pick(params, layers.chosen)]
    masks: list[Any] = [np.ones(shape, bool) for shape in layers.shapes]
    return masks


def score(
    params: Params, saliency: Any, layers: Layers, chosen: Leaves, nested: bool
) -> tuple[Scaled, Leaves]:
    """Return the flow, NaN where it is not measured, and the scores."""
    masks = full_masks(params, layers, layers.packing.unpack(chosen))
    if isinstance(saliency, FlowSaliency):
        flow, tree = saliency.flow_and_scores(params, masks)
    else:
        flow, tree = Scaled(jnp.float32(jnp.nan), jnp.int32(0)), saliency(params, masks)
    scores = layers.packing.pack(unit_scores(tree, params, layers, saliency))
    return flow, of_kept(scores, chosen) if nested else scores


def in_unit(flow: Scaled, scores: Leaves) -> jax.Array:
    """Give the flow in the unit of the scores."""
    return flow.mantissa.astype(scores[0].dtype)


def of_kept(scores: Leaves, chosen: Leaves) -> Leaves:
    """Put what is pruned behind all that is not."""
    pairs = zip(scores, chosen, strict=True)
    return [jnp.where(mask, s, jnp.full_like(s, -jnp.inf)) for s, mask in pairs]


def one_round(
    params: Params, saliency: Any, layers: Layers, nested: bool, state: State, count: Count
) -> tuple[State, Rows]:
    """Score once, select as many as count(scores, masks, flow) says, and measure."""
    flow, scores = score(params, saliency, layers, state.chosen, nested)
    counts = count(scores, state.chosen, in_unit(flow, scores))
    return cut_and_measure(scores, state, counts, flow, layers, nested)


def round_or_look(
    params: Params,
    saliency: Any,
    layers: Layers,
    nested: bool,
    state: State,
    counts: jax.Array,
    look: jax.Array,
) -> tuple[State, Rows]:
    """Run a round; where `look` is true, measure the flow and keep all."""
    flow, scores = score(params, saliency, layers, state.chosen, nested)

    def cut() -> tuple[State, Rows]:
        return cut_and_measure(scores, state, counts, flow, layers, nested)

    def keep() -> tuple[State, Rows]:
        return state, _row_of_rest(flow, scores, layers)

    return lax.cond(look, keep, cut)


def _row_of_rest(flow: Scaled, scores: Leaves, layers: Layers) -> Rows:
    """Make the row of a turn that prunes nothing; log2_flow alone says something."""
    count, none = len(layers.sizes), jnp.zeros((), scores[0].dtype)
    with jax.enable_x64(True):
        kept = lax.full((count,), 0, count_dtype(max(layers.sizes)))
    return Rows(kept, log2(flow), none, jnp.array(True), jnp.zeros(count, bool))


def blank_rows(row: Rows, *lead: int) -> Rows:
    """Make zeros of the shapes and dtypes of a row, int64 included; `lead` axes come first."""
    with jax.enable_x64(True):
        return jax.tree.map(lambda cell: lax.full((*lead, *cell.shape), 0, cell.dtype), row)


def cut_and_measure(
    scores: Leaves, state: State, counts: jax.Array, flow: Scaled, layers: Layers, nested: bool
) -> tuple[State, Rows]:
    """Keep counts[competitions] of the scores, and measure what that did."""
    chosen, packing = state.chosen, layers.packing
    fair = floored(scores, chosen, layers) if layers.floors else scores
    if layers.runs:
        new = select_all_runs(fair, chosen, counts, layers)
    elif counts.shape == (1,):
        found, state = _cut_nearby(fair, counts[0], state, flow.exponent)
        new = select(fair, chosen, counts[0], packing.starts(layers.sizes), found)
    elif counts.shape == (len(layers.paths),):
        new = select_all_rows(fair, chosen, counts, layers)
    else:
        new = select_groups(fair, chosen, counts, layers)
    kept, lost, top = measure(scores, chosen, new, nested)
    whole = in_unit(flow, scores)
    share = 0 * whole + lost / jnp.where(whole > 0, whole, jnp.ones_like(whole))
    highest = packing.in_order(top)
    finite = jnp.all(jnp.isfinite(highest))
    rows = Rows(packing.in_order(kept), log2(flow), share, finite, highest == 0)
    return state._replace(chosen=new), rows


def _cut_nearby(
    scores: Leaves, count: jax.Array, state: State, exponent: jax.Array
) -> tuple[Cut, State]:
    """Look for the cut first where the last ones lead, whatever the unit 2^exponent is."""
    with jax.enable_x64(True):
        unit = exponent.astype(jnp.float64) * octave_of(scores[0].dtype)
        cut = cut_scores(scores, count, state.cut + state.drift - unit)
        now = cut.low.astype(jnp.float64) + unit
        return cut, state._replace(cut=now, drift=now - state.cut)


def checked_scores(tree: Any, params: Params, layers: Layers) -> Leaves:
    """Refuse what are no scores, and bring the rest to one dtype."""
    check_structure(params, tree, "what saliency returns")
    scores = pick(tree, layers.chosen)
    for path, leaf, score in zip(layers.paths, pick(params, layers.chosen), scores, strict=True):
        known, shape = hasattr(score, "dtype") and is_floating(score), tuple(leaf.shape)
        if not known or tuple(score.shape) != shape:
            found = f"{score.dtype}{score.shape}" if hasattr(score, "dtype") else type(score)
            raise TypeError(
                f"saliency must return a floating score a weight: {path!r} has shape {shape} "
                f"and its scores are {found}"
            )
    scores = list(map(jnp.asarray, scores))  # NumPy's float64 is float32 here, unless x64 is on
    wide = floating_dtype(widen(scores))
    return [score.astype(wide) for score in scores]


def unit_scores(tree: Any, params: Params, layers: Layers, saliency: Any) -> Leaves:
    """Give the scores of units: the sums of their weights', or what the saliency has for them."""
    scores = checked_scores(tree, params, layers)
    of_unit = getattr(saliency, "of_unit", sum_units)
    if not layers.blocks:
        return scores
    pairs = zip(scores, layers.blocks, strict=True)
    return [as_if_auto(partial(of_unit, block=block), score, whole=True) for score, block in pairs]
