"""The table of primitives: all that compaction knows of each operation of JAX.

To teach compaction a primitive, add an entry to `PRIMITIVES`, at the end of this file. Functions of
single entries (`erf_inv`, `clamp`) come from `jaxpr.ELEMENTWISE`, which flow mode shares. The
fields of `Primitive` are the columns of the table; the functions above the table fill them, and are
named by their column: `follow_dot`, `needs_dot`, `cost_dot`. A primitive without an entry is not
followed: everything that it touches stays whole, and it is named in `Compact.lost`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax.compaction._followed import Followed
from synflow_jax.compaction._reshape import reshaped
from synflow_jax.compaction._units import Axes, Stays, taken, whole_axis, widths
from synflow_jax.jaxpr import ELEMENTWISE, Listing, Step, bind

Arrays = list[np.ndarray]  # of each operand, or each result, of a step: a bool for every entry
Entries = dict[int, np.ndarray]  # the same, by number of value
Needs = Iterator[tuple[np.ndarray, np.ndarray]]  # units of an axis, and which some term needs


def alive_everywhere(listing: Listing, step: Step, _operands: Arrays) -> Arrays:
    """Return True for every entry of the results."""
    return [np.ones(listing.shape(number), bool) for number in step.results]


def shrink_nothing(
    step: Step, operands: list[Any], _inside: list[Stays], _outside: list[Stays]
) -> list[Any]:
    """Run the primitive as it is: it takes its sizes from its operands."""
    return bind(step.eqn, operands)


class Primitive(NamedTuple):
    """An entry of the table: what compaction knows of one primitive.

    Attributes:
      follow: follow(state, step, operands) -> of each result, the units along each axis, given
        those of each operand. It joins units that stay or go together, and keeps units whole that
        must stay.
      alive: alive(listing, step, operands) -> where each result may be other than 0, given where
        each operand may be. The default is everywhere.
      varies: varies(listing, step, varying, alive) -> where each result may vary with the inputs,
        given where each operand may vary, and where it may be other than 0. None takes
        alive(listing, step, varying), which may answer True too often, never too rarely.
      needs: of sums, needs(state, step, nonzero, kept) yields, for each axis that is summed over,
        its units, and which of them add a term that may be other than 0 to a result that stays.
        None is for primitives that sum over no units, or whose summed axis `follow` keeps whole.
      shrink: shrink(step, operands, inside, outside) -> the results, computed on the positions that
        stay; inside and outside tell which positions stay along each axis of the operands and of
        the results. It is called where some position is removed. The default runs the primitive as
        it is.
      cost: cost(state, step) -> the names of the units along the axes whose widths multiply to its
        multiply-adds. None is for primitives that are not counted.
    """

    follow: Callable[[Followed, Step, Sequence[Axes]], Sequence[Axes]]
    alive: Callable[[Listing, Step, Arrays], Arrays] = alive_everywhere
    varies: Callable[[Listing, Step, Arrays, Arrays], Arrays] | None = None
    needs: Callable[[Followed, Step, Entries, np.ndarray], Needs] | None = None
    shrink: Callable[[Step, list[Any], list[Stays], list[Stays]], list[Any]] = shrink_nothing
    cost: Callable[[Followed, Step], Axes] | None = None


# Primitives that are not followed.


def follow_unknown(state: Followed, step: Step, _operands: Sequence[Axes]) -> list[Axes]:
    """Keep everything whole that the primitive touches, and list its equation as lost."""
    state.lost.append(step.eqn)
    for number in step.operands:
        state.keep_whole(number)
    return [tuple(map(whole_axis, state.shape(number))) for number in step.results]


# Sums, and operations that move entries without changing them.


def alive_moved(listing: Listing, step: Step, operands: Arrays) -> Arrays:
    """Run the primitive on 1 where an operand may be other than 0: the result is not 0 there."""
    avals = [listing.avals[number] for number in step.operands]
    if not all(jnp.issubdtype(a.dtype, jnp.number) or a.dtype == jnp.bool_ for a in avals):
        return alive_everywhere(listing, step, operands)
    ones = [jnp.asarray(array, aval.dtype) for array, aval in zip(operands, avals, strict=True)]
    return [np.asarray(result) != 0 for result in bind(step.eqn, ones)]


def alive_sum(listing: Listing, step: Step, operands: Arrays) -> Arrays:
    """Run a sum on 0 and 1: it is not 0 exactly where some term is not."""
    dtypes = [listing.avals[number].dtype for number in step.results]
    if any(jnp.issubdtype(d, jnp.integer) and jnp.iinfo(d).bits < 32 for d in dtypes):
        return alive_everywhere(listing, step, operands)  # 256 ones add up to 0 in int8
    return alive_moved(listing, step, operands)


def varies_product(listing: Listing, step: Step, varying: Arrays, alive: Arrays) -> Arrays:
    """A sum of products varies where either factor of a term may."""
    first = alive_sum(listing, step, [varying[0], alive[1]])
    second = alive_sum(listing, step, [alive[0], varying[1]])
    return [a | b for a, b in zip(first, second, strict=True)]


def some_alive(array: np.ndarray, stays: Stays, axes: Sequence[int]) -> np.ndarray:
    """Return, at each position of `axes`, whether any entry that stays there is True."""
    others = [k for k in range(array.ndim) if k not in axes]
    small = array
    for k in others:
        if not stays[k].all():
            small = np.compress(stays[k], small, axis=k)
    rows = np.moveaxis(small, axes, range(len(axes)))
    return np.logical_or.reduce(rows, axis=tuple(range(len(axes), rows.ndim)))


# Functions of single entries.


def follow_elementwise(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Join the axes of all operands."""
    found = []
    for axis, size in enumerate(state.shape(step.results[0])):
        there = [axes[axis] for axes in operands if axes]
        alike = [ids for ids in there if len(ids) == size]
        for ids in there:
            if len(ids) != size:  # an axis of size 1 is spread along the others, which all read it
                state.units.keep_whole(ids)
        for other in alike[1:]:
            state.units.join(alike[0], other)
        found.append(alike[0])
    return [tuple(found)]


def alive_function(listing: Listing, step: Step, operands: Arrays) -> Arrays:
    """A function f with f(0, …, 0) = 0 is 0 where all operands are; scalar constants are put in."""
    constants = [listing.known.get(number) for number in step.operands]
    fixed = [value is not None and np.size(value) == 1 for value in constants]
    values = [value if hit else None for value, hit in zip(constants, fixed, strict=True)]
    if not _keeps_zero(listing, step, values):
        return alive_everywhere(listing, step, operands)
    spread = _spread(listing, step, operands)
    free = [array for array, hit in zip(spread, fixed, strict=True) if not hit]
    return [np.logical_or.reduce([np.zeros(listing.shape(step.results[0]), bool), *free])]


def alive_factors(listing: Listing, step: Step, operands: Arrays) -> Arrays:
    """A product is 0 where any factor is."""
    return [np.logical_and.reduce(_spread(listing, step, operands))]


def alive_numerator(listing: Listing, step: Step, operands: Arrays) -> Arrays:
    """A quotient is 0 where its numerator is."""
    return [_spread(listing, step, operands)[0]]


def alive_cases(listing: Listing, step: Step, operands: Arrays) -> Arrays:
    """A choice is 0 where all its cases are."""
    return [np.logical_or.reduce(_spread(listing, step, operands)[1:])]


def varies_elementwise(listing: Listing, step: Step, varying: Arrays, _alive: Arrays) -> Arrays:
    """A result varies where any operand does."""
    return [np.logical_or.reduce(_spread(listing, step, varying))]


def _spread(listing: Listing, step: Step, arrays: Arrays) -> Arrays:
    shape = listing.shape(step.results[0])
    return [np.broadcast_to(array, shape) for array in arrays]


def _keeps_zero(listing: Listing, step: Step, constants: list[Any]) -> bool:
    """Whether the function is 0 where all operands but its constants are."""
    try:
        args = [
            jnp.zeros((), listing.avals[number].dtype) if value is None else jnp.reshape(value, ())
            for number, value in zip(step.operands, constants, strict=True)
        ]
        return bool((bind(step.eqn, args)[0] == 0).all())
    except (TypeError, ValueError):  # keys, tracers or shapes: nothing is known of the function
        return False


# Sources: values that are made, not computed from units.


def follow_source(state: Followed, step: Step, _operands: Sequence[Axes]) -> list[Axes]:
    """Follow an operation that makes its own values (iota, random bits): all units are new."""
    for number in step.operands:
        state.keep_whole(number)
    return [tuple(map(state.units.fresh, state.shape(number))) for number in step.results]


def shrink_source(
    step: Step, operands: list[Any], _inside: list[Stays], outside: list[Stays]
) -> list[Any]:
    """Make the whole results, and take what stays of them."""
    results = bind(step.eqn, operands)
    return [taken(result, stays) for result, stays in zip(results, outside, strict=True)]


def follow_bitcast(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    """Pass entries that keep their size; entries that are cut or merged are not followed."""
    alike = state.shape(step.operands[0]) == state.shape(step.results[0])
    return operands if alike else follow_unknown(state, step, operands)


# Matrix products.


def follow_dot(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Join the axes that are contracted, and those of the batch, with their partners."""
    (contract, batch), (left, right) = step.eqn.params["dimension_numbers"], operands
    for pairs in (contract, batch):
        for a, b in zip(*pairs, strict=True):
            state.units.join(left[a], right[b])
    rest = [
        tuple(ids for k, ids in enumerate(axes) if k not in (*contract[side], *batch[side]))
        for side, axes in enumerate((left, right))
    ]
    return [(*(left[k] for k in batch[0]), *rest[0], *rest[1])]


def needs_dot(state: Followed, step: Step, nonzero: Entries, kept: np.ndarray) -> Needs:
    """A position is needed where both factors may be other than 0, in a batch that stays."""
    contract, batch = step.eqn.params["dimension_numbers"]
    sides = []
    for side, number in enumerate(step.operands):
        axes = (*batch[side], *contract[side])
        sides.append(some_alive(nonzero[number], state.stays(number, kept), axes))
    both, shared = sides[0] & sides[1], len(batch[0])
    stays = state.stays(step.operands[0], kept)
    for place, axis in enumerate(batch[0]):
        both = np.compress(stays[axis], both, axis=place)
    terms = np.logical_or.reduce(both, axis=tuple(range(shared)))
    for place, axis in enumerate(contract[0]):
        others = tuple(k for k in range(terms.ndim) if k != place)
        yield state.of(step.operands[0])[axis], np.logical_or.reduce(terms, axis=others)


def cost_dot(state: Followed, step: Step) -> Axes:
    """Every entry of the result takes one multiply-add for each contracted position."""
    contracted = step.eqn.params["dimension_numbers"][0][0]
    left = state.names(step.operands[0])
    return (*state.names(step.results[0]), *(left[k] for k in contracted))


# Convolutions.


def follow_conv(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    """Join the channels of the input with those of the kernel; spatial axes stay whole."""
    p, (x, kernel) = step.eqn.params, operands
    if p["batch_group_count"] != 1:
        return follow_unknown(state, step, operands)
    lhs, rhs, out = p["dimension_numbers"]
    for ids in [x[k] for k in lhs[2:]] + [kernel[k] for k in rhs[2:]]:
        state.units.keep_whole(ids)
    groups, features, channels = p["feature_group_count"], kernel[rhs[0]], x[lhs[1]]
    if groups == 1:
        state.units.join(channels, kernel[rhs[1]])
    else:  # a group is one unit: its outputs go with its inputs
        state.units.keep_whole(kernel[rhs[1]])
        first = channels.reshape(groups, -1)[:, :1]
        for ids in (channels, features):
            rows = ids.reshape(groups, -1)
            state.units.join(rows, np.broadcast_to(first, rows.shape))
    found = [whole_axis(size) for size in state.shape(step.results[0])]
    found[out[0]], found[out[1]] = x[lhs[0]], features
    return [tuple(found)]


def needs_conv(state: Followed, step: Step, nonzero: Entries, kept: np.ndarray) -> Needs:
    """An input channel is needed where it and its slice of the kernel may be other than 0."""
    lhs, rhs, _ = step.eqn.params["dimension_numbers"]
    if step.eqn.params["feature_group_count"] == 1:
        x, kernel = step.operands
        fed = some_alive(nonzero[x], state.stays(x, kept), (lhs[1],))
        leads = some_alive(nonzero[kernel], state.stays(kernel, kept), (rhs[1],))
        yield state.of(x)[lhs[1]], fed & leads


def shrink_conv(
    step: Step, operands: list[Any], inside: list[Stays], outside: list[Stays]
) -> list[Any]:
    """Run the convolution with the groups that are left."""
    p, numbers, (x, kernel) = step.eqn.params, step.eqn.params["dimension_numbers"], operands
    groups = p["feature_group_count"]
    if not x.size or not kernel.size:  # an empty sum
        return [jnp.zeros(widths(outside[0]), p["preferred_element_type"] or x.dtype)]
    left = inside[0][numbers.lhs_spec[1]].reshape(groups, -1)[:, 0].sum() if groups > 1 else 1
    return [
        lax.conv_general_dilated(
            x,
            kernel,
            window_strides=p["window_strides"],
            padding=p["padding"],
            lhs_dilation=p["lhs_dilation"],
            rhs_dilation=p["rhs_dilation"],
            dimension_numbers=numbers,
            feature_group_count=int(left),
            precision=p["precision"],
            preferred_element_type=p["preferred_element_type"],
        )
    ]


def cost_conv(state: Followed, step: Step) -> Axes:
    """Every entry of the result takes one multiply-add for each entry of one filter."""
    features = step.eqn.params["dimension_numbers"].rhs_spec[0]
    kernel = state.names(step.operands[1])
    one_filter = (ids for k, ids in enumerate(kernel) if k != features)
    return (*state.names(step.results[0]), *one_filter)


# Reductions, windows, and operations along an axis.


def follow_sum(_state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Drop the axes that are summed over; their units may be removed."""
    gone = step.eqn.params["axes"]
    return [tuple(ids for k, ids in enumerate(operands[0]) if k not in gone)]


def needs_sum(state: Followed, step: Step, nonzero: Entries, kept: np.ndarray) -> Needs:
    """A position of a summed axis is needed where some entry there may be other than 0."""
    number = step.operands[0]
    stays = state.stays(number, kept)
    for axis in step.eqn.params["axes"]:
        yield state.of(number)[axis], some_alive(nonzero[number], stays, (axis,))


def follow_reduction(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Drop the axes that are reduced, and keep them whole: zeros count in a maximum or product."""
    for k in step.eqn.params["axes"]:
        state.units.keep_whole(operands[0][k])
    return follow_sum(state, step, operands)


def follow_window(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Pass the axes of window size 1, and keep the others whole."""
    p, shape = step.eqn.params, state.shape(step.results[0])
    window = p["window_dimensions"]
    trios = zip(window, shape, operands[0], strict=True)
    spans = [size != 1 or n != len(ids) for size, n, ids in trios]
    wide = [axes for axes in operands if len(axes) == len(window)]
    for axes in wide:
        for k, ids in enumerate(axes):
            if spans[k]:
                state.units.keep_whole(ids)
            else:
                state.units.join(wide[0][k], ids)
    found = tuple(whole_axis(n) if spans[k] else wide[0][k] for k, n in enumerate(shape))
    return [found] * len(step.results)


def follow_along(
    param: str, state: Followed, step: Step, operands: Sequence[Axes]
) -> Sequence[Axes]:
    """Keep the axis whole that the operation runs along, and join the others of all operands."""
    axis = step.eqn.params[param]
    for axes in operands:
        state.units.keep_whole(axes[axis])
        for a, b in zip(operands[0], axes, strict=True):
            state.units.join(a, b)
    return [operands[0]] * len(step.results)


# Operations that move axes and positions.


def follow_each(_state: Followed, _step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    """Follow an operation of several operands that returns each of them unchanged."""
    return operands


def follow_transpose(_state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Permute the axes."""
    return [tuple(operands[0][k] for k in step.eqn.params["permutation"])]


def follow_rev(_state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Reverse the axes that are turned."""
    turned = step.eqn.params["dimensions"]
    return [tuple(ids[::-1] if k in turned else ids for k, ids in enumerate(operands[0]))]


def follow_squeeze(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Drop axes of size 1, and keep them whole."""
    gone = step.eqn.params["dimensions"]
    for k in gone:
        state.units.keep_whole(operands[0][k])
    return [tuple(ids for k, ids in enumerate(operands[0]) if k not in gone)]


def follow_broadcast(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Follow a broadcast: axes that are added have new units; a repeated axis of size 1 is kept."""
    shape = state.shape(step.results[0])
    found = [state.units.fresh(size) for size in shape]
    for ids, place in zip(operands[0], step.eqn.params["broadcast_dimensions"], strict=True):
        if len(ids) == shape[place]:
            found[place] = ids
        else:
            state.units.keep_whole(ids)
    return [tuple(found)]


def shrink_broadcast(
    step: Step, operands: list[Any], _inside: list[Stays], outside: list[Stays]
) -> list[Any]:
    """Broadcast to the widths that are left."""
    places = step.eqn.params["broadcast_dimensions"]
    return [lax.broadcast_in_dim(operands[0], widths(outside[0]), places)]


def follow_reshape(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    """Pass equal axes; axes that are merged or split are settled when all steps are followed."""
    if step.eqn.params.get("dimensions") is not None:
        return follow_unknown(state, step, operands)
    axes, products = reshaped(operands[0], state.shape(step.results[0]), state.units)
    state.products += products
    return [axes]


def shrink_reshape(
    _step: Step, operands: list[Any], _inside: list[Stays], outside: list[Stays]
) -> list[Any]:
    """Reshape to the widths that are left."""
    return [lax.reshape(operands[0], widths(outside[0]))]


def follow_concatenate(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Chain the units along one axis, and join those of the others."""
    along = step.eqn.params["dimension"]
    for axes in operands[1:]:
        for k, (a, b) in enumerate(zip(operands[0], axes, strict=True)):
            if k != along:
                state.units.join(a, b)
    chained = np.concatenate([axes[along] for axes in operands])
    return [tuple(chained if k == along else ids for k, ids in enumerate(operands[0]))]


def follow_stack(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Join the axes of all operands; the new axis stays whole."""
    for axes in operands[1:]:
        for a, b in zip(operands[0], axes, strict=True):
            state.units.join(a, b)
    axis = step.eqn.params["axis"]
    return [(*operands[0][:axis], whole_axis(len(operands)), *operands[0][axis:])]


def follow_unstack(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Drop the axis that is taken apart, and keep it whole."""
    axis = step.eqn.params["axis"]
    state.units.keep_whole(operands[0][axis])
    return [(*operands[0][:axis], *operands[0][axis + 1 :])] * len(step.results)


def follow_tile(_state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Repeat the units of each axis as often as its entries are repeated."""
    pairs = zip(operands[0], step.eqn.params["reps"], strict=True)
    return [tuple(np.tile(ids, times) for ids, times in pairs)]


def follow_split(_state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Split the units along one axis."""
    axis, ends = step.eqn.params["axis"], np.cumsum(step.eqn.params["sizes"])[:-1]
    parts = np.split(operands[0][axis], ends)
    return [
        tuple(part if k == axis else ids for k, ids in enumerate(operands[0])) for part in parts
    ]


def shrink_split(
    step: Step, operands: list[Any], _inside: list[Stays], outside: list[Stays]
) -> list[Any]:
    """Split where the parts that are left end."""
    axis = step.eqn.params["axis"]
    ends = np.cumsum([stays[axis].sum() for stays in outside])[:-1]
    return list(jnp.split(operands[0], [int(end) for end in ends], axis))


def follow_slice(_state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Slice the units of each axis as its entries are sliced."""
    p = step.eqn.params
    strides = p["strides"] or (1,) * len(operands[0])
    cuts = zip(operands[0], p["start_indices"], p["limit_indices"], strides, strict=True)
    return [tuple(ids[start:limit:stride] for ids, start, limit, stride in cuts)]


def shrink_slice(
    step: Step, operands: list[Any], inside: list[Stays], _outside: list[Stays]
) -> list[Any]:
    """Slice what is left: of the positions sliced, those that were not removed, in their order."""
    p, x = step.eqn.params, operands[0]
    strides = p["strides"] or (1,) * x.ndim
    for axis, stay in enumerate(inside[0]):
        asked = slice(p["start_indices"][axis], p["limit_indices"][axis], strides[axis])
        places = (np.cumsum(stay) - 1)[asked][stay[asked]]
        if len(places) and len(places) == places[-1] - places[0] + 1:
            x = lax.slice_in_dim(x, int(places[0]), int(places[-1]) + 1, axis=axis)
        else:
            x = jnp.take(x, places, axis, unique_indices=True, mode="clip")
    return [x]


def follow_pad(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    """Add new units at the ends; an axis that is padded inside, or cut, stays whole."""
    found = []
    for ids, (low, high, inside) in zip(
        operands[0], step.eqn.params["padding_config"], strict=True
    ):
        if inside or low < 0 or high < 0:
            state.units.keep_whole(ids)
            size = low + high + len(ids) + inside * max(len(ids) - 1, 0)
            found.append(whole_axis(max(0, size)))
        else:
            ends = state.units.fresh(low), state.units.fresh(high)
            found.append(np.concatenate([ends[0], ids, ends[1]]))
    return [tuple(found)]


def shrink_pad(
    step: Step, operands: list[Any], _inside: list[Stays], outside: list[Stays]
) -> list[Any]:
    """Pad with as many positions as are left at each end."""
    config = []
    pairs = zip(step.eqn.params["padding_config"], outside[0], strict=True)
    for (low, high, within), stay in pairs:
        ends = (low, high) if stay.all() else (stay[:low].sum(), stay[len(stay) - high :].sum())
        config.append((int(ends[0]), int(ends[1]), within))
    x, value = operands
    return [lax.pad(x, value, config)]


def follow_dynamic_slice(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Pass the axes that are taken whole, and keep the others whole."""
    found = []
    for ids, size in zip(operands[0], step.eqn.params["slice_sizes"], strict=True):
        if size != len(ids):
            state.units.keep_whole(ids)
        found.append(ids if size == len(ids) else whole_axis(size))
    return [tuple(found)]


def shrink_dynamic_slice(
    _step: Step, operands: list[Any], _inside: list[Stays], outside: list[Stays]
) -> list[Any]:
    """Slice to the widths that are left."""
    return [lax.dynamic_slice(operands[0], operands[1:], widths(outside[0]))]


def follow_dynamic_update(state: Followed, _step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Join the axes of equal size, and keep the others whole."""
    for a, b in zip(operands[0], operands[1], strict=True):
        if len(a) == len(b):
            state.units.join(a, b)
        else:
            state.units.keep_whole(a)
            state.units.keep_whole(b)
    return [operands[0]]


def follow_gather(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Pass the axes that are taken whole, as rows of an embedding are; keep the others whole."""
    numbers, (table, places) = step.eqn.params["dimension_numbers"], operands
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    inner = iter([k for k in range(len(table)) if k not in gone])
    outer = iter(places[:-1])
    found = []
    for k, size in enumerate(state.shape(step.results[0])):
        if k not in numbers.offset_dims:
            found.append(next(outer))
            continue
        axis = next(inner)
        passes = size == len(table[axis]) and axis not in numbers.start_index_map
        found.append(table[axis] if passes else whole_axis(size))
        if not passes:
            state.units.keep_whole(table[axis])
    for k in gone:
        state.units.keep_whole(table[k])
    for k in (*numbers.start_indices_batching_dims, len(places) - 1):
        state.units.keep_whole(places[k])
    return [tuple(found)]


def shrink_gather(
    step: Step, operands: list[Any], inside: list[Stays], _outside: list[Stays]
) -> list[Any]:
    """Gather slices of the widths that are left."""
    p = step.eqn.params
    sizes = [
        int(stay.sum()) if size == len(stay) else size
        for size, stay in zip(p["slice_sizes"], inside[0], strict=True)
    ]
    rest = {
        name: p[name] for name in ("unique_indices", "indices_are_sorted", "mode", "fill_value")
    }
    table, places = operands
    return [lax.gather(table, places, p["dimension_numbers"], tuple(sizes), **rest)]


# The table.

elementwise = Primitive(follow_elementwise, alive=alive_function, varies=varies_elementwise)
source = Primitive(follow_source, shrink=shrink_source)
reduction = Primitive(follow_reduction)
window = Primitive(follow_window)
along_axis = Primitive(partial(follow_along, "axis"))
unknown = Primitive(follow_unknown)

PRIMITIVES: dict[str, Primitive] = {
    # Functions of single entries.
    **dict.fromkeys(ELEMENTWISE, elementwise),
    "mul": elementwise._replace(alive=alive_factors),
    "and": elementwise._replace(alive=alive_factors),
    "div": elementwise._replace(alive=alive_numerator),
    "select_n": elementwise._replace(alive=alive_cases),
    "copy": elementwise._replace(alive=alive_moved),
    "copy_p": elementwise._replace(alive=alive_moved),
    # Sources.
    "iota": source,
    "random_bits": source,
    "random_wrap": source,
    "random_unwrap": source,
    "random_seed": source,
    "random_fold_in": source,
    "random_split": source,
    "random_gamma": source,
    "bitcast_convert_type": Primitive(follow_bitcast),
    # Sums of products.
    "dot_general": Primitive(
        follow_dot, alive=alive_sum, varies=varies_product, needs=needs_dot, cost=cost_dot
    ),
    "conv_general_dilated": Primitive(
        follow_conv,
        alive=alive_sum,
        varies=varies_product,
        needs=needs_conv,
        shrink=shrink_conv,
        cost=cost_conv,
    ),
    # Reductions.
    "reduce_sum": Primitive(follow_sum, alive=alive_sum, needs=needs_sum),
    "reduce_max": reduction._replace(alive=alive_moved),
    "reduce_min": reduction,
    "reduce_prod": reduction,
    "reduce_and": reduction,
    "reduce_or": reduction,
    "argmax": reduction,
    "argmin": reduction,
    # Windows.
    "reduce_window_sum": window._replace(alive=alive_sum),
    "reduce_window_max": window._replace(alive=alive_moved),
    "reduce_window_min": window,
    "reduce_window": window,
    "select_and_scatter_add": window,
    "select_and_gather_add": window,
    # Operations along an axis.
    "cumsum": along_axis._replace(alive=alive_sum),
    "cumprod": along_axis,
    "cummax": along_axis,
    "cummin": along_axis,
    "cumlogsumexp": along_axis,
    "sort": Primitive(partial(follow_along, "dimension")),
    # Operations that move axes and positions.
    "optimization_barrier": Primitive(follow_each, alive=alive_moved),
    "device_put": Primitive(follow_each),
    "transpose": Primitive(follow_transpose, alive=alive_moved),
    "rev": Primitive(follow_rev, alive=alive_moved),
    "squeeze": Primitive(follow_squeeze, alive=alive_moved),
    "broadcast_in_dim": Primitive(follow_broadcast, alive=alive_moved, shrink=shrink_broadcast),
    "reshape": Primitive(follow_reshape, alive=alive_moved, shrink=shrink_reshape),
    "concatenate": Primitive(follow_concatenate, alive=alive_moved),
    "stack": Primitive(follow_stack, alive=alive_moved),
    "unstack": Primitive(follow_unstack, alive=alive_moved),
    "tile": Primitive(follow_tile, alive=alive_moved),
    "split": Primitive(follow_split, alive=alive_moved, shrink=shrink_split),
    "slice": Primitive(follow_slice, alive=alive_moved, shrink=shrink_slice),
    "pad": Primitive(follow_pad, alive=alive_moved, shrink=shrink_pad),
    "dynamic_slice": Primitive(follow_dynamic_slice, shrink=shrink_dynamic_slice),
    "dynamic_update_slice": Primitive(follow_dynamic_update),
    "gather": Primitive(follow_gather, shrink=shrink_gather),
}


def primitive_of(step: Step) -> Primitive:
    """Look up the primitive of a step; without an entry, all that it touches stays whole."""
    return PRIMITIVES.get(step.name, unknown)
