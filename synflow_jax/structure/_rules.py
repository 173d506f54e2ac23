"""The rules of the reading: what each primitive does to what is known of its operands.

A rule maps (walk, equation, marks of the operands) to the mark of the result. A primitive without a
rule joins what its operands depend on, and is noted as a break if floating values pass through it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from synflow_jax.jaxpr import CASTS, FUNCTIONS, body_of, scan_sizes
from synflow_jax.structure._marks import (
    EMPTY,
    MASKED,
    NONE,
    Axes,
    Kind,
    Mark,
    Part,
    alike,
    join,
    join_factors,
    join_parts,
)
from synflow_jax.structure._walk import Rule, Walk
from synflow_jax.trees import is_weight

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
HUGE = 65504.0  # the largest number of float16: a limit that no value reaches
LOGIC = ("and", "or", "xor", "not")
BENDING = frozenset(("exp", "exp2", "expm1", "log1p", "logistic", "tanh", "sin", "cos", "erf"))
UNSIGNED = frozenset(("log", "sin", "cos", "tan", "lgamma", "digamma", "erf_inv", "atan2", "neg"))


def _size(atom: Any, axis: int) -> int:
    return atom.aval.shape[axis]


def _rank(atom: Any) -> int:
    return len(getattr(atom.aval, "shape", ()))


def _weights(marks: list[Mark]) -> list[Mark]:
    return [mark for mark in marks if mark.kind is Kind.WEIGHT]


def _fed(marks: list[Mark]) -> bool:
    """Whether any operand depends on the input."""
    return any(mark.kind > Kind.WEIGHT for mark in marks)


def _positive(marks: list[Mark]) -> bool:
    return all(mark.positive for mark in marks)


# Values that keep their entries: casts and changes of shape.


def cast(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Change the dtype or nothing: whole numbers of the input become a signal, one-hots do not."""
    mark = marks[0]
    if eqn.primitive.name == "stop_gradient" and mark.is_signal:
        walk.note("detached", eqn, mark.leaves)
        return replace(mark, attached=0)
    if mark.is_signal and eqn.outvars and not is_weight(eqn.outvars[0].aval):
        return replace(mark, kind=Kind.ROUTED, attached=0)
    if mark.kind is Kind.ROUTED and eqn.outvars and is_weight(eqn.outvars[0].aval):
        rounded = eqn.invars[0].aval.dtype != bool and not mark.parts
        bit = walk.note("elementwise", eqn, mark.leaves) if rounded else 0
        return replace(mark, breaks=mark.breaks | bit)
    turned = mark.kind is Kind.INDEX and not mark.one_hot
    if turned and eqn.outvars and is_weight(eqn.outvars[0].aval):
        return replace(mark, kind=Kind.SIGNAL, positive=True)
    return mark


def shaped(move: Callable[[Any, Part], tuple[Axes, ...]]) -> Rule:
    """Make the rule of a change of shape from what it does to the axes of a part."""

    def rule(_walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
        mark = marks[0]
        parts = {leaf: part.moved(move(eqn, part)) for leaf, part in mark.parts.items()}
        scales = {leaf: part.moved(move(eqn, part)) for leaf, part in mark.scales.items()}
        return replace(mark, parts=parts, scales=scales)

    return rule


def _transposed(eqn: Any, part: Part) -> tuple[Axes, ...]:
    return tuple(part.axes[k] for k in eqn.params["permutation"])


def _broadcast(eqn: Any, part: Part) -> tuple[Axes, ...]:
    axes = [NONE] * _rank(eqn.outvars[0])
    for axis, to in enumerate(eqn.params["broadcast_dimensions"]):
        if _size(eqn.invars[0], axis) == _size(eqn.outvars[0], to):
            axes[to] = part.axes[axis]
    return tuple(axes)


def _squeezed(eqn: Any, part: Part) -> tuple[Axes, ...]:
    gone = eqn.params["dimensions"]
    return tuple(axes for k, axes in enumerate(part.axes) if k not in gone)


def _reshaped(eqn: Any, part: Part) -> tuple[Axes, ...]:
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    whole = [a - part.sliced if n == 1 else a for a, n in zip(part.axes, before, strict=True)]
    groups = _sources(before, after)
    return tuple(
        frozenset().union(*((whole if len(group) > 1 else part.axes)[k] for k in group))
        for group in groups
    )


def _sources(before: tuple[int, ...], after: tuple[int, ...]) -> list[list[int]]:
    """List, for each axis of a reshaped array, the axes of the old one that its entries are from.

    Axes are grouped where the products of their lengths agree; of an axis that is split, each piece
    comes from it. An axis of length 1 comes from one of length 1 at its place, or from none.
    """
    if 0 in after:
        return [[] for _ in after]
    found: list[list[int]] = []
    i = 0
    j = 0
    while j < len(after):
        if i < len(before) and before[i] == after[j]:
            found.append([i])
            i, j = i + 1, j + 1
            continue
        if after[j] == 1:
            found.append([])
            j += 1
            continue
        if i < len(before) and before[i] == 1:
            i += 1
            continue
        first, old, new, start = i, 1, 1, j
        while old != new or old == 1:
            if old <= new:
                old, i = old * before[i], i + 1
            else:
                new, j = new * after[j], j + 1
        group = [k for k in range(first, i) if before[k] != 1]
        while len(group) > 1 and i < len(before) and before[i] == 1 and after[j : j + 1] != (1,):
            group.append(i)  # such as the one colour of an image, joined with a window
            i += 1
        found += [list(group) for _ in range(start, j)]
    return found


def sliced(_walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Take a slice; where one position of several is taken, it may be a layer."""
    mark = marks[0]
    parts = {leaf: _one_position(eqn, part) for leaf, part in mark.parts.items()}
    return replace(mark, parts=parts, scales=EMPTY)


def _one_position(eqn: Any, part: Part) -> Part:
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if len(before) != len(after):
        return part
    taken = [part.axes[k] for k in range(len(before)) if after[k] == 1 < before[k]]
    return replace(part, sliced=part.sliced.union(*taken))


def split(_walk: Walk, eqn: Any, marks: list[Mark]) -> list[Mark]:
    """Split a value; pieces of length 1 may be layers."""
    mark, axis = marks[0], eqn.params["axis"]
    out = []
    for var in eqn.outvars:
        one = _size(var, axis) == 1 < _size(eqn.invars[0], axis)
        parts = {
            leaf: replace(part, sliced=part.sliced | part.axes[axis]) if one else part
            for leaf, part in mark.parts.items()
        }
        out.append(replace(mark, parts=parts, scales=EMPTY))
    return out


def unstack(_walk: Walk, eqn: Any, marks: list[Mark]) -> list[Mark]:
    """Take a value apart along an axis, whose positions may be layers."""
    mark, axis = marks[0], eqn.params["axis"]
    parts = {
        leaf: replace(part, sliced=part.sliced | part.axes[axis]).moved(
            axes for k, axes in enumerate(part.axes) if k != axis
        )
        for leaf, part in mark.parts.items()
    }
    return [replace(mark, parts=parts, scales=EMPTY)] * len(eqn.outvars)


def dynamic_slice(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Take a slice at computed positions: a lookup where the input decides them."""
    mark, at = marks[0], join(marks[1:])
    if mark.kind is Kind.WEIGHT and at.kind is Kind.INDEX:
        taken, whole = eqn.params["slice_sizes"], eqn.invars[0].aval.shape
        return _looked_up(walk, eqn, mark, [k for k, n in enumerate(whole) if taken[k] < n])
    return sliced(walk, eqn, marks[:1])


def gather(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Take entries: a lookup where the input decides which, else a slice or a change of order."""
    mark, index = marks[:2]
    if mark.kind is not Kind.WEIGHT:
        kind = max(mark.kind, index.kind)
        if kind is Kind.INDEX and not mark.one_hot and is_weight(eqn.outvars[0].aval):
            kind = Kind.SIGNAL  # of features, or a table that is not trained
        one_hot = mark.one_hot and kind is Kind.INDEX
        bit = 0
        if kind is Kind.ROUTED and mark.kind is Kind.CONSTANT and is_weight(eqn.outvars[0].aval):
            bit = walk.note("elementwise", eqn, index.leaves)
        new = replace(join([mark]), kind=kind, positive=mark.positive, one_hot=one_hot)
        return replace(new, breaks=new.breaks | bit)
    numbers, whole = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
    if index.kind is Kind.INDEX:
        taken = eqn.params["slice_sizes"]
        rows = [k for k in numbers.start_index_map if taken[k] < whole[k]]
        return _looked_up(walk, eqn, mark, rows or numbers.start_index_map)
    if index.kind is Kind.ROUTED:
        walk.look_up(mark.parts, eqn)
    many = math.prod(eqn.invars[1].aval.shape[:-1]) > 1 and index.kind is not Kind.ROUTED
    gone = numbers.collapsed_slice_dims
    kept = [
        k
        for k in range(_rank(eqn.invars[0]))
        if k not in gone and k not in numbers.operand_batching_dims
    ]
    places = dict(zip(numbers.offset_dims, kept, strict=False))
    parts = {}
    for leaf, part in mark.parts.items():
        taken = NONE.union(*(part.axes[k] for k in gone))
        at = taken if many else NONE  # entries in another order lie along the axis they are from
        axes = [part.axes[places[k]] if k in places else at for k in range(_rank(eqn.outvars[0]))]
        parts[leaf] = replace(part, sliced=part.sliced if many else part.sliced | taken).moved(axes)
    return replace(mark, kind=max(mark.kind, index.kind), parts=parts)


def _settle(walk: Walk, eqn: Any, marks: list[Mark]) -> None:
    """Note that leaves chosen by a signal, which now go on as a signal, are tables."""
    for mark in marks:
        if mark.kind is Kind.ROUTED:
            walk.meet_all(mark, "table", eqn)


def _looked_up(walk: Walk, eqn: Any, mark: Mark, rows: Sequence[int]) -> Mark:
    walk.look_up(mark.parts, eqn)
    for leaf, part in mark.parts.items():
        over = frozenset().union(*(part.axes[k] for k in rows))
        walk.meet(leaf, part, "table", eqn, over, frozenset(range(walk.ranks[leaf])) - over)
    kind = Kind.SIGNAL if is_weight(eqn.outvars[0].aval) else Kind.INDEX
    return replace(join([mark]), kind=kind, positive=mark.positive)


# Products.


def dot(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Multiply matrices: leaves that are summed over are kernels."""
    contracted, batch = eqn.params["dimension_numbers"]
    if not _fed(marks):
        return _product_of_weights(eqn, marks)
    if {mark.kind for mark in marks} == {Kind.WEIGHT, Kind.ROUTED} and not any(
        mark.parts for mark in marks if mark.kind is Kind.ROUTED
    ):
        return _product_of_weights(eqn, marks)  # a one-hot chooses among them
    for side, (mark, other) in enumerate((tuple(marks), tuple(reversed(marks)))):
        for leaf, part in mark.parts.items():
            along = frozenset().union(*(part.axes[k] for k in batch[side]))
            # What was chosen by a signal is an expert's kernel where it multiplies a signal, and a
            # codebook where it goes on as one.
            chosen = mark.kind is Kind.ROUTED and other.kind is Kind.WEIGHT
            one_hot = other.kind is Kind.INDEX or chosen
            _meet_product(walk, eqn, leaf, part, contracted[side], along, one_hot)
    return _product(walk, eqn, marks)


def _meet_product(
    walk: Walk, eqn: Any, leaf: int, part: Part, contracted: Any, along: Axes, one_hot: bool
) -> None:
    """Note the role of a leaf in a product with a value that depends on the input.

    A factor of a product of leaves, such as LoRA's A and B, has the sums of that product where this
    one sums over none of its axes. Of axes that a reshape has joined, as that of a window and its
    features in a convolution by patches, the last one counts as the sum.
    """
    joined = [part.axes[k] for k in contracted if part.axes[k]]
    over = frozenset().union(*joined)
    inputs = over or part.summed
    sums = frozenset(map(max, joined)) or part.summed
    role = "table" if one_hot and over else "kernel" if inputs else "scale"
    if role == "table":
        walk.look_up([leaf], eqn)
    whole = frozenset(range(walk.ranks[leaf])) - {*part.layers}
    walk.meet(leaf, part, role, eqn, inputs | along, whole - inputs, sums)


def convolve(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Convolve: the leaves in the kernel are kernels."""
    image, kernel = marks
    out, inside, *_ = eqn.params["dimension_numbers"].rhs_spec
    grouped = eqn.params["feature_group_count"] > 1
    for leaf, part in kernel.parts.items():
        # A grouped kernel has only the inputs of a group on its input axis. Its outputs stand for
        # the inputs: mostly there are as many.
        inputs = part.axes[out if grouped else inside]
        spatial = frozenset().union(*(a for k, a in enumerate(part.axes) if k != out))
        role = "kernel" if spatial or part.summed else "scale"
        if image.kind > Kind.WEIGHT:
            over = part.axes[inside] or part.summed
            walk.meet(leaf, part, role, eqn, inputs or part.summed, part.axes[out], over)
    if kernel.kind > Kind.WEIGHT:
        walk.meet_all(image, "kernel", eqn)
    return _product(walk, eqn, marks)


def _product(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Join the factors of a product; two that share a leaf make its flow quadratic."""
    out = join_factors(marks)
    own = [leaf for mark in marks for leaf in mark.parts]
    if own and eqn.primitive.name != "mul":
        walk.first.update(() if out.kernels else own)
        out = replace(out, kernels=sum(1 << leaf for leaf in set(own)))
    shared = marks[0].leaves & marks[1].leaves
    if shared and all(mark.is_signal for mark in marks):
        out = replace(out, breaks=out.breaks | walk.note("product", eqn, shared))
    if _fed(marks) and any(mark.kind is Kind.WEIGHT for mark in marks):
        out = replace(out, kind=Kind.SIGNAL)  # a one-hot times weights is a signal
    return replace(out, positive=_positive(marks))


def _product_of_weights(eqn: Any, marks: list[Mark]) -> Mark:
    """Multiply matrices of leaves alone, and remember which axes were summed over."""
    contracted, batch = eqn.params["dimension_numbers"]
    parts: dict[int, Part] = {}
    rank, n = _rank(eqn.outvars[0]), len(batch[0])
    offset = n
    for side, mark in enumerate(marks):
        free = [
            k
            for k in range(_rank(eqn.invars[side]))
            if k not in contracted[side] and k not in batch[side]
        ]
        for leaf, part in mark.parts.items():
            axes = [NONE] * rank
            for place, k in enumerate(batch[side]):
                axes[place] = part.axes[k]
            for place, k in enumerate(free):
                axes[offset + place] = part.axes[k]
            over = frozenset().union(*(part.axes[k] for k in contracted[side]))
            new = replace(part.moved(axes), summed=part.summed | over)
            parts[leaf] = parts[leaf].joined(new) if leaf in parts else new
        offset += len(free)
    return replace(join_factors(marks), parts=parts, positive=_positive(marks))


def mul(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Multiply entries: a leaf that meets a signal is a scale until a sum follows."""
    if not _fed(marks):
        shared = marks[0].leaves & marks[1].leaves
        bit = walk.note("product", eqn, shared, of_weights=True)
        out = join_factors(marks)
        return replace(
            out,
            parts=join_parts(marks),
            breaks=out.breaks | bit,
            positive=_positive(marks),
            number=_folded("mul", marks),
        )
    scales = {}
    _settle(walk, eqn, marks)
    for mark in _weights(marks):
        walk.meet_all(mark, "scale", eqn)
        scales = dict(mark.parts)
    return replace(_product(walk, eqn, marks), scales=scales)


def div(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Divide: by a signal it is a normaliser, as by a function of the numerator's own leaves."""
    over, under = marks
    out = replace(join(marks), positive=_positive(marks))
    if under.is_signal:
        return replace(out, breaks=out.breaks | walk.note("normaliser", eqn, under.leaves))
    if _fed(marks):
        walk.meet_all(under, "scale", eqn)
        return out
    bit = walk.note("normaliser", eqn, over.leaves & under.leaves, of_weights=True)
    parts = join_parts(marks)
    number = _folded("div", marks)
    return replace(out, parts=parts, breaks=out.breaks | bit, number=number)


def summed(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Sum over axes: a leaf that was multiplied along one of them is a kernel."""
    mark, gone = marks[0], eqn.params["axes"]
    for leaf, part in mark.scales.items():
        over = frozenset().union(*(part.axes[k] for k in gone))
        whole = frozenset(range(walk.ranks[leaf])) - {*part.layers}
        if over and whole - over:
            walk.meet(leaf, part, "kernel", eqn, over, whole - over)
            walk.first.update(() if mark.kernels else [leaf])
            mark = replace(mark, kernels=1 << leaf)
    return reduced(walk, eqn, [mark])


def reduced(_walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Reduce over axes."""
    mark = marks[0]
    gone = eqn.params.get("axes", ())
    parts = {
        leaf: replace(
            part,
            axes=tuple(a for k, a in enumerate(part.axes) if k not in gone),
            reduced=part.reduced.union(*(part.axes[k] for k in gone)),
        )
        for leaf, part in mark.parts.items()
    }
    return replace(mark, parts=parts, scales=EMPTY, number=None)


# Sums and choices.


def add(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Add or subtract: a leaf that meets a signal is a source."""
    minus = eqn.primitive.name == "sub"
    out = join(marks)
    nothing = minus and marks[1].number == 0
    positive = _positive(marks) and (not minus or nothing)
    if _fed(marks):
        _settle(walk, eqn, marks)
        for mark in _weights(marks):
            walk.meet_all(mark, "added", eqn)
        lowered = any(MASKED < (mark.number or 0) < 0 for mark in marks)
        taken = minus and not nothing and all(mark.kind is not Kind.INDEX for mark in marks)
        if taken or (lowered and not minus):
            fed = [mark for mark in marks if mark.is_signal]
            leaves = fed[0].leaves if fed else 0
            walk.note("subtraction", eqn, leaves)
        return replace(out, positive=positive)
    shared = marks[0].leaves & marks[1].leaves if minus else 0
    reduced = any(part.reduced for mark in marks for part in mark.parts.values())
    bit = walk.note("centring", eqn, shared, of_weights=True) if reduced else 0
    if minus and not reduced:
        walk.note("subtraction", eqn, shared, of_weights=True)
    parts = join_parts(_without_biases(walk, eqn, marks))
    if any(mark.kind is Kind.CONSTANT and mark.number != 0 for mark in marks):  # as of 1 + s
        parts = {leaf: replace(part, bent=True) for leaf, part in parts.items()}
    number = _folded(eqn.primitive.name, marks)
    return replace(out, parts=parts, breaks=out.breaks | bit, positive=positive, number=number)


def _without_biases(walk: Walk, eqn: Any, marks: list[Mark]) -> list[Mark]:
    """Leave out a leaf that is broadcast and added to a product of leaves: it is a source."""
    for mark, other in (tuple(marks), tuple(reversed(marks))):
        alone = list(mark.parts.items())
        product = any(part.summed for part in other.parts.values())
        if product and len(alone) == 1:
            leaf, part = alone[0]
            if not part.summed and sum(map(bool, part.axes)) < _rank(eqn.outvars[0]):
                walk.meet(leaf, part, "added", eqn, NONE, NONE)
                return [other]
    return marks


def maximum(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Take the maximum: with 0 it is a ReLU, and with −∞ nothing."""
    return _bounded(walk, eqn, marks, -math.inf, lambda x, c: c == 0 or (x.positive and c <= 0))


def minimum(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Take the minimum: with ∞ it is nothing, and any other number bends."""
    fixed = [mark for mark in marks if mark.number is not None]
    if (
        len(fixed) == 1
        and (fixed[0].number or 0) <= 0
        and any(m.positive for m in marks if m is not fixed[0])
    ):
        return fixed[0]
    return _bounded(walk, eqn, marks, math.inf, lambda *_: False)


def _bounded(walk: Walk, eqn: Any, marks: list[Mark], neutral: float, straight: Any) -> Mark:
    fixed = [mark for mark in marks if mark.kind is Kind.CONSTANT]
    moving = [mark for mark in marks if mark.kind is not Kind.CONSTANT]
    if len(fixed) != 1 or not is_weight(eqn.outvars[0].aval):
        return combined(walk, eqn, marks)
    value, number = moving[0], fixed[0].number
    if number is not None and number * math.copysign(1, neutral) >= HUGE:
        return value
    if number is not None and straight(value, number):
        return replace(value, positive=value.positive or number == 0, scales=EMPTY)
    return elementwise(walk, eqn, marks)


def select(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Select: the known case where the condition is known, else any of them."""
    which, *cases = marks
    if which.known is not None and len(cases) == 2:
        return cases[int(which.known)]
    out = combined(walk, eqn, cases)
    out = replace(out, breaks=out.breaks | which.breaks)
    if out.kind < Kind.WEIGHT or not _is_float(eqn.outvars[0]):  # numbers that a condition chooses
        found = replace(join([which, *cases]), positive=out.positive, one_hot=which.one_hot)
        features = found.kind is Kind.INDEX and not found.one_hot and _is_float(eqn.outvars[0])
        return replace(found, kind=Kind.SIGNAL) if features else found
    if out.kind is Kind.WEIGHT and which.kind > Kind.WEIGHT:
        walk.meet_all(out, "scale", eqn)
        return replace(join([out]), kind=Kind.SIGNAL, positive=out.positive)
    return out


def combined(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Concatenate or choose among values: a leaf beside a signal is a source."""
    floats = [m for m, a in zip(marks, eqn.invars[-len(marks) :], strict=True) if _is_float(a)]
    out = replace(join(marks), positive=_positive(floats or marks))
    if not _fed(floats):
        parts = join_parts([m for m in marks if _same_rank(m, eqn)])
        return replace(out, parts=parts if out.kind is Kind.WEIGHT else EMPTY)
    _settle(walk, eqn, marks)
    for mark in _weights(marks):
        walk.meet_all(mark, "added", eqn)
    return out


def _is_float(atom: Any) -> bool:
    return hasattr(atom.aval, "dtype") and is_weight(atom.aval)


def _same_rank(mark: Mark, eqn: Any) -> bool:
    return all(len(part.axes) == _rank(eqn.outvars[0]) for part in mark.parts.values())


# Elementwise functions.


def elementwise(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Apply a function that is neither linear nor a ReLU: a break, of the leaves behind it."""
    name = eqn.primitive.name
    out = replace(join(marks), positive=_positive(marks) and name not in UNSIGNED)
    if not is_weight(eqn.outvars[0].aval):
        routed = out.kind is Kind.SIGNAL
        kind = Kind.ROUTED if routed else out.kind
        return replace(out, kind=kind, positive=False, attached=0)
    if out.kind not in (Kind.WEIGHT, Kind.SIGNAL):
        return replace(out, number=_folded(name, marks))
    below = name == "rsqrt" or (name in ("pow", "integer_pow") and _power(eqn, marks) < 0)
    of_weights = out.kind is Kind.WEIGHT
    kind = "normaliser" if below else "elementwise"
    bit = walk.note(kind, eqn, out.leaves, of_weights)
    parts = join_parts(marks) if of_weights else EMPTY
    if name in BENDING:
        parts = {leaf: replace(part, bent=True) for leaf, part in parts.items()}
    return replace(out, parts=parts, breaks=out.breaks | bit)


def _power(eqn: Any, marks: list[Mark]) -> float:
    number = eqn.params["y"] if eqn.primitive.name == "integer_pow" else marks[1].number
    return 1.0 if number is None else number


def compare(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Compare; a value that is not below 0 has known answers.

    A threshold that does not grow with the signal, such as the 1 of hard tanh, is a break.
    """
    out = elementwise(walk, eqn, marks)
    left, right = marks
    known = _answer(eqn.primitive.name, left, right, eqn.invars[0] is eqn.invars[1])
    signal = next((mark for mark in marks if mark.is_signal), None)
    if signal is None or all(mark.is_signal for mark in marks):
        constant = any(m.kind is Kind.CONSTANT and m.number is None for m in marks)
        hot = eqn.primitive.name == "eq" and out.kind in (Kind.CONSTANT, Kind.INDEX) and constant
        return replace(out, known=known, one_hot=hot)
    other = next(mark for mark in marks if mark is not signal)
    fixed = other.kind <= Kind.WEIGHT and other.number != 0 and known is None
    bit = walk.note("elementwise", eqn, signal.leaves) if fixed else 0
    return replace(out, known=known, breaks=bit)


def _answer(name: str, a: Mark, b: Mark, same: bool) -> bool | None:
    """Return whether a comparison is True for all entries, or False for all; None if not known."""
    if a.kind is Kind.CONSTANT and a.number == 0 and b.kind is not Kind.CONSTANT:
        flipped = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
        return _answer(flipped.get(name, name), b, a, same)
    if a.is_signal and same:
        return {"eq": True, "ne": False}.get(name)  # of x ≠ x, that is whether it is NaN
    if not a.is_signal or b.number is None:
        return None
    if math.isinf(b.number):
        return {"eq": False, "ne": True}.get(name)
    if a.positive and b.number == 0:
        return {"gt": True, "ge": True, "lt": False, "le": False}.get(name)
    return None


def logic(_walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Combine conditions, and their answers where they are known."""
    name, known = eqn.primitive.name, [mark.known for mark in marks]
    answer = None
    if None not in known:
        answer = {
            "not": not known[0],
            "and": all(known),
            "or": any(known),
            "xor": sum(map(bool, known)) % 2 == 1,
        }[name]
    return replace(join(marks), known=answer)


def finite(_walk: Walk, _eqn: Any, marks: list[Mark]) -> Mark:
    """Describe is_finite of a value: its answer is taken to be True for all entries."""
    kind = Kind.ROUTED if marks[0].is_signal else marks[0].kind
    return replace(join(marks), kind=kind, known=True)


def clamp(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Clamp to a range: one from 0 up is a ReLU, one up to the dtype's limits changes nothing."""
    least, value, most = marks
    above = most.number is not None and most.number >= HUGE
    below = least.number is not None and (least.number == 0 or least.number <= -HUGE)
    if above and below and value.is_signal:
        return replace(value, positive=value.positive or least.number == 0, scales=EMPTY)
    return elementwise(walk, eqn, marks)


def power(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Raise to a power; to the first, nothing changes."""
    return marks[0] if _power(eqn, marks) == 1 else elementwise(walk, eqn, marks)


def neg(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Negate."""
    if marks[0].is_signal:
        walk.note("subtraction", eqn, marks[0].leaves)
    return replace(marks[0], positive=False, number=_folded("neg", marks), scales=EMPTY)


def magnitude(_walk: Walk, _eqn: Any, marks: list[Mark]) -> Mark:
    """Take absolute values."""
    return replace(marks[0], positive=True, scales=EMPTY)


FOLDED: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b if b else math.nan,
    "neg": lambda a: -a,
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else math.nan,
    "rsqrt": lambda a: a**-0.5 if a > 0 else math.nan,
    "max": max,
    "min": min,
}


def _folded(name: str, marks: list[Mark]) -> float | None:
    """Compute the number of a function of constants, where it is known."""
    numbers = [mark.number for mark in marks]
    if name not in FOLDED or any(number is None for number in numbers):
        return None
    found = FOLDED[name](*numbers)
    return None if math.isnan(found) else found


# Linear functions without leaves to follow, and transforms that mix signs.


def linear(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Apply a function that sums entries, moves them or chooses among them."""
    floats = [m for m, a in zip(marks, eqn.invars, strict=True) if _is_float(a)]
    out = replace(join(marks), positive=_positive(floats))
    placed = out.kind is Kind.INDEX and bool(floats)  # by tokens: one-hots, or features of nodes
    fed = _fed(floats)
    for mark in _weights(floats) if fed or placed else ():
        walk.meet_all(mark, "added", eqn)
    if fed:
        return out
    if placed:
        hot = floats[-1].number == 1
        return replace(out, one_hot=hot, kind=Kind.INDEX if hot else Kind.SIGNAL)
    parts = join_parts([m for m in marks if _same_rank(m, eqn)])
    return replace(out, parts=parts if out.kind is Kind.WEIGHT else EMPTY)


def chosen(walk: Walk, eqn: Any, marks: list[Mark]) -> list[Mark]:
    """Sort, or find the largest: values stay signals, positions are routed."""
    out = linear(walk, eqn, marks)
    routed = replace(out, kind=Kind.ROUTED if out.is_signal else out.kind, attached=0)
    return [out if _is_float(var) else routed for var in eqn.outvars]


def multiplied(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Multiply the entries of an axis with each other."""
    out = linear(walk, eqn, marks)
    return replace(out, breaks=out.breaks | walk.note("product", eqn, out.leaves))


def transform(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Apply a Fourier transform: of ones only the zero frequency is not 0."""
    mark = marks[0]
    every = (1 << len(walk.ranks)) - 1  # what follows sees one frequency alone, whatever it is
    bit = walk.note("transform", eqn, every) if mark.is_signal else 0
    return replace(join(marks), breaks=mark.breaks | bit, positive=False)


# Loops and branches.


def scan(walk: Walk, eqn: Any, marks: list[Mark]) -> list[Mark]:
    """Follow the body of a scan until what is carried no longer changes."""
    fixed, carried = scan_sizes(eqn)
    consts, carry, xs = marks[:fixed], marks[fixed : fixed + carried], marks[fixed + carried :]
    rows = [replace(x, parts={n: _row(p) for n, p in x.parts.items()}, scales=EMPTY) for x in xs]
    body = eqn.params["jaxpr"]
    carry, ends, ys = _settled(walk, eqn, body, consts, carry, rows)
    carry = ends if eqn.params["length"] else carry
    stacked = [
        replace(y, parts={n: p.moved((NONE, *p.axes)) for n, p in y.parts.items()}, scales=EMPTY)
        for y in ys
    ]
    return carry + stacked


def _row(part: Part) -> Part:
    return replace(part, sliced=part.sliced | part.axes[0]).moved(part.axes[1:])


def _settled(
    walk: Walk, eqn: Any, body: Any, consts: list[Mark], carry: list[Mark], rows: list[Mark]
) -> tuple[list[Mark], list[Mark], list[Mark]]:
    """Try the body of a loop until the marks of what it carries no longer change; then follow it.

    A state that starts at 0 depends on nothing in the first turn, and on the input in later ones.

    Returns:
      The marks of what is carried into a turn, out of it, and of what a turn returns beside.
    """
    start, before = carry, walk.trying
    walk.trying = True
    stable = False
    while not stable:
        out = walk.run_closed(body, [*consts, *carry, *rows])
        new = [alike(a, b) for a, b in zip(carry, out, strict=False)]
        stable, carry = new == carry, new
    walk.trying = before
    for first, last in zip(start, carry, strict=True):
        if first.kind is Kind.WEIGHT and last.kind > Kind.WEIGHT:  # a learned start is a source
            walk.meet_all(first, "added", eqn)
    out = walk.run_closed(body, [*consts, *carry, *rows])
    return carry, out[: len(carry)], out[len(carry) :]


def loop(walk: Walk, eqn: Any, marks: list[Mark]) -> list[Mark]:
    """Follow the body of a while loop; its condition is not followed."""
    skip, fixed = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    consts, carry = marks[skip : skip + fixed], marks[skip + fixed :]
    return _settled(walk, eqn, eqn.params["body_jaxpr"], consts, carry, [])[0]


def cond(walk: Walk, eqn: Any, marks: list[Mark]) -> list[Mark]:
    """Follow all branches, and join what they return."""
    ways = [walk.run_closed(way, marks[1:]) for way in eqn.params["branches"]]
    out = ways[0]
    for way in ways[1:]:
        out = [alike(a, b) for a, b in zip(out, way, strict=True)]
    return [replace(mark, breaks=mark.breaks | marks[0].breaks) for mark in out]


def sharded(walk: Walk, eqn: Any, marks: list[Mark]) -> list[Mark]:
    """Follow the body of a shard_map, in which each device has a part of each array."""
    return walk.run_closed(body_of(eqn), marks)


def ragged_dot(walk: Walk, eqn: Any, marks: list[Mark]) -> Mark:
    """Multiply groups of rows by matrices of their own, as in a mixture of experts."""
    numbers = eqn.params["ragged_dot_dimension_numbers"]
    (left, right), _ = numbers.dot_dimension_numbers
    groups = numbers.rhs_group_dimensions
    for mark, contracted, along in ((marks[0], left, ()), (marks[1], right, groups)):
        for leaf, part in mark.parts.items():
            over = NONE.union(*(part.axes[k] for k in along))
            if _fed(marks):
                _meet_product(walk, eqn, leaf, part, contracted, over, one_hot=False)
    return _product(walk, eqn, marks[:2])


LINEAR = (
    *("cumsum", "cummax", "cummin", "reduce_window_sum", "reduce_window_max", "reduce_window_min"),
    *("select_and_gather_add", "select_and_scatter_add", "scatter", "scatter_add"),
    *("scatter-add", "scatter-max", "scatter-min", "dynamic_update_slice", "pad", "rev", "tile"),
    *("complex", "conj", "psum", "psum2", "psum_invariant", "all_gather", "ppermute"),
    *("all_gather_invariant", "all_to_all", "reduce_scatter", "pmax", "pmin", "pvary", "pcast"),
    "pbroadcast",
)
KEPT = (*CASTS, "optimization_barrier", "device_put", "sharding_constraint", "reshard")

RULES: dict[str, Rule] = {
    **dict.fromkeys(FUNCTIONS, elementwise),
    "rsqrt": elementwise,
    **dict.fromkeys(COMPARISONS, compare),
    **dict.fromkeys(LOGIC, logic),
    **dict.fromkeys(KEPT, cast),
    **dict.fromkeys(("mesh_cast", "layout_constraint"), cast),
    **dict.fromkeys(LINEAR, linear),
    **dict.fromkeys(("reduce_max", "reduce_min"), reduced),
    **dict.fromkeys(("reduce_prod", "cumprod", "cumlogsumexp"), multiplied),
    **dict.fromkeys(("ragged_dot", "ragged_dot_general"), ragged_dot),
    **dict.fromkeys(("add", "add_any", "sub"), add),
    **dict.fromkeys(("sort", "top_k", "argmax", "argmin"), chosen),
    **dict.fromkeys(("concatenate", "stack"), combined),
    "abs": magnitude,
    "clamp": clamp,
    "broadcast_in_dim": shaped(_broadcast),
    "cond": cond,
    "conv_general_dilated": convolve,
    "div": div,
    "dot_general": dot,
    "dynamic_slice": dynamic_slice,
    "fft": transform,
    "gather": gather,
    "integer_pow": power,
    "is_finite": finite,
    "max": maximum,
    "min": minimum,
    "mul": mul,
    "neg": neg,
    "pow": power,
    "reduce_sum": summed,
    "reshape": shaped(_reshaped),
    "scan": scan,
    "select_n": select,
    "shard_map": sharded,
    "slice": sliced,
    "split": split,
    "squeeze": shaped(_squeezed),
    "expand_dims": shaped(_reshaped),
    "transpose": shaped(_transposed),
    "unstack": unstack,
    "while": loop,
}
