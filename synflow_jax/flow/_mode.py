"""Flow mode: what a network is to SynFlow that is not homogeneous as it stands.

The theorems of SynFlow need a network of degree 1 with non-negative factors. Flow mode evaluates
any network by rules on the operations of its jaxpr, so that it is one: sources are dropped,
activations and normalisers are frozen gates and factors, products share the flow among their
factors, attention is linear, and routing is uniform.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

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
    return signal(leaf) if is_floating(leaf) else Value(Kind.DISCRETE, leaf)


def _leave(walk: Walk, value: Value) -> Any:
    if value.is_signal or not is_floating(value.array):
        return walk.flow(value)
    return jnp.zeros_like(value.array)


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=["sources"])
@dataclass(frozen=True)
class FlowMode(Network):
    """The network that `flow_mode` builds; equal arguments make equal networks."""

    apply_fn: Function
    sources: bool

    @property
    def plain(self) -> ApplyFn:
        """The network as it is outside of flow mode."""
        return self.apply_fn.fn

    def __call__(self, params: Params, x: Any) -> Any:
        """Return the outputs of the network, which are its flow."""
        walk = Walk(RULES, self.sources)
        out = walked(walk, self.apply_fn, params, x)
        unknown = [note for note in walk.notes if note.rule == "not recognised"]
        if unknown:
            names = sorted({f"{note.operation} at {note.where}" for note in unknown})
            warn(
                f"flow_mode left as they are, and conservation may end there: {'; '.join(names)}",
                FlowWarning,
            )
        return out

    def prepare(self, params: Params) -> Params:
        """Open every leaf that `closed_leaves` names, so that it is scored as if it were 1.

        Kernels become 1/√(inputs a unit has), what has fewer axes 1; sources that are kept stay.
        """
        pairs = named_leaves(params)
        may = tuple(
            is_floating(leaf) and not (self.sources and _is_added(path, leaf))
            for path, leaf in pairs
        )
        leaves = [leaf for (_, leaf), hit in zip(pairs, may, strict=True) if hit]
        return place(params, may, [_opened(leaf) for leaf in leaves], lambda leaf: leaf)


CLOSED = 0.01


def is_closed(leaf: Any) -> Any:
    """Whether a leaf is one number all over, 0 or nearly: it closes the branch that it scales."""
    # By its ends, which cross devices as two numbers however the leaf is sharded.
    least, most = jnp.min(leaf), jnp.max(leaf)
    nearly = jnp.abs(most) < CLOSED if leaf.size > 1 else most == 0
    return (least == most) & nearly


def _opened(leaf: Any) -> Any:
    inputs = math.prod(leaf.shape[:-1])
    return (
        jnp.where(is_closed(leaf), jnp.full_like(leaf, inputs**-0.5), leaf) if leaf.size else leaf
    )


def closed_leaves(params: Params) -> tuple[str, ...]:
    """Name the leaves that start a branch closed: all 0, or one and the same number below 0.01.

    Examples are a zero-initialised last scale of a residual block, a layer scale of 1e-6, ReZero's
    α, LoRA's B, and a head of zeros. Biases and other sources close nothing and are not named.

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
    # Attention's biases have two axes.
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
      sources: keep what is added as |b|, as the reference does with biases.

    Returns:
      A function of the same signature, to be given to `synflow`, `layer_flow` and the like. Its
      method prepare(params) opens the leaves that `closed_leaves` names; scoring calls it.

    Raises:
      TypeError: apply_fn is no function.

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
