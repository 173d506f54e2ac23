"""Flow mode: any network evaluated so that it is homogeneous of degree 1 and monotone.

The theorems of SynFlow need such a network. Flow mode applies rules to the operations of the jaxpr:
sources are dropped, activations and normalisers become frozen gates and factors, products share the
flow among their factors, attention becomes linear, and routing uniform.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from synflow_jax.flow._closed import closing_factors, open_closed
from synflow_jax.flow._network import Network
from synflow_jax.flow._primitives import RULES
from synflow_jax.flow._shares import check_share, enter_evenly, share_evenly
from synflow_jax.flow._values import Kind, Value
from synflow_jax.flow._walk import Walk
from synflow_jax.structure import read_network, read_trace
from synflow_jax.trees import (
    ApplyFn,
    Function,
    Inputs,
    Params,
    as_function,
    call_traced,
    is_weight,
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
    out = walk.run_closed(closed, weights + _input_values(walk, jax.tree.leaves(x)))
    results = [_output_array(walk, walk.as_factor(v)) for v in out]
    return jax.tree.structure(shapes).unflatten(results)


def _input_values(walk: Walk, leaves: list[Any]) -> list[Value]:
    entries = count()
    return [
        walk.begin(leaf, next(entries)) if is_weight(leaf) else Value(Kind.DISCRETE, leaf)
        for leaf in map(jnp.asarray, leaves)
    ]


def count_entries(x: Any) -> int:
    """Count where flow can enter: each floating input, and lookups by whole numbers together."""
    floating = [is_weight(jnp.asarray(leaf)) for leaf in jax.tree.leaves(x)]
    return sum(floating) + (not all(floating))


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

        def run(entering: Any) -> Any:
            walk.entering = entering
            return share_evenly(run_in_flow_mode(walk, self.apply_fn.fn, params, x), self.shares)

        even = self.branches is not None and not self.sources and count_entries(x) > 1
        out = share_evenly(enter_evenly(run, x), self.shares) if even else run(None)
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
        """Return the params with the leaves of `closed_leaves` open, as `open_closed` does.

        With `inputs` the trace tells which leaves scale a branch, without them names do.
        """
        reading = None if inputs is None else read_network(self.plain, params, inputs)
        return open_closed(params, reading)

    def signed(self, params: Params, inputs: Inputs) -> tuple[bool, ...]:
        """Flag the leaves that signals meet behind exp and its kind, and that are no kernel.

        Such as a negative rate of decay, or the s of x·(1 + s). The network takes the absolute
        value of the whole gate, so that its size is the network's own.
        """
        uses = read_network(self.plain, params, inputs).uses
        return tuple(use.bent and not use.roles & {"kernel", "table"} for use in uses)

    def closing(self, params: Params, inputs: Inputs) -> tuple[Any, ...] | None:
        """Return what closes again the leaves that `prepare` opens, as `closing_factors` does."""
        return closing_factors(params, read_network(self.plain, params, inputs))


def flow_mode(
    apply_fn: ApplyFn, *, sources: bool = False, branches: float | None = 0.5
) -> FlowMode:
    """Make a network homogeneous of degree 1 and monotone, so that flow is conserved.

    An activation φ is x·sg(φ(x)/x), a norm x·sg(1/rms(x))·|γ|, a product of two signals
    (a·f·sg(g) + b·sg(f)·g)/(a + b) with a and b the factors that f and g are products of,
    softmax(l) is l/sg(Σl), routing to one of E experts is 1/E, and biases, means and positional
    embeddings are dropped; sg stops the gradient. A class token becomes the mean of the tokens
    that it stands beside. Of several output arrays each carries the same share of R. So does each
    of several inputs: every floating one, and all that is looked up by whole numbers together.

    A sum y = a + b becomes a·sg(s·y/a) + b·sg((1 − s)·y/b), which is y as well, but a share s of
    the flow through each of its entries goes through a. Where a is a branch, computed from its skip
    b, s is `branches`: however many blocks are stacked, each branch carries that share of R.
    Signals of which neither was computed from the other have shares by their numbers of terms, so
    that each of n parallel ones has 1/n.

    Args:
      apply_fn: apply_fn(params, x) -> y, of any library, in evaluation mode.
      sources: keep summands as |b|, as the reference does with biases, instead of dropping them.
      branches: the share s of a branch beside its skip; None for the shares that all terms have by
        themselves, a/y and b/y, of which that of a branch may be next to nothing, and that inputs
        have by themselves.

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
