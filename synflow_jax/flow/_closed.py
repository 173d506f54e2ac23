"""Closed branches: leaves that scale a branch by 0 at initialisation, opened and closed again.

Knows the leaves and how a network uses them. What is only added to a signal closes no branch: with
a reading the trace tells, without one names do.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.flow._network import as_network
from synflow_jax.flow._sources import only_added
from synflow_jax.structure import Reading, read_network
from synflow_jax.trees import (
    ApplyFn,
    Params,
    converted,
    is_traced,
    is_weight,
    named_leaves,
    pick,
    place,
    read_shape,
)

Stacks = tuple[tuple[int, ...], ...]  # the axes of layers of each leaf


def open_closed(params: Params, reading: Reading | None) -> Params:
    """Return the params with closed leaves open, so that the branches that they scale are scored.

    A closed kernel becomes 1/√(inputs of a unit), a closed leaf of fewer axes becomes 1, and of a
    stack each layer by itself.
    """
    flags, layers = _may_close(params, reading)
    leaves = pick(params, flags)
    opened = [
        jnp.where(shut, jnp.full_like(leaf, _opened(leaf, axes)), leaf)
        for leaf, axes, shut in zip(leaves, layers, _closed(leaves, layers), strict=True)
    ]
    return place(params, flags, opened, lambda leaf: leaf)


def closing_factors(params: Params, reading: Reading | None) -> tuple[Any, ...] | None:
    """Return |closed|/opened for each leaf that `open_closed` opens, 1 for the others.

    A scalar for each leaf; of a stack, an array of one number a layer. A leaf that all flow passes,
    as a head of zeros, has 1 too: closed, it would leave no flow for the rest. None where it is
    known that no leaf is closed; under a trace no value is known.
    """
    flags, layers = _may_close(params, reading)
    uses = (None,) * len(flags) if reading is None else reading.uses
    passed = [use is not None and use.needed for use, hit in zip(uses, flags, strict=True) if hit]
    factors = [
        jnp.ones(()) if through else factor
        for through, factor in zip(passed, _closings(pick(params, flags), layers), strict=True)
    ]
    if not is_traced(factors) and all((one == 1).all() for one in jax.device_get(factors)):
        return None
    found = iter(factors)
    return tuple(next(found) if hit else jnp.ones(()) for hit in flags)


@converted("params")
def closed_leaves(
    params: Params, apply_fn: ApplyFn | None = None, shape: Any = None
) -> tuple[str, ...]:
    """List the leaves that close a branch at initialisation: all 0, or all one number below 0.01.

    Examples are a zero-initialised last scale of a residual block, a layer scale of 1e-6, ReZero's
    α, LoRA's B, and a head of zeros. What is only added to a signal closes no branch and is not
    listed: the trace of the network tells, or names where there is no network. Of a stack one layer
    is enough. In params that hold pruned weights a kernel of zeros is an emptied one, not a closed
    one.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode, or flow_mode of it.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      Paths, in tree order.

    Example:
      >>> import jax.numpy as jnp
      >>> closed_leaves({"gamma": jnp.full(3, 1e-6), "bias": jnp.zeros(3), "kernel": jnp.eye(3)})
      ('gamma',)
    """
    if apply_fn is None:
        return find_closed(params, None)
    return find_closed(params, read_network(as_network(apply_fn).plain, params, read_shape(shape)))


def find_closed(params: Params, reading: Reading | None) -> tuple[str, ...]:
    """List the leaves that close a branch, given the reading of the network if there is one."""
    flags, layers = _may_close(params, reading)
    factors = iter(jax.device_get(_closings(pick(params, flags), layers)))
    pairs = zip(named_leaves(params), flags, strict=True)
    return tuple(path for (path, _), hit in pairs if hit and (next(factors) != 1).any())


def _may_close(params: Params, reading: Reading | None) -> tuple[tuple[bool, ...], Stacks]:
    """Flag the floating leaves that scale a branch, and return the axes of layers of each.

    Leaves that are only added to signals close nothing, nor do those behind exp and its kind or a
    constant that is added, as the s of x·(1 + s), which is open at 0.
    """
    added, leaves = only_added(params, reading), jax.tree.leaves(params)
    uses = (None,) * len(leaves) if reading is None else reading.uses
    bent = [use is not None and use.bent and not use.is_kernel for use in uses]
    flags = tuple(
        is_weight(leaf) and bool(leaf.size) and not source and not gate
        for leaf, source, gate in zip(leaves, added, bent, strict=True)
    )
    layers = (() if use is None else use.layers for use in uses)
    return flags, tuple(axes for axes, hit in zip(layers, flags, strict=True) if hit)


CLOSED = 0.01  # a leaf of one number below it closes its branch


def is_closed(leaf: Any, layers: tuple[int, ...] = ()) -> Any:
    """Whether a leaf closes the branch that it scales: one number below CLOSED, or a scalar 0.

    Args:
      leaf: a floating array.
      layers: the axes of layers of a stack, which keep their length; the others get length 1.
    """
    # By minimum and maximum: of a sharded leaf only two numbers cross devices.
    over = _within(leaf, layers)
    least, most = (fn(leaf, axis=over, keepdims=True) for fn in (jnp.min, jnp.max))
    one = math.prod(leaf.shape[axis] for axis in over) == 1
    return (least == most) & ((most == 0) if one else (jnp.abs(most) < CLOSED))


def _within(leaf: Any, layers: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in range(leaf.ndim) if axis not in layers)


def is_pruned(leaves: list[Any]) -> Any:
    """Whether kernels hold pruned weights: more than PRUNED of the entries are 0, among others."""
    kernels = [leaf for leaf in leaves if leaf.ndim >= 2]
    zeros = [jnp.sum(leaf == 0, dtype=jnp.float32) for leaf in kernels]
    some = [jnp.where(zero < leaf.size, zero, 0) for zero, leaf in zip(zeros, kernels, strict=True)]
    return sum(some, jnp.float32(0)) > PRUNED * sum(leaf.size for leaf in kernels)


PRUNED = 0.001  # no initialisation draws so many exact zeros


def _closed(leaves: list[Any], layers: Stacks) -> list[Any]:
    """Flag the layers that are closed; in pruned params a kernel of zeros is an emptied one."""
    pruned = is_pruned(leaves)
    found = []
    for leaf, axes in zip(leaves, layers, strict=True):
        over, closed = _within(leaf, axes), is_closed(leaf, axes)
        if len(over) >= 2:
            empty = jnp.max(jnp.abs(leaf), axis=over, keepdims=True) == 0
            closed &= ~(pruned & empty)
        found.append(closed)
    return found


def _opened(leaf: Any, layers: tuple[int, ...]) -> float:
    """Return what a closed layer is opened to: 1/√(inputs of a unit), 1 for less than two axes."""
    return math.prod(leaf.shape[axis] for axis in _within(leaf, layers)[:-1]) ** -0.5


@partial(jax.jit, static_argnums=1)
def _closings(leaves: list[Any], layers: Stacks) -> list[Any]:
    """Return |closed|/opened of the layers that are closed, 1 of the others."""
    found = []
    for leaf, axes, shut in zip(leaves, layers, _closed(leaves, layers), strict=True):
        size = jnp.max(jnp.abs(leaf), axis=_within(leaf, axes), keepdims=True).astype(jnp.float32)
        found.append(jnp.where(shut, size / _opened(leaf, axes), 1))
    return found
