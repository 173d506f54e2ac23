"""How units go through operations that move, sum, cut and join axes."""

from collections.abc import Sequence

import numpy as np

from synflow_jax.compaction._follow import Followed, rule, unknown, zeros
from synflow_jax.compaction._reshape import Axes
from synflow_jax.jaxpr import Step

WINDOWS = ("reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window")


@rule("transpose")
def _transpose(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    return [tuple(operands[0][k] for k in step.eqn.params["permutation"])]


@rule("squeeze")
def _squeeze(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    gone = step.eqn.params["dimensions"]
    for k in gone:
        state.units.keep_whole(operands[0][k])
    return [tuple(ids for k, ids in enumerate(operands[0]) if k not in gone)]


@rule(
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce_and",
    "reduce_or",
    "argmax",
    "argmin",
)
def _reduce(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    gone = step.eqn.params["axes"]
    if step.name != "reduce_sum":
        for k in gone:
            state.units.keep_whole(operands[0][k])
    return [tuple(ids for k, ids in enumerate(operands[0]) if k not in gone)]


@rule("dot_general")
def _dot(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    (contract, batch), (left, right) = step.eqn.params["dimension_numbers"], operands
    for pairs in (contract, batch):
        for a, b in zip(*pairs, strict=True):
            state.units.join(left[a], right[b])
    rest = [
        tuple(ids for k, ids in enumerate(axes) if k not in (*contract[side], *batch[side]))
        for side, axes in enumerate((left, right))
    ]
    return [(*(left[k] for k in batch[0]), *rest[0], *rest[1])]


@rule("conv_general_dilated")
def _conv(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    p, (x, kernel) = step.eqn.params, operands
    if p["batch_group_count"] != 1:
        return unknown(state, step, operands)
    lhs, rhs, out = p["dimension_numbers"]
    for ids in [x[k] for k in lhs[2:]] + [kernel[k] for k in rhs[2:]]:
        state.units.keep_whole(ids)
    groups, features, channels = p["feature_group_count"], kernel[rhs[0]], x[lhs[1]]
    if groups == 1:
        state.units.join(channels, kernel[rhs[1]])
    else:  # a group goes or stays as one, its outputs with its inputs
        state.units.keep_whole(kernel[rhs[1]])
        first = channels.reshape(groups, -1)[:, :1]
        for ids in (channels, features):
            rows = ids.reshape(groups, -1)
            state.units.join(rows, np.broadcast_to(first, rows.shape))
    found = [zeros(size) for size in state.shape(step.results[0])]
    found[out[0]], found[out[1]] = x[lhs[0]], features
    return [tuple(found)]


@rule("concatenate")
def _concatenate(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    along = step.eqn.params["dimension"]
    for axes in operands[1:]:
        for k, (a, b) in enumerate(zip(operands[0], axes, strict=True)):
            if k != along:
                state.units.join(a, b)
    joined = np.concatenate([axes[along] for axes in operands])
    return [tuple(joined if k == along else ids for k, ids in enumerate(operands[0]))]


@rule("split")
def _split(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    axis, ends = step.eqn.params["axis"], np.cumsum(step.eqn.params["sizes"])[:-1]
    parts = np.split(operands[0][axis], ends)
    return [
        tuple(part if k == axis else ids for k, ids in enumerate(operands[0])) for part in parts
    ]


@rule("slice")
def _slice(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    p = step.eqn.params
    strides = p["strides"] or (1,) * len(operands[0])
    cuts = zip(operands[0], p["start_indices"], p["limit_indices"], strides, strict=True)
    return [tuple(ids[start:limit:stride] for ids, start, limit, stride in cuts)]


@rule("pad")
def _pad(state: Followed, step: Step, operands: Sequence[Axes]) -> Sequence[Axes]:
    config = step.eqn.params["padding_config"]
    found = []
    for ids, (low, high, inside) in zip(operands[0], config, strict=True):
        if inside or low < 0 or high < 0:
            state.units.keep_whole(ids)
            found.append(zeros(max(0, low + high + len(ids) + inside * max(len(ids) - 1, 0))))
        else:
            ends = state.units.fresh(low), state.units.fresh(high)
            found.append(np.concatenate([ends[0], ids, ends[1]]))
    return [tuple(found)]


@rule(*WINDOWS, "select_and_scatter_add", "select_and_gather_add")
def _window(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Keep the axes that a window spans; the others pass."""
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
    found = tuple(zeros(n) if spans[k] else wide[0][k] for k, n in enumerate(shape))
    return [found] * len(step.results)


@rule("dynamic_slice")
def _dynamic_slice(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    found = []
    for ids, size in zip(operands[0], step.eqn.params["slice_sizes"], strict=True):
        if size != len(ids):
            state.units.keep_whole(ids)
        found.append(ids if size == len(ids) else zeros(size))
    return [tuple(found)]


@rule("dynamic_update_slice")
def _dynamic_update(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    for a, b in zip(operands[0], operands[1], strict=True):
        if len(a) == len(b):
            state.units.join(a, b)
        else:
            state.units.keep_whole(a)
            state.units.keep_whole(b)
    return [operands[0]]


@rule("gather")
def _gather(state: Followed, step: Step, operands: Sequence[Axes]) -> list[Axes]:
    """Let whole rows pass, as a table of embeddings gives them."""
    p = step.eqn.params
    numbers, (table, places) = p["dimension_numbers"], operands
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
        found.append(table[axis] if passes else zeros(size))
        if not passes:
            state.units.keep_whole(table[axis])
    for k in gone:
        state.units.keep_whole(table[k])
    for k in (*numbers.start_indices_batching_dims, len(places) - 1):
        state.units.keep_whole(places[k])
    return [tuple(found)]
