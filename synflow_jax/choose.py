"""Choosing by name: what is pruned, what competes with what, and what every layer keeps."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from synflow_jax._types import Params, Pattern, Prunable
from synflow_jax.errors import check_rho
from synflow_jax.packing import packing_of
from synflow_jax.patterns import check_pattern, unstructured
from synflow_jax.tiles import count_units, unit_shape
from synflow_jax.tree import Layers, find_layers, is_prunable, named_leaves, pick

REST = "*"


@dataclass(frozen=True)
class Matching:
    """What `matching` returns; equal choices are equal, so that they share compiled programs."""

    patterns: tuple[str, ...]
    but: tuple[str, ...]

    def __call__(self, path: str, leaf: Any) -> bool:
        """Say whether a leaf is pruned."""
        return is_prunable(path, leaf) and _any(path, self.patterns) and not _any(path, self.but)


def matching(*patterns: str, but: Iterable[str] = ()) -> Matching:
    """Choose what is pruned by the names of leaves, for the argument `prunable`.

    A pattern is a whole path with wildcards as a shell has them, where * stands for any characters,
    / included: "encoder/*", "*/Conv_?/kernel". Only leaves that `is_prunable` takes are chosen;
    embeddings, biases and norms need a function of your own.

    Args:
      *patterns: a leaf must match one of them; without any, all match.
      but: a leaf must match none of these; `layer_order` names the first and the last layer.

    Returns:
      A function (path, leaf) -> bool.

    Raises:
      TypeError: a pattern is no string, or `but` is one string and no list.

    Example:
      >>> import jax.numpy as jnp
      >>> chosen = matching("encoder/*", but=["*/out/kernel"])
      >>> paths = ["encoder/in/kernel", "encoder/out/kernel", "encoder/in/bias", "head/kernel"]
      >>> [chosen(path, jnp.ones((2, 2))) for path in paths]
      [True, False, False, False]
    """
    if isinstance(but, str) or not isinstance(but, Iterable):
        hint = f": pass [{but!r}]" if isinstance(but, str) else ""
        raise TypeError(f"but must be a list of patterns, got a {type(but).__name__}{hint}")
    out = tuple(but)
    for pattern in (*patterns, *out):
        if isinstance(pattern, list | tuple):
            raise TypeError(f"a pattern must be a string: pass those of a list as *{pattern!r}")
        if not isinstance(pattern, str):
            raise TypeError(
                f"a pattern must be a string, got a {type(pattern).__name__}; prunable=matching "
                "needs brackets"
            )
    return Matching(patterns or (REST,), out)


def _any(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def competing(
    params: Params,
    prunable: Prunable,
    rho: Any,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
) -> tuple[Layers, tuple[Any, ...]]:
    """Say which layers compete with which, and what each keeps at least; and give a ρ a group."""
    layers = _in_units(params, find_layers(params, prunable), pattern)
    check_matching(params, prunable, "prunable")
    for name, table in (("rho", rho), ("min_keep", min_keep)):
        _check_patterns(layers, table, name)
    parted, ratios = _in_groups(params, layers, rho)
    return _with_floors(parted, min_keep), ratios


def check_matching(params: Params, chosen: Any, name: str) -> None:
    """Refuse patterns that match no leaf: an exclusion that was misspelt would prune in silence."""
    if not isinstance(chosen, Matching):
        return
    paths = [path for path, _ in named_leaves(params)]
    idle = [p for p in (*chosen.patterns, *chosen.but) if not any(fnmatchcase(q, p) for q in paths)]
    if idle:
        raise ValueError(
            f"{name}=matching(…) must have patterns that match leaves, and {idle} match none of "
            f"{paths}"
        )


def _in_units(params: Params, layers: Layers, pattern: Pattern) -> Layers:
    """Note the shapes of the units that a pattern makes of each layer."""
    check_pattern(pattern)
    if pattern is unstructured:
        return layers
    pairs = list(zip(layers.paths, layers.shapes, strict=True))
    units = tuple(unit_shape(pattern, path, shape) for path, shape in pairs)
    shapes = tuple(count_units(shape, unit) for (_, shape), unit in zip(pairs, units, strict=True))
    packing = packing_of(pick(params, layers.chosen), shapes)
    return layers._replace(shapes=shapes, packing=packing, blocks=units)


def check_ratios(rho: Any) -> None:
    """Refuse what is neither a compression ratio nor a dict of them."""
    if not isinstance(rho, Mapping):
        return check_rho(rho)
    for pattern, value in rho.items():
        check_rho(value, f"rho[{pattern!r}]")
    return None


def _in_groups(params: Params, layers: Layers, rho: Any) -> tuple[Layers, tuple[Any, ...]]:
    """Part the layers in groups that compete within themselves, where rho is a ρ for each pattern.

    Returns:
      The layers, their groups numbered in the order of their first layers; and a ρ a group.
    """
    check_ratios(rho)
    if not isinstance(rho, Mapping):
        return layers, (rho,)
    chosen = [_pattern_of(path, rho, "rho") for path in layers.paths]
    lone = [path for path, pattern in zip(layers.paths, chosen, strict=True) if pattern is None]
    if lone:
        raise ValueError(
            f"rho must have a pattern for every prunable leaf: none matches {', '.join(lone)}; "
            "add '*', which takes what no other pattern matches"
        )
    order = list(dict.fromkeys(chosen))
    groups = tuple(order.index(pattern) for pattern in chosen)
    packing = packing_of(pick(params, layers.chosen), layers.shapes, groups)
    return layers._replace(groups=groups, packing=packing), tuple(rho[name] for name in order)


def _with_floors(layers: Layers, min_keep: Any) -> Layers:
    """Note how many units every layer keeps at least: a number, a share, or one a pattern."""
    table = min_keep if isinstance(min_keep, Mapping) else {REST: min_keep}
    for value in table.values():
        _check_floor(value)
    found = [_pattern_of(path, table, "min_keep") for path in layers.paths]
    asked = [0 if pattern is None else table[pattern] for pattern in found]
    floors = [
        min(size, int(floor) if floor >= 1 else math.ceil(size * floor - 1e-9))
        for size, floor in zip(layers.sizes, asked, strict=True)
    ]
    return layers._replace(floors=tuple(floors) if any(floors) else ())


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


def _pattern_of(path: str, table: Mapping[str, Any], name: str) -> str | None:
    """Find the one pattern that matches; "*" takes what no other does."""
    found = [p for p in table if p != REST and fnmatchcase(path, p)]
    if len(found) > 1:
        raise ValueError(f"{name} has {len(found)} patterns for {path!r}: {found}; one may match")
    return found[0] if found else (REST if REST in table else None)


def _check_patterns(layers: Layers, table: Any, name: str) -> None:
    """Refuse what is no pattern, and what matches no layer: a name that was misspelt."""
    if isinstance(table, Mapping):
        for pattern in table:
            if not isinstance(pattern, str):
                raise TypeError(f"{name} must have patterns as its keys, strings, got {pattern!r}")
        named = [p for p in table if p != REST]
        idle = [p for p in named if not any(fnmatchcase(path, p) for path in layers.paths)]
        if idle or (name == "rho" and not table):
            why = f"{idle} match none of" if idle else "has none; the leaves are"
            raise ValueError(
                f"{name} must have patterns that match prunable leaves, and {why} "
                f"{list(layers.paths)}"
            )
