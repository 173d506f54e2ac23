"""Checks of arguments: each error names the argument, what came, what is allowed, what to do.

Numbers and keys come first, then params, then trees that must fit the params.
"""

import math
from decimal import ROUND_FLOOR, Context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import tree_flatten_with_path

from synflow_jax.trees._leaves import (
    LONG,
    clip,
    is_floating,
    is_weight,
    listed_names,
    named_leaves,
    path_string,
    shown,
)


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is a tracer, whose value is not known yet."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


# Numbers and keys.


MOST_ROUNDS = 10**6


def check_rounds(rounds: Any) -> None:
    """Refuse anything but a number of rounds that could be run."""
    check_int("rounds", rounds)
    if rounds > MOST_ROUNDS:
        raise ValueError(
            f"rounds must be at most {MOST_ROUNDS:,}, got {_clipped(rounds)}: 100 are usual, each "
            "evaluates the network once"
        )


def _clipped(number: Any) -> str:
    """Write a whole number; of a long one, how large it is (a hexadecimal digit is 10^1.204)."""
    return str(number) if abs(number) < 10**20 else f"about 10^{len(f'{number:x}') * 1.204:.0f}"


def check_int(name: str, value: Any, least: int | None = 1) -> None:
    """Refuse anything but a whole number, of at least `least` unless that is None."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got a {type(value).__name__}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_rho(rho: Any, name: str = "rho") -> None:
    """Refuse anything but a compression ratio: a finite number of at least 1, or a tracer."""
    if is_traced(rho):
        if rho.shape != () or not is_floating(rho):
            raise TypeError(
                f"{name} must be a floating scalar, got a traced {rho.dtype}{rho.shape}: pass a "
                "float"
            )
        return
    try:
        value = None if isinstance(rho, str | bytes | bytearray | bool) else float(rho)
    except (TypeError, ValueError):
        value = None
    except OverflowError:  # a whole number that no float holds
        value = math.inf
    if value is None:
        raise TypeError(f"{name} must be a number, at least 1, got a {type(rho).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, at least 1, got {value}")
    if value < 1:
        hint = f"; for the density {value!r} pass rho={1 / value:.12g}" if value > 0 else ""
        raise ValueError(
            f"{name} must be at least 1, got {value!r}: it is the compression ratio, "
            f"weights before over weights after{hint}"
        )


def check_key(key: Any) -> None:
    """Refuse anything but one random key, typed or of the old uint32 kind."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise TypeError(
            f"key must be a random key such as jax.random.key(0), got a {type(key).__name__}"
        )
    if len(key.shape) != (0 if typed else 1):
        raise TypeError(f"key must be one random key, got an array of shape {key.shape}")


def write_limit(limit: float) -> str:
    """Write an upper limit with six digits, rounded down, so that what is written is allowed."""
    down = Context(prec=6, rounding=ROUND_FLOOR).create_decimal(limit)
    return f"{float(down):.6g}"


# Params.


def check_finite(params: Any, power: int = 0, prunable: tuple[bool, ...] = ()) -> None:
    """Refuse params with NaN or infinity, or of sizes beyond the range of exact masks.

    Traced params pass unread.

    Args:
      params: any pytree of arrays.
      power: the power of |θ| whose sums over paths are scores; 0 if scores are no such sums.
      prunable: for each leaf, whether it is ranked; () for none.
    """
    check_devices(params)
    flags = prunable or (False,) * len(jax.tree.leaves(params))
    trios = [(*pair, hit) for pair, hit in zip(named_leaves(params), flags, strict=True)]
    trios = [trio for trio in trios if is_weight(trio[1])]
    found = max_abs([leaf for _, leaf, _ in trios])
    if is_traced(found):
        return
    tops = [float(top) for top in jax.device_get(found)]
    pairs = list(zip(trios, tops, strict=True))
    bad = [path for (path, *_), top in pairs if not math.isfinite(top)]
    if bad:
        raise ValueError(f"params must be finite: NaN or infinity in {listed_names(bad)}")
    for (path, leaf, hit), top in pairs:
        least, most = _range(leaf, power)
        lost = hit and not top and _is_above_zero(leaf)  # below the normal numbers JAX reads 0
        if lost or top > most or (hit and 0 < top < least):
            found = "a subnormal number" if lost else f"{top:.3g}"
            raise ValueError(
                f"params must have a largest |θ| between {least:.1e} and {most:.1e} in each leaf "
                f"of {leaf.dtype}, where masks are exact, and {shown(path)} has {found}: multiply "
                "the leaf by a number that brings it there; the masks of SynFlow stay the same"
            )


def _range(leaf: Any, power: int) -> tuple[float, float]:
    """Return the least and the largest max|θ| of a leaf for which scores are exact.

    Sums of a layer stay below 2^120 then (2^1000 in float64), and what is ranked above 2^-100.
    """
    info = jnp.finfo(jax.dtypes.canonicalize_dtype(leaf.dtype))  # float64 mostly becomes float32
    wide = jnp.finfo(jnp.float32) if info.bits < 32 else info  # half precision is widened
    if not power:
        return float(wide.tiny), float(info.max)
    below, above = (-100, 120) if wide.bits <= 32 else (-980, 1000)
    terms = max(1, leaf.size // max(1, min(leaf.shape, default=1)))  # at most so many are added up
    return 2.0 ** (below / power), min((2.0**above / terms) ** (1 / power), float(info.max))


def _is_above_zero(leaf: Any) -> bool:
    """Whether any entry is not 0 before JAX reads it."""
    if isinstance(leaf, np.ndarray):
        return bool((leaf != 0).any())
    return bool(_has_bits(leaf))


@jax.jit
def _has_bits(leaf: jax.Array) -> jax.Array:
    """Whether a bit other than signs is set: of subnormal numbers arithmetic sees none."""
    parts = [jnp.real(leaf), jnp.imag(leaf)] if jnp.iscomplexobj(leaf) else [leaf]
    found = [
        jax.lax.bitcast_convert_type(part, f"uint{8 * part.dtype.itemsize}") << 1 for part in parts
    ]
    return jnp.stack([jnp.any(bits != 0) for bits in found]).any()


@jax.jit
def max_abs(leaves: list[jax.Array]) -> list[jax.Array]:
    """Compute max|θ| of each leaf, NaN where the leaf holds one."""
    return [jnp.max(jnp.abs(leaf), initial=0) for leaf in leaves]


def check_devices(params: Any) -> None:
    """Refuse params on different sets of devices: one compiled program runs on one set."""
    sets: dict[frozenset[Any], str] = {}
    for path, leaf in named_leaves(params):
        # JAX moves an uncommitted array to where the others are.
        if not is_traced(leaf) and getattr(leaf, "committed", False):
            sets.setdefault(frozenset(leaf.devices()), path)
    if len(sets) > 1:
        (few, path), (many, other) = sorted(sets.items(), key=lambda pair: len(pair[0]))[:2]
        raise ValueError(
            f"params must lie on one set of devices: {shown(path)} is on {_devices_text(few)} and "
            f"{shown(other)} is on {_devices_text(many)}; to have a leaf whole on every device of "
            "a mesh, jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))"
        )


def _devices_text(devices: frozenset[Any]) -> str:
    """Write one device by its name, several by their number."""
    return str(next(iter(devices))) if len(devices) == 1 else f"{len(devices)} devices"


# Trees that must fit the params.


def check_structure(params: Any, other: Any, name: str, like: str = "params") -> None:
    """Refuse a tree whose structure is not that of params, and name the leaves that differ."""
    if jax.tree.structure(params) == jax.tree.structure(other):
        return
    mine, theirs = (
        {path_string(path) for path, _ in tree_flatten_with_path(tree)[0]}
        for tree in (params, other)
    )
    more, less = (
        [clip(path, LONG) for path in sorted(paths)[:3]] for paths in (mine - theirs, theirs - mine)
    )
    where = f"only {like} has {more}, only {name} has {less}"
    if mine == theirs:
        where = f"the names agree, the containers do not ({type(params).__name__} and "
        where += f"{type(other).__name__} at the top; a FrozenDict is no dict)"
    raise ValueError(f"{name} must have the tree structure of {like}: {where}")


def check_like(tree: Any, like: Any, name: str, like_name: str) -> None:
    """Refuse a tree that has not the structure and the shapes of another one."""
    check_structure(like, tree, name, like_name)
    pairs = zip(tree_flatten_with_path(tree)[0], jax.tree.leaves(like), strict=True)
    for (path, leaf), other in pairs:
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{name} must have the shapes of {like_name}: {shown(path_string(path))} is "
                f"{jnp.shape(leaf)} in {name} and {jnp.shape(other)} in {like_name}"
            )


def check_masks(params: Any, masks: Any, name: str = "masks") -> None:
    """Refuse masks that are not bool, do not fit params, or prune a leaf of whole numbers or bools.

    Leaves that are neither floating nor complex are never pruned: their masks must be all True.
    """
    check_structure(params, masks, name)
    check_bool(masks, name)
    pairs = zip(named_leaves(params), jax.tree.leaves(masks), strict=True)
    for (path, leaf), mask in pairs:
        if tuple(mask.shape) != tuple(leaf.shape):
            raise ValueError(
                f"{name} must have the shapes of params: {shown(path)} is {tuple(leaf.shape)} "
                f"in params and {tuple(mask.shape)} in {name}"
            )

        if not is_weight(leaf) and not is_traced(mask) and not mask.all():
            raise ValueError(
                f"{name} must be True on leaves that are not floating or complex: {shown(path)} is "
                f"{leaf.dtype}"
            )


def check_bool(masks: Any, name: str = "masks") -> None:
    """Refuse masks whose leaves are not bool arrays."""
    for path, mask in tree_flatten_with_path(masks)[0]:
        if getattr(mask, "dtype", None) != jnp.bool_:
            found = getattr(mask, "dtype", type(mask).__name__)
            where = path_string(path)
            raise TypeError(
                f"{name} must be bool arrays (True = keep) in the shapes of the weights: "
                f"{shown(where)} is {found}; np.full(leaf.shape, True) keeps a whole leaf, and "
                "mask != 0 makes bools of numbers"
            )
