"""The plan: what competes with what, and how many units each competition keeps after each round.

What the user asks for (prunable leaves, a pattern, a scope, a schedule, ratios and floors) is
checked here once, and becomes one frozen `Plan` and an array of counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from synflow_jax.plan._layers import Kernels, Layers, find_layers
from synflow_jax.plan._matching import REST, check_matching, check_patterns, pattern_of
from synflow_jax.plan._patterns import check_pattern, in_layout, unstructured
from synflow_jax.plan._schedule import certified, exponential, one_shot
from synflow_jax.plan._scope import (
    Axes,
    LaidRuns,
    Runs,
    erk,
    globally,
    rounding_of,
    settle,
    sizes_of,
)
from synflow_jax.plan._units import count_units, unit_shape
from synflow_jax.selection import Packing, count_dtype, count_layers, packing_of
from synflow_jax.structure import Reading
from synflow_jax.trees import (
    CollapseWarning,
    Masks,
    Params,
    Pattern,
    Prunable,
    Schedule,
    Scope,
    Shape,
    check_rho,
    is_traced,
    is_weight,
    listed_names,
    named_leaves,
    pick,
    warn,
    write_limit,
)

Members = tuple[tuple[int, ...], ...]  # the layers of each group


@dataclass(frozen=True)
class Together:
    """All units of all layers compete in one competition."""


@dataclass(frozen=True)
class ByLayer:
    """The units of each layer compete among themselves."""


@dataclass(frozen=True)
class ByGroup:
    """The units of each group of layers compete among themselves."""

    members: Members


@dataclass(frozen=True)
class InRuns:
    """The M neighbours of each run compete among themselves; leaves without runs stay whole."""

    runs: Runs


Competition = Together | ByLayer | ByGroup | InRuns


@dataclass(frozen=True)
class Plan:
    """What is pruned and what competes: static, so that one compiled program has one plan."""

    layers: Layers
    units: tuple[Shape, ...]  # the shape of each leaf's units; () where a unit is one weight
    competition: Competition
    floors: tuple[int, ...]  # units that each layer keeps at least; () where there are none
    packing: Packing

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each layer, path[i] for layer i of a stack."""
        return self.layers.names

    @property
    def prunable(self) -> tuple[bool, ...]:
        """Whether each leaf of the params is pruned."""
        return self.layers.prunable

    @property
    def grids(self) -> tuple[Shape, ...]:
        """Number of units of each leaf along each axis."""
        return _grids(self.layers, self.units)

    @property
    def layer_grids(self) -> tuple[Shape, ...]:
        """Number of units of each layer along each axis."""
        return self.layers.of_layers(self.grids)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of units of each layer."""
        return tuple(map(math.prod, self.layer_grids))

    def axes_of(self, runs: Runs) -> Axes:
        """Return the axis of each layer along which its runs lie; None where it has no runs."""
        sums = self.layers.spread([at.of_layer().sums for at in self.layers.layouts])
        return runs.axes_of(self.layer_grids, sums)

    @property
    def counted(self) -> str:
        """What the counts are of: weights, or units of several."""
        return "units" if self.units else "weights"


def make_plan(
    params: Params,
    rho: Any,
    rounds: int = 1,
    *,
    schedule: Schedule = exponential,
    scope: Scope = globally,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
    prunable: Prunable | None = None,
    reading: Reading | None = None,
    stacked: Any = (),
) -> tuple[Plan, jax.Array]:
    """Check what is asked for, and turn it into a plan and the counts of each round.

    Args:
      params: any pytree of arrays.
      rho: a compression ratio ρ, or a dict of them by pattern: a competition for each.
      rounds: n; `one_shot` has one whatever it is.
      schedule: (k[n], n, ρ) -> densities[n].
      scope: (shapes, densities[n]) -> counts[n, 1] or counts[n, layers].
      min_keep: the floor of every layer: a number, a share, or a dict of these by pattern.
      pattern: (path, shape) -> the shape of a unit.
      prunable: (path, leaf) -> bool; None takes the kernels.
      reading: of the network, where it is known.
      stacked: the leaves that hold several layers; empty takes those that the trace shows.

    Returns:
      The plan, and int[n, competitions] (in runs, int[n, layers]): units kept after each round,
      computed in float64; by default ⌈N·ρ^(−k/n)⌉ after round k (see `_scope.whole`).
    """
    layers = find_layers(params, prunable, reading, stacked)
    units = _units(layers, pattern)
    check_matching(params, prunable, "prunable")
    for name, table in (("rho", rho), ("min_keep", min_keep)):
        check_patterns(layers.paths, table, name)
    groups, ratios = _groups(layers, rho)
    members = _members(layers.spread(groups))
    plan = Plan(layers, units, Together(), (), Packing(()))
    floors = _floors(layers, plan.sizes, min_keep)
    check_functions(schedule=schedule, scope=scope)
    apart: tuple[Any, ...] = groups
    if isinstance(scope, Runs):
        axes = plan.axes_of(scope)
        _check_runs(scope, axes, plan.layer_grids, floors)
        apart = tuple(zip(groups, _first_of(layers, axes), strict=True))
    packing = _pack(params, layers, plan.grids, apart)
    plan = replace(plan, floors=floors, packing=packing)
    n = 1 if schedule is one_shot else rounds
    counts, by_layer = _count_all(plan, members, ratios, n, schedule, scope)
    return replace(plan, competition=_competition(scope, members, by_layer)), counts


def plan_copied(
    params: Params, masks: Masks, prunable: Prunable | None = None, stacked: Any = ()
) -> tuple[Plan, jax.Array]:
    """Plan one competition a layer, with the counts of masks that are there already.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params, whose counts are copied.
      prunable: (path, leaf) -> bool; None takes the leaves that the masks prune.
      stacked: the leaves that hold several layers.

    Returns:
      The plan, and int[1, layers].
    """
    pruned = _pruned(params, masks)
    named = Kernels(frozenset(pruned)) if pruned else None  # names decide where nothing is pruned
    layers = find_layers(params, named if prunable is None else prunable, stacked=stacked)
    left = [path for path in pruned if path not in layers.paths]
    if left and not is_traced(masks):
        raise ValueError(
            f"densities prunes {listed_names(left)}, which prunable leaves out, so that the counts "
            "cannot be met: choose these leaves in prunable as well, or leave prunable out"
        )
    packing = _pack(params, layers, layers.shapes)
    competition = ByLayer() if len(layers.names) > 1 else Together()
    counts = count_layers(pick(masks, layers.prunable), packing)[None]
    return Plan(layers, (), competition, (), packing), counts


def _pruned(params: Params, masks: Masks) -> list[str]:
    """List the leaves that masks prune; under a trace, all weights, of which any may be pruned."""
    trios = [
        (*pair, mask)
        for pair, mask in zip(named_leaves(params), jax.tree.leaves(masks), strict=True)
    ]
    if is_traced(masks):
        return [path for path, leaf, _ in trios if is_weight(leaf) and leaf.ndim]
    return [path for path, _, mask in trios if not mask.all()]


def _pack(
    params: Params, layers: Layers, grids: tuple[Shape, ...], groups: tuple[Any, ...] = ()
) -> Packing:
    """Choose how the layers are packed: by group, and the layers of a stack together."""
    stacks = tuple(zip(layers.axes, layers.lengths, strict=True))
    return packing_of(pick(params, layers.prunable), grids, groups, stacks)


def _first_of(layers: Layers, values: tuple[Any, ...]) -> list[Any]:
    """List the value of the first layer of each leaf, from those of all layers."""
    starts = np.cumsum((0, *layers.counts))[:-1]
    return [values[at] for at in starts]


def check_ratios(rho: Any) -> None:
    """Refuse what is neither a compression ratio nor a dict of them."""
    if not isinstance(rho, Mapping):
        return check_rho(rho)
    for pattern, value in rho.items():
        check_rho(value, f"rho[{pattern!r}]")
    return None


def check_functions(**given: Any) -> None:
    """Refuse arguments, given by name, that are not functions, or are the maker `certified`."""
    for name, value in given.items():
        if not callable(value) or value is certified:
            raise TypeError(
                f"{name} must be a function such as those that synflow_jax exports, got {value!r}"
            )


def _check_runs(scope: Runs, axes: Axes, grids: tuple[Shape, ...], floors: tuple[int, ...]) -> None:
    if all(axis is None for axis in axes):
        given = "" if scope.axis is None else f", axis={scope.axis}"
        which = "the axis of inputs" if scope.axis is None else "that axis"
        raise ValueError(
            f"scope=runs({scope.length}{given}) must divide {which} of some prunable leaf, and "
            f"their shapes are {list(dict.fromkeys(grids))}"
        )
    if floors:
        raise ValueError("scope=runs(…) says what every run keeps: it needs min_keep=0")


def _competition(scope: Any, members: Members, by_layer: bool) -> Competition:
    """Choose what competes, from the scope and from the counts that it gave."""
    if isinstance(scope, Runs):
        return InRuns(scope)
    if len(members) == 1 and not by_layer:
        return Together()
    alone = all(len(group) == 1 for group in members)
    if by_layer or alone:
        return ByLayer() if sum(map(len, members)) > 1 else Together()
    return ByGroup(members)


def _units(layers: Layers, pattern: Pattern) -> tuple[Shape, ...]:
    """List the shape of each leaf's units, none of which spans layers; () for single weights."""
    check_pattern(pattern)
    if pattern is unstructured:
        return ()
    return tuple(
        at.in_leaf(unit_shape(in_layout(pattern, at.of_layer()), path, at.shape_of_layer(shape)))
        for path, shape, at in zip(layers.paths, layers.shapes, layers.layouts, strict=True)
    )


def _grids(layers: Layers, units: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Count the units of each leaf along each axis."""
    if not units:
        return layers.shapes
    return tuple(map(count_units, layers.shapes, units))


def _groups(layers: Layers, rho: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Number the group of each leaf, in the order of their first leaves, and list a ρ a group."""
    check_ratios(rho)
    if not isinstance(rho, Mapping):
        return (0,) * len(layers.paths), (rho,)
    found = [pattern_of(path, rho, "rho") for path in layers.paths]
    without = [path for path, pattern in zip(layers.paths, found, strict=True) if pattern is None]
    if without:
        raise ValueError(
            f"rho must have a pattern for every prunable leaf: none matches {', '.join(without)}; "
            "add '*', which takes what no other pattern matches"
        )
    order = list(dict.fromkeys(found))
    return tuple(order.index(pattern) for pattern in found), tuple(rho[name] for name in order)


def _members(groups: tuple[int, ...]) -> Members:
    """List the layers of each group."""
    count = max(groups) + 1
    return tuple(tuple(i for i, own in enumerate(groups) if own == g) for g in range(count))


def _floors(layers: Layers, sizes: tuple[int, ...], min_keep: Any) -> tuple[int, ...]:
    """List how many units each layer keeps at least; () where none keeps any."""
    table = min_keep if isinstance(min_keep, Mapping) else {REST: min_keep}
    for value in table.values():
        _check_floor(value)
    found = [pattern_of(path, table, "min_keep") for path in layers.paths]
    asked = layers.spread([0 if pattern is None else table[pattern] for pattern in found])
    floors = [
        min(size, int(floor) if floor >= 1 else math.ceil(size * floor - 1e-9))
        for size, floor in zip(sizes, asked, strict=True)
    ]
    return tuple(floors) if any(floors) else ()


def _check_floor(value: Any) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number:
        raise TypeError(
            "min_keep must be a number of weights, a share of a layer below 1, or a dict of these "
            f"by pattern, got a {type(value).__name__}"
        )
    if isinstance(value, float) and value == 1:
        raise ValueError(
            "min_keep must not be 1.0: pass 1 for one weight; a whole leaf is kept "
            "by leaving it out in `prunable`"
        )
    if not (math.isfinite(value) and value >= 0) or (value > 1 and value != int(value)):
        raise ValueError(f"min_keep must be whole and at least 0, or a share below 1, got {value}")


def _count_all(
    plan: Plan,
    members: Members,
    ratios: tuple[Any, ...],
    n: int,
    schedule: Schedule,
    scope: Scope,
) -> tuple[jax.Array, bool]:
    """Count what each competition keeps after each round, and tell if there is one a layer."""
    grids = plan.layer_grids
    shapes = [tuple(grids[i] for i in group) for group in members]
    scopes: list[Scope] = [scope] * len(members)
    if isinstance(scope, Runs):
        axes = plan.axes_of(scope)
        scopes = [LaidRuns(scope, tuple(axes[i] for i in group)) for group in members]
    trios = list(zip(shapes, ratios, scopes, strict=True))
    dtype = count_dtype(sum(plan.sizes))
    if not is_traced(ratios):
        parts = [_known_counts(own, rho, n, schedule, one) for own, rho, one in trios]
        counts, by_layer = _joined(np, parts, members, plan)
        _warn_of_collapse(counts, members, plan)
        with jax.enable_x64(True):
            return jnp.asarray(counts, dtype), by_layer
    with jax.enable_x64(True):  # float32 would miss by several weights in ten million
        parts = [_traced_counts(own, rho, n, schedule, one) for own, rho, one in trios]
        counts, by_layer = _joined(jnp, parts, members, plan)
        return lax.convert_element_type(counts, dtype), by_layer


def _rounds(n: int) -> np.ndarray:
    return np.arange(1, n + 1, dtype=np.float64)


def _known_counts(shapes: Any, rho: Any, n: int, schedule: Schedule, scope: Scope) -> np.ndarray:
    def densities_of(ratio: Any) -> np.ndarray:
        return np.asarray(schedule(_rounds(n), n, ratio), np.float64)

    value = np.float64(float(rho))
    slack = rounding_of(rho, value)
    densities = densities_of(value)
    if densities.shape != (n,) or not ((densities >= 0) & (densities <= 1)).all():
        raise ValueError(
            "schedule(k, rounds, rho) must map the array k of rounds to as many densities "
            f"from 0 to 1, got {densities.tolist()}"
        )
    counts = np.asarray(scope(shapes, densities))
    _check_counts(counts, shapes, n)
    if slack:
        ends = (value * (1 + slack), value * (1 - slack))
        fewer, more = (np.asarray(scope(shapes, densities_of(end))) for end in ends)
        # The layers of ERK share one exact total, which settles them together.
        counts = settle(counts, fewer, more, by_total=scope is erk)
    if isinstance(scope, LaidRuns):
        scope.check_reached(shapes, densities[-1], counts[-1], slack)
    return counts


def _traced_counts(shapes: Any, rho: Any, n: int, schedule: Schedule, scope: Scope) -> jax.Array:
    """Count for a ρ that cannot be checked: below 1 it keeps all, NaN and infinity nothing."""
    wide = lax.convert_element_type(rho, jnp.float64)
    slack = rounding_of(rho, wide)
    at = jnp.asarray(_rounds(n))

    def counted(ratio: jax.Array) -> jax.Array:
        return scope(shapes, schedule(at, n, ratio))

    counts = counted(wide)
    if is_traced(slack):
        counts = settle(counts, counted(wide * (1 + slack)), counted(wide * (1 - slack)))
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


def _joined(xp: Any, parts: list[Any], members: Members, plan: Plan) -> tuple[Any, bool]:
    """Join the counts of groups, each raised to its floors, and tell if they are a layer each."""
    floors = np.array(plan.floors or (0,) * len(plan.sizes), np.float64)
    if all(part.shape[1] == 1 for part in parts):
        counts = xp.concatenate(parts, axis=1)
        least = np.array([floors[list(group)].sum() for group in members])
        if xp is np:
            _check_floors(counts[-1], least, members, plan)
        return xp.maximum(counts, least[None]), False
    if any(part.shape[1] != len(group) for part, group in zip(parts, members, strict=True)):
        raise ValueError(
            "scope must return counts of one kind for all groups of rho, one a group or one a "
            f"layer, got {[part.shape[1] for part in parts]} for groups of "
            f"{[len(group) for group in members]} layers"
        )
    order = np.argsort([i for group in members for i in group])
    return xp.maximum(xp.concatenate(parts, axis=1)[:, order], floors[None]), True


def _check_floors(last: np.ndarray, least: np.ndarray, members: Members, plan: Plan) -> None:
    for kept, floor, group in zip(last, least, members, strict=True):
        if kept < floor:
            most = sum(plan.sizes[i] for i in group) / floor
            raise ValueError(
                f"rho leaves {kept:.0f} {plan.counted}{_of_group(group, plan)} and min_keep asks "
                f"for {floor:.0f}: pass a smaller min_keep, or at most {write_limit(most)} as rho"
            )


def _warn_of_collapse(counts: np.ndarray, members: Members, plan: Plan) -> None:
    """Warn where a group keeps fewer units than it has layers."""
    last = counts[-1]
    for at, group in enumerate(members):
        kept = int(last[at] if len(last) == len(members) else last[list(group)].sum())
        if kept < len(group):
            most = sum(plan.sizes[i] for i in group) / len(group)
            warn(
                f"rho leaves {kept} {plan.counted} for {len(group)} layers"
                f"{_of_group(group, plan)}, so some layer must collapse; the largest rho without "
                f"is N/L = {most:.6g}",
                CollapseWarning,
            )


def _of_group(group: tuple[int, ...], plan: Plan) -> str:
    owners = plan.layers.spread(plan.layers.paths)
    whole = len(group) == len(owners)
    return "" if whole else f" of {', '.join(dict.fromkeys(owners[i] for i in group))}"
