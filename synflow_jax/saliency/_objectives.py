"""The objectives: every method is a scalar R(θ), and its score is θ ⊙ ∂R/∂θ.

To add a method, write one function params -> scalar with its equation and hand it to
`gradient_saliency` (or, where it needs data, a loss to `snip_saliency` or `grasp_saliency`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.flow import share_evenly
from synflow_jax.trees import (
    ApplyFn,
    Function,
    Inputs,
    LossFn,
    Params,
    as_function,
    call_on_ones,
    call_traced,
    floating_dtype,
    is_floating,
    is_weight,
    pick,
    place,
    widen,
)


def synaptic_flow(
    params: Params, scales: tuple[Any, ...], apply_fn: Function, inputs: Inputs
) -> jax.Array:
    """Return the synaptic flow R_SF = 1ᵀ (∏ₗ |θˡ|) 1: the network on ones, outputs summed.

    Args:
      params: of `absolute` (or `squared`), in which every floating leaf is replaced by its absolute
        value, biases and buffers included, as in the reference.
      scales: a factor of each input, in tree order; () for inputs of ones.
      apply_fn: the network.
      inputs: of one example.

    Source: Tanaka et al. 2020 (arXiv 2006.05467), equation 4 of section 6.
    """

    def on_scaled(params: Params, x: Any) -> Any:
        leaves, treedef = jax.tree.flatten(x)
        leaves = list(map(grow, leaves, scales)) if scales else leaves
        return call_traced(apply_fn, params, treedef.unflatten(leaves))

    return sum_outputs(call_on_ones(on_scaled, params, inputs))


def grow(leaf: Any, scale: jax.Array) -> Any:
    """Multiply a floating leaf by a factor; leave others unchanged."""
    return leaf * scale.astype(leaf.dtype) if is_weight(leaf) else leaf


def flow_open_and_closed(
    params: Params,
    closing: tuple[Any, ...] | None,
    scales: tuple[Any, ...],
    apply_fn: Function,
    inputs: Inputs,
) -> jax.Array:
    """Return the mean of the flow of a network and of that of the same with branches closed.

    Each has the same share of it; where no flow is left in one of them, the other has all. With no
    branch closed, the two are one network, and the mean is its flow.

    Args:
      params: pytree, with branches open.
      closing: the factor of each leaf that closes its branch again, 1 for leaves that close none;
        None where no branch is closed.
      scales: a factor of each input; () for inputs of ones.
      apply_fn: the network.
      inputs: of one example.
    """
    if closing is None:
        return synaptic_flow(params, scales, apply_fn, inputs)
    run = jax.jit(partial(synaptic_flow, scales=scales, apply_fn=apply_fn, inputs=inputs))
    leaves, treedef = jax.tree.flatten(params)
    pairs = zip(leaves, closing, strict=True)
    shut = [grow(leaf, factor) for leaf, factor in pairs]
    flows = (run(params), run(treedef.unflatten(shut)))
    alive = sum((flow > 0).astype(flow.dtype) for flow in flows)
    return sum(share_evenly(flows)) / jnp.maximum(alive, 1)


def absolute(params: Params, signed: tuple[bool, ...] = ()) -> Params:
    """Take |θ| of every floating leaf that is not signed; a modulus stays in its leaf's dtype."""
    return _each(_modulus, params, signed)


def _each(change: Callable[[Any], Any], params: Params, signed: tuple[bool, ...]) -> Params:
    flags = tuple(not keeps for keeps in signed) or (True,) * len(jax.tree.leaves(params))
    return place(params, flags, list(map(change, pick(params, flags))), lambda leaf: leaf)


def _modulus(leaf: Any) -> Any:
    return jnp.abs(leaf).astype(leaf.dtype) if is_weight(leaf) else leaf


def squared(params: Params, signed: tuple[bool, ...] = ()) -> Params:
    """Take θ² of every floating leaf that is not signed, |θ|² of a complex one."""

    def one(leaf: Any) -> Any:
        if not is_weight(leaf):
            return leaf
        return jnp.square(_modulus(leaf) if jnp.iscomplexobj(leaf) else leaf)

    return _each(one, params, signed)


def sum_outputs(outputs: Any) -> jax.Array:
    """Add up every floating output, half precision in float32."""
    arrays = [leaf for leaf in jax.tree.leaves(outputs) if hasattr(leaf, "dtype")]
    found = widen([leaf for leaf in arrays if is_floating(leaf)])
    wide = floating_dtype(found)
    return sum((jnp.sum(leaf.astype(wide)) for leaf in found), start=jnp.zeros((), wide))


def weight_energy(params: Params) -> jax.Array:
    """Measure half the squared norm, R = ½‖θ‖²: its saliency is θ², which ranks as |θ| does.

    Args:
      params: any pytree of arrays.

    Returns:
      A floating scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> float(weight_energy({"w": jnp.array([3.0, 4.0])}))
      12.5

    Source: Tanaka et al. 2020, section 4.
    """
    found = [leaf for leaf in jax.tree.leaves(params) if is_weight(leaf)]
    sizes = [jnp.abs(leaf) if jnp.iscomplexobj(leaf) else leaf for leaf in found]
    return 0.5 * sum_outputs([jnp.square(size) for size in sizes])


def gradient_norm(loss_fn: LossFn, params: Params, batch: Any) -> jax.Array:
    """Measure GraSP's R = ½‖∇L‖², whose saliency is θ ⊙ H∇L.

    The library computes that product without this function (by a Jacobian-vector product a batch);
    this is the definition, for tests and for readers.

    Args:
      loss_fn: loss_fn(params, batch) -> scalar.
      params: any pytree of floating arrays.
      batch: one batch.

    Returns:
      A floating scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> float(gradient_norm(lambda p, x: jnp.sum(p["w"] * x), {"w": jnp.ones(2)}, 3.0))
      9.0

    Source: Wang, Zhang and Grosse 2020 (arXiv 2002.07376), equation 8, in the sign of Tanaka et
    al. 2020.
    """
    gradients = jax.grad(loss_fn)(params, batch)
    return weight_energy(gradients)


def cross_entropy(apply_fn: ApplyFn, temperature: float = 1.0) -> LossFn:
    """Build the mean cross-entropy of a classifier: L = −mean log softmax(f(x)/T)[label].

    Args:
      apply_fn: apply_fn(params, x) -> logits of shape (batch, classes).
      temperature: T, divides the logits; GraSP is used with 200.

    Returns:
      loss_fn(params, (x, labels)) -> scalar; labels are whole numbers of shape (batch,).

    Raises:
      ValueError: temperature is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = cross_entropy(lambda params, x: x @ params["w"])
      >>> round(float(loss({"w": jnp.eye(2)}, (jnp.eye(2), jnp.array([0, 1])))), 4)
      0.3133
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    return CrossEntropy(as_function(apply_fn, "apply_fn"), float(temperature))


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=["temperature"])
@dataclass(frozen=True)
class CrossEntropy:
    """The loss that `cross_entropy` builds; equal arguments make equal losses."""

    apply_fn: Function
    temperature: float

    def __call__(self, params: Params, batch: Any) -> jax.Array:
        """Return the mean loss of one batch (x, labels)."""
        x, labels = batch
        logits = self.apply_fn(params, x) / self.temperature
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)
        return -jnp.mean(chosen)
