"""Flow mode: any network evaluated so that it is homogeneous of degree 1 and monotone.

The theorems of SynFlow need such a network. Flow mode applies rules to the operations of the jaxpr:
sources are dropped, activations and normalisers become frozen gates and factors, products share the
flow among their factors, attention becomes linear, and routing uniform.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from synflow_jax.flow._network import Network
from synflow_jax.flow._primitives import RULES
from synflow_jax.flow._sources import is_source
from synflow_jax.flow._values import Kind, Value, signal
from synflow_jax.flow._walk import Walk
from synflow_jax.trees import (
    ApplyFn,
    Function,
    Params,
    as_function,
    is_floating,
    named_leaves,
    place,
    warn,
)


class FlowWarning(UserWarning):
    """Flow mode has no rule for an operation, and evaluated it unchanged."""


def run_in_flow_mode(walk: Walk, fn: ApplyFn, params: Params, x: Any) -> Any:
    """Evaluate fn(params, x) by the rules of a walk, which collects the notes."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(params, x)
    weights = [Value(Kind.WEIGHT, leaf) for leaf in jax.tree.leaves(params)]
    inputs = [_input_value(jnp.asarray(leaf)) for leaf in jax.tree.leaves(x)]
    out = walk.run_closed(closed, weights + inputs)
    leaves = [_output_array(walk, walk.as_factor(v)) for v in out]
    return jax.tree.structure(shapes).unflatten(leaves)


def _input_value(leaf: jax.Array) -> Value:
    return signal(leaf) if is_floating(leaf) else Value(Kind.DISCRETE, leaf)


def _output_array(walk: Walk, value: Value) -> Any:
    if value.is_signal or not is_floating(value.array):
        return walk.flow(value)
    return jnp.zeros_like(value.array)


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=["sources"])
@dataclass(frozen=True)
class FlowMode(Network):
    """The network that `flow_mode` builds; equal arguments make equal networks."""

    apply_fn: Function
    sources: bool

    opens: ClassVar[bool] = True

    @property
    def plain(self) -> ApplyFn:
        """The user's own function, outside of flow mode."""
        return self.apply_fn.fn

    def __call__(self, params: Params, x: Any) -> Any:
        """Return the outputs of the network in flow mode; their sum is the flow."""
        walk = Walk(RULES, self.sources)
        out = run_in_flow_mode(walk, self.apply_fn, params, x)
        unknown = [note for note in walk.notes if note.rule == "not recognised"]
        if unknown:
            names = sorted({f"{note.operation} at {note.where}" for note in unknown})
            warn(
                f"flow_mode has no rule for {'; '.join(names)}: flow may not be conserved there",
                FlowWarning,
            )
        return out

    def prepare(self, params: Params) -> Params:
        """Open the leaves of `closed_leaves`, so that the branches that they scale are scored.

        A closed kernel becomes 1/√(inputs of a unit), a closed leaf of fewer axes becomes 1. If
        sources are kept, they stay unchanged.
        """
        pairs = named_leaves(params)
        flags = tuple(
            is_floating(leaf) and not (self.sources and _is_added(path, leaf))
            for path, leaf in pairs
        )
        leaves = [leaf for (_, leaf), flag in zip(pairs, flags, strict=True) if flag]
        return place(params, flags, [_open_if_closed(leaf) for leaf in leaves], lambda leaf: leaf)


CLOSED = 0.01  # a leaf of one number below it closes its branch


def is_closed(leaf: Any) -> Any:
    """Whether a leaf closes the branch that it scales: one number below CLOSED, or a scalar 0."""
    # By minimum and maximum: of a sharded leaf only two numbers cross devices.
    least, most = jnp.min(leaf), jnp.max(leaf)
    nearly = jnp.abs(most) < CLOSED if leaf.size > 1 else most == 0
    return (least == most) & nearly


def _open_if_closed(leaf: Any) -> Any:
    inputs = math.prod(leaf.shape[:-1])
    return (
        jnp.where(is_closed(leaf), jnp.full_like(leaf, inputs**-0.5), leaf) if leaf.size else leaf
    )


def closed_leaves(params: Params) -> tuple[str, ...]:
    """List the leaves that close a branch at initialisation: all 0, or all one number below 0.01.

    Examples are a zero-initialised last scale of a residual block, a layer scale of 1e-6, ReZero's
    α, LoRA's B, and a head of zeros. Biases and other sources close no branch and are not listed.

    Args:
      params: any pytree of arrays.

    Returns:
      Paths, in tree order.

    Example:
      >>> import jax.numpy as jnp
      >>> closed_leaves({"gamma": jnp.full(3, 1e-6), "bias": jnp.zeros(3), "kernel": jnp.eye(3)})
      ('gamma',)
    """
    pairs = [(path, leaf) for path, leaf in named_leaves(params) if is_floating(leaf) and leaf.size]
    return tuple(path for path, p in pairs if not _is_added(path, p) and bool(is_closed(p)))


def _is_added(path: str, leaf: Any) -> bool:
    # By name as well: attention's biases have two axes.
    return path.split("/")[-1] in ("bias", "b") or is_source(path, leaf)


def flow_mode(apply_fn: ApplyFn, *, sources: bool = False) -> FlowMode:
    """Make a network homogeneous of degree 1 and monotone, so that flow is conserved.

    An activation φ is x·sg(φ(x)/x), a norm x·sg(1/rms(x))·|γ|, a product of two signals
    (a·f·sg(g) + b·sg(f)·g)/(a + b) with a and b the factors that f and g are products of,
    softmax(l) is l/sg(Σl), routing to one of E experts is 1/E, and biases, means and positional
    embeddings are dropped; sg stops the gradient. A class token becomes the mean of the tokens
    that it stands beside.

    Args:
      apply_fn: apply_fn(params, x) -> y, of any library, in evaluation mode.
      sources: keep summands as |b|, as the reference does with biases, instead of dropping them.

    Returns:
      A function of the same signature, to be passed to `synflow`, `layer_flow` and others in place
      of apply_fn. Its method prepare(params), which scoring calls, opens the leaves of
      `closed_leaves`.

    Raises:
      TypeError: apply_fn is not a function.

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
    return FlowMode(as_function(apply_fn, "apply_fn"), bool(sources))
