"""Shares of the flow: of output arrays, of the terms of a sum, of signals that are joined."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.flow._values import freeze
from synflow_jax.trees import floating_dtype, is_floating, is_weight, pick, place, widen


def check_share(branches: Any) -> float | None:
    """Refuse what is no share of a branch beside a skip."""
    if branches is None:
        return None
    number = isinstance(branches, int | float | np.number) and not isinstance(branches, bool)
    if not number or not 0 < branches < 1:
        raise ValueError(
            "branches must be the share of the flow that a branch carries beside its skip, above 0 "
            f"and below 1, or None for what flows there by itself, got {branches!r}"
        )
    return float(branches)


def largest(*weights: Any) -> Any:
    """Return the largest of some numbers and scalars."""
    if any(isinstance(weight, jax.Array) for weight in weights):
        return reduce(jnp.maximum, weights)
    return max(weights)


def add_in_shares(one: Any, other: Any, share: Any) -> Any:
    """Add two flows so that one carries a share s of every entry of the sum, the other 1 − s.

    y = a + b becomes a·sg(s·y/a) + b·sg((1 − s)·y/b), which is y, while a share s of the flow
    through each entry of y goes through a. Where an entry of one term is 0, the other has all.

    Args:
      one: the flow a.
      other: the flow b, of the same shape and dtype.
      share: s, a number or a floating scalar.
    """
    a, b = (jnp.real(freeze(term)) for term in (one, other))
    total = a + b
    ratios = [total / jnp.where(term > 0, term, 1) for term in (a, b)]
    both = (a > 0) & (b > 0) & jnp.isfinite(ratios[0]) & jnp.isfinite(ratios[1])
    share = jnp.asarray(share, total.dtype)
    factors = [
        jnp.where(both, part * ratio, 1)
        for part, ratio in zip((share, 1 - share), ratios, strict=True)
    ]
    return one * factors[0].astype(one.dtype) + other * factors[1].astype(other.dtype)


def in_proportion(flows: list[Any], weights: Sequence[float]) -> list[Any]:
    """Scale flows so that their sums are as their weights, the sum of all unchanged.

    For flows with sums t_k > 0 and weights w_k the factors are w_k Σt/(t_k Σw), without gradient.
    Flows that are 0 stay, and have no part.
    """
    wide = floating_dtype(widen(flows))
    # Scalars, since arrays that are far apart in size do not fit into one.
    totals = [freeze(jnp.sum(jnp.real(flow), dtype=wide)) for flow in flows]
    pairs = list(zip(totals, weights, strict=True))
    carried: Any = sum(jnp.where(total > 0, weight, 0).astype(wide) for total, weight in pairs)
    share: Any = sum(totals) / jnp.where(carried > 0, carried, 1)
    factors = [
        jnp.where(total > 0, weight * share / jnp.where(total > 0, total, 1), 1)
        for total, weight in pairs
    ]
    return [flow * factor.astype(flow.dtype) for flow, factor in zip(flows, factors, strict=True)]


def share_evenly(outputs: Any, weights: tuple[float, ...] = ()) -> Any:
    """Scale the floating arrays so that each has the same sum, with the sum of all unchanged.

    Args:
      outputs: pytree.
      weights: of the floating arrays, in tree order, for sums in proportion; () for equal ones.
    """
    floating = tuple(is_floating(leaf) for leaf in jax.tree.leaves(outputs))
    some = pick(outputs, floating)
    if len(some) < 2:
        return outputs
    even = in_proportion(some, weights or (1.0,) * len(some))
    return place(outputs, floating, even, lambda leaf: leaf)


def enter_evenly(run: Callable[[Any], Any], x: Any) -> Any:
    """Return outputs whose flow comes from each input in equal shares, with the same sum.

    In flow mode all factors are frozen, so that the outputs are linear in the factors e of the
    signals where they begin: with J their Jacobian at e = 1, the flow from input i is
    f_i = 1ᵀJ_i, and J·c, where c_i = Σf/(n·f_i) for the n inputs with flow, carries Σf/n from
    each. Inputs without flow stay so.

    Args:
      run: e -> outputs, with e an array of one number for each floating leaf of x and, last, one
        for what is looked up by whole numbers.
      x: the inputs.
    """
    entering = [leaf for leaf in jax.tree.leaves(x) if is_weight(jnp.asarray(leaf))]
    wide = floating_dtype(widen(entering or [jnp.zeros(())]))
    ones = jnp.ones(len(entering) + 1, wide)

    built: list[Any] = []  # the structure of the outputs, and which of them are floating

    def floating(entries: Any) -> tuple[list[Any], list[Any]]:
        """Return the floating outputs, and the others beside them."""
        leaves, treedef = jax.tree.flatten(run(entries))
        built[:] = treedef, tuple(map(is_floating, leaves))
        return pick(leaves, built[1]), pick(leaves, tuple(not hit for hit in built[1]))

    out, along, others = jax.linearize(floating, ones, has_aux=True)
    # Its constants are frozen: how even the shares are has no gradient.
    back = jax.linear_transpose(jax.tree.map(freeze, along), ones)
    (flows,) = back([jnp.ones_like(leaf) for leaf in out])
    some = flows > 0
    part = jnp.sum(flows) / jnp.maximum(jnp.sum(some, dtype=wide), 1)
    even = iter(along(freeze(jnp.where(some, part / jnp.where(some, flows, 1), 1))))
    rest, (treedef, flags) = iter(others), built
    return treedef.unflatten([next(even) if hit else next(rest) for hit in flags])
