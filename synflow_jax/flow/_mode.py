"""Flow mode: any network evaluated so that it is homogeneous of degree 1 and monotone.

The theorems of SynFlow need such a network. Flow mode applies rules to the operations of the jaxpr:
sources are dropped, activations and normalisers become frozen gates and factors, products share the
flow among their factors, attention becomes linear, and routing uniform.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from synflow_jax.flow._network import Network, as_network
from synflow_jax.flow._primitives import RULES
from synflow_jax.flow._shares import check_share, share_evenly
from synflow_jax.flow._sources import only_added
from synflow_jax.flow._values import Kind, Value, signal
from synflow_jax.flow._walk import Walk
from synflow_jax.structure import Reading, read_network, read_trace
from synflow_jax.trees import (
    ApplyFn,
    Function,
    Inputs,
    Params,
    as_function,
    call_traced,
    is_traced,
    is_weight,
    named_leaves,
    pick,
    place,
    read_shape,
    warn,
)


class FlowWarning(UserWarning):
    """The laws of flow need not hold: a network is not homogeneous, or an operation is unknown."""


def run_in_flow_mode(walk: Walk, fn: ApplyFn, params: Params, x: Any) -> Any:
    """Evaluate fn(params, x) by the rules of a walk, which collects the notes."""
    called = partial(call_traced, as_function(fn, "apply_fn"))
    closed, shapes = jax.make_jaxpr(called, return_shape=True)(params, x)
    leaves = jax.tree.leaves(params)
    if not walk.sources:  # a bias of a product of leaves alone meets no signal where it is added
        uses = read_trace(closed, params).uses
        leaves = [
            jnp.zeros_like(leaf) if use.roles == {"added"} else leaf
            for leaf, use in zip(leaves, uses, strict=True)
        ]
    weights = [Value(Kind.WEIGHT, leaf) for leaf in leaves]
    inputs = [_input_value(jnp.asarray(leaf)) for leaf in jax.tree.leaves(x)]
    out = walk.run_closed(closed, weights + inputs)
    results = [_output_array(walk, walk.as_factor(v)) for v in out]
    return jax.tree.structure(shapes).unflatten(results)


def _input_value(leaf: jax.Array) -> Value:
    return signal(leaf) if is_weight(leaf) else Value(Kind.DISCRETE, leaf)


def _output_array(walk: Walk, value: Value) -> Any:
    if value.is_signal or not is_weight(value.array):
        return walk.flow(value)
    return jnp.zeros_like(value.array)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["apply_fn"],
    meta_fields=["sources", "shares", "branches"],
)
@dataclass(frozen=True)
class FlowMode(Network):
    """The network that `flow_mode` builds; equal arguments make equal networks.

    Attributes:
      apply_fn: the user's own function.
      sources: whether summands are kept as |b|.
      shares: the weights of the output arrays, of which each carries a share of R in proportion;
        () for equal shares.
      branches: the share of a branch beside its skip; None for what flows there by itself.
    """

    apply_fn: Function
    sources: bool
    shares: tuple[float, ...] = ()
    branches: float | None = 0.5

    homogeneous: ClassVar[bool] = True

    @property
    def keeps_layers(self) -> bool:
        """Whether branches have shares of their own beside skips."""
        return self.branches is not None

    @property
    def plain(self) -> ApplyFn:
        """The user's own function, outside of flow mode."""
        return self.apply_fn.fn

    def __call__(self, params: Params, x: Any) -> Any:
        """Return the outputs of the network in flow mode; their sum is the flow."""
        walk = Walk(RULES, self.sources, self.branches)
        out = share_evenly(run_in_flow_mode(walk, self.apply_fn.fn, params, x), self.shares)
        unknown = [note for note in walk.notes if note.rule == "not recognised"]
        if unknown:
            names = sorted({f"{note.operation} at {note.where}" for note in unknown})
            warn(
                f"flow_mode has no rule for {'; '.join(names)}: flow may not be conserved there",
                FlowWarning,
            )
        return out

    def least_share(self, outputs: int) -> float:
        """Return the smallest share of R that an output array has, given their number."""
        return min(self.shares) / sum(self.shares) if self.shares else 1 / max(1, outputs)

    def over(self, apply_fn: Callable[..., Any]) -> "FlowMode":
        """Return flow mode of another function."""
        return replace(self, apply_fn=as_function(apply_fn, "apply_fn"))

    def prepare(self, params: Params, inputs: Inputs | None = None) -> Params:
        """Open the leaves of `closed_leaves`, so that the branches that they scale are scored.

        A closed kernel becomes 1/√(inputs of a unit), a closed leaf of fewer axes becomes 1. What
        is only added to a signal closes no branch and stays unchanged: with `inputs` the trace
        tells, without them names do. In params that hold pruned weights, exact zeros among others,
        a kernel that is all zero is an emptied one, and stays so.
        """
        reading = None if inputs is None else read_network(self.plain, params, inputs)
        flags, layers = _may_close(params, reading)
        leaves = pick(params, flags)
        trios = zip(leaves, layers, _closed(leaves, layers), strict=True)
        opened = [
            jnp.where(shut, jnp.full_like(leaf, _opened(leaf, axes)), leaf)
            for leaf, axes, shut in trios
        ]
        return place(params, flags, opened, lambda leaf: leaf)

    def signed(self, params: Params, inputs: Inputs) -> tuple[bool, ...]:
        """Flag the leaves that act through gates alone, such as a negative rate inside of exp.

        The network takes the absolute value of the gate, so that flow stays positive, and the value
        of the gate is the network's own.
        """
        uses = read_network(self.plain, params, inputs).uses
        return tuple(use.bent and not use.roles & {"kernel", "table"} for use in uses)

    def closing(self, params: Params, inputs: Inputs) -> tuple[Any, ...] | None:
        """Return |closed|/opened for each leaf that `prepare` opens, 1 for the others.

        None where it is known that no leaf is closed; under a trace no value is. Of a stack it is
        an array of one number a layer.
        """
        flags, layers = _may_close(params, read_network(self.plain, params, inputs))
        factors = _closings(pick(params, flags), layers)
        if not is_traced(factors) and all((one == 1).all() for one in jax.device_get(factors)):
            return None
        found = iter(factors)
        return tuple(next(found) if hit else jnp.ones(()) for hit in flags)


def _may_close(
    params: Params, reading: Reading | None
) -> tuple[tuple[bool, ...], tuple[tuple[int, ...], ...]]:
    """Flag the floating leaves that scale a branch, and list the axes of layers of each.

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


def _closed(leaves: list[Any], layers: tuple[tuple[int, ...], ...]) -> list[Any]:
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
def _closings(leaves: list[Any], layers: tuple[tuple[int, ...], ...]) -> list[Any]:
    """Return |closed|/opened of the layers that are closed, 1 of the others."""
    found = []
    for leaf, axes, shut in zip(leaves, layers, _closed(leaves, layers), strict=True):
        size = jnp.max(jnp.abs(leaf), axis=_within(leaf, axes), keepdims=True).astype(jnp.float32)
        found.append(jnp.where(shut, size / _opened(leaf, axes), 1))
    return found


@partial(jax.jit, static_argnums=1)
def _any_closed(leaves: list[Any], layers: tuple[tuple[int, ...], ...]) -> list[Any]:
    return [jnp.any(shut) for shut in _closed(leaves, layers)]


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
    closed = iter(jax.device_get(_any_closed(pick(params, flags), layers)))
    pairs = zip(named_leaves(params), flags, strict=True)
    return tuple(path for (path, _), hit in pairs if hit and next(closed))


def flow_mode(
    apply_fn: ApplyFn, *, sources: bool = False, branches: float | None = 0.5
) -> FlowMode:
    """Make a network homogeneous of degree 1 and monotone, so that flow is conserved.

    An activation φ is x·sg(φ(x)/x), a norm x·sg(1/rms(x))·|γ|, a product of two signals
    (a·f·sg(g) + b·sg(f)·g)/(a + b) with a and b the factors that f and g are products of,
    softmax(l) is l/sg(Σl), routing to one of E experts is 1/E, and biases, means and positional
    embeddings are dropped; sg stops the gradient. A class token becomes the mean of the tokens
    that it stands beside. Of several output arrays each carries the same share of R.

    A sum y = a + b becomes a·sg(s·y/a) + b·sg((1 − s)·y/b), which is y as well, but a share s of
    the flow through each of its entries goes through a. Where a is a branch, computed from its skip
    b, s is `branches`: however many blocks are stacked, each branch carries that share of R.
    Signals of which neither was computed from the other have shares by their numbers of terms, so
    that each of n parallel ones has 1/n.

    Args:
      apply_fn: apply_fn(params, x) -> y, of any library, in evaluation mode.
      sources: keep summands as |b|, as the reference does with biases, instead of dropping them.
      branches: the share s of a branch beside its skip; None for the shares that all terms have by
        themselves, a/y and b/y, of which that of a branch may be next to nothing.

    Returns:
      A function of the same signature, to be passed to `synflow`, `layer_flow` and others in place
      of apply_fn. Its method prepare(params), which scoring calls, opens the leaves of
      `closed_leaves`.

    Raises:
      TypeError: apply_fn is not a function.
      ValueError: branches is no share.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def network(p, x):
      ...     return jax.nn.gelu(x @ p["v"] + 1.0) @ p["w"]
      >>> weights = {"v": jnp.ones((2, 3)), "w": jnp.ones((3, 1))}
      >>> from synflow_jax.measure import conservation_gap
      >>> bool(conservation_gap(weights, network, (2,)) > 0.01)
      True
      >>> bool(conservation_gap(weights, flow_mode(network), (2,)) < 1e-6)
      True

    Source: Tanaka et al. 2020, section 4, whose theorems need homogeneity; the substitutes are
    this library's.
    """
    shares = check_share(branches)
    return FlowMode(as_function(apply_fn, "apply_fn"), bool(sources), branches=shares)
