"""Flow mode: what a network is to SynFlow that is not homogeneous as it stands.

The theorems of SynFlow need a network of degree 1 with non-negative factors. Flow mode evaluates
any network by rules on the operations of its jaxpr, so that it is one: sources are dropped,
activations and normalisers are frozen gates and factors, products share the flow among their
factors, attention is linear, and routing is uniform.
"""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import synflow_jax.flow_mixing as _rules  # noqa: F401 - enters its rules
from synflow_jax._types import ApplyFn, Params
from synflow_jax.diagnostics import is_source
from synflow_jax.flow_values import Kind, Value, signal
from synflow_jax.flow_walk import Walk, constant, floating
from synflow_jax.tree import Function, as_function, is_floating, named_leaves, place


class FlowWarning(UserWarning):
    """Flow mode met an operation that it has no rule for, and left it as it is."""


def walked(walk: Walk, fn: ApplyFn, params: Params, x: Any) -> Any:
    """Evaluate fn(params, x) in flow mode, with notes in the walk."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(params, x)
    weights = [Value(Kind.WEIGHT, leaf) for leaf in jax.tree.leaves(params)]
    inputs = [_enter(jnp.asarray(leaf)) for leaf in jax.tree.leaves(x)]
    out = walk.run_closed(closed, weights + inputs)
    leaves = [_leave(walk, walk.settle(v)) for v in out]
    return jax.tree.structure(shapes).unflatten(leaves)


def _enter(leaf: jax.Array) -> Value:
    return signal(leaf) if floating(leaf) else Value(Kind.DISCRETE, leaf)


def _leave(walk: Walk, value: Value) -> Any:
    if value.is_signal or not floating(value.array):
        return walk.flow(value)
    return jnp.zeros_like(value.array)


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=["sources"])
@dataclass(frozen=True)
class FlowMode:
    """The network that `flow_mode` builds; equal arguments make equal networks."""

    apply_fn: Function
    sources: bool

    def __call__(self, params: Params, x: Any) -> Any:
        """Return the outputs of the network, which are its flow."""
        walk = Walk(self.sources)
        out = walked(walk, self.apply_fn, params, x)
        unknown = [note for note in walk.notes if note.rule == "not recognised"]
        if unknown:
            names = sorted({f"{note.operation} at {note.where}" for note in unknown})
            warnings.warn(
                f"flow_mode left as they are, and conservation may end there: {'; '.join(names)}",
                FlowWarning,
                stacklevel=2,
            )
        return out

    def prepare(self, params: Params) -> Params:
        """Put ones in place of every floating leaf that is all zero, to score it as if it were 1.

        Such leaves (the last scale of a residual block, ReZero's α, LoRA's B) start a branch
        closed. Sources are left alone where they are kept.
        """
        pairs = named_leaves(params)
        open_ = tuple(
            is_floating(leaf) and not (self.sources and is_source(path, leaf))
            for path, leaf in pairs
        )
        leaves = [leaf for (_, leaf), hit in zip(pairs, open_, strict=True) if hit]
        ones = [jnp.where(jnp.any(p != 0), p, jnp.ones_like(p)) for p in leaves]
        return place(params, open_, ones, lambda leaf: leaf)


def flow_mode(apply_fn: ApplyFn, *, sources: bool = False) -> FlowMode:
    """Make a network homogeneous of degree 1 and monotone, so that flow is conserved.

    An activation φ is x·sg(φ(x)/x), a norm x·sg(1/rms(x))·|γ|, a product of two signals
    (a·f·sg(g) + b·sg(f)·g)/(a + b) with a and b the factors that f and g are products of,
    softmax(l) is l/sg(Σl), routing to one of E experts is 1/E, and biases, means and positional
    embeddings are dropped; sg stops the gradient. A class token becomes the mean of the tokens
    that it stands beside.

    Args:
      apply_fn: apply_fn(params, x) -> y, of any library, in evaluation mode.
      sources: keep what is added as |b|, as the reference does with biases.

    Returns:
      A function of the same signature, to be given to `synflow`, `layer_flow` and the like. Its
      method prepare(params) opens leaves that are all zero; scoring calls it.

    Raises:
      TypeError: apply_fn is no function.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def network(p, x):
      ...     return jax.nn.gelu(x @ p["v"] + 1.0) @ p["w"]
      >>> weights = {"v": jnp.ones((2, 3)), "w": jnp.ones((3, 1))}
      >>> from synflow_jax import conservation_gap
      >>> bool(conservation_gap(weights, network, (2,)) > 0.01)
      True
      >>> bool(conservation_gap(weights, flow_mode(network), (2,)) < 1e-6)
      True

    Source: Tanaka et al. 2020, section 4, whose theorems need homogeneity; the substitutes are
    this library's.
    """
    return FlowMode(as_function(apply_fn, "apply_fn"), bool(sources))
