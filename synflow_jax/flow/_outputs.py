"""Which outputs count: a function of what the network returns, composed with the network."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from synflow_jax.flow._mode import FlowMode
from synflow_jax.flow._network import Network
from synflow_jax.trees import Function, OutputsError, Params, as_function, is_floating


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn", "outputs"], meta_fields=[])
@dataclass(frozen=True)
class Chosen:
    """outputs(apply_fn(params, x)); equal functions make equal ones, which share programs."""

    apply_fn: Function
    outputs: Function

    def __call__(self, params: Params, x: Any) -> Any:
        """Return the chosen outputs."""
        found = self.apply_fn(params, x)
        there = jax.tree.structure(found)
        try:
            chosen = self.outputs(found)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise OutputsError(
                f"outputs must be a function of what apply_fn returns, which is {there} here, and "
                f"it failed: {type(error).__name__}: {error}"
            ) from error
        leaves = jax.tree.leaves(chosen)
        if not any(hasattr(leaf, "dtype") and is_floating(leaf) for leaf in leaves):
            raise OutputsError(
                "outputs must return a floating array of what apply_fn returns, such as "
                f'lambda y: y["logits"], got {jax.tree.structure(chosen)} of {there}'
            )
        return chosen


def choose_outputs(
    apply_fn: Callable[..., Any], outputs: Callable[[Any], Any] | None
) -> Callable[..., Any]:
    """Compose a network with a choice of its outputs, outputs(apply_fn(params, x)).

    The flow R sums every floating output. Where a model returns caches, attention maps or states
    beside its logits, this leaves them out. The argument `outputs` of `synflow` and of the
    measurements does the same.

    Args:
      apply_fn: apply_fn(params, x) -> y; a network of `flow_mode` stays one.
      outputs: y -> the outputs that count, such as lambda y: y["logits"]; None for all of them.
        Make it once: an equal function reuses a compiled program.

    Returns:
      A function of the same arguments, equal to another one of equal parts.

    Raises:
      TypeError: outputs is no function; when called, it returns no floating array.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import log2_flow
      >>> def network(p, x):
      ...     h = x @ p["w"]
      ...     return {"logits": h, "cache": 100 * h}
      >>> logits = choose_outputs(network, lambda y: y["logits"])
      >>> float(log2_flow({"w": jnp.array([[1.0, -7.0]])}, logits, (1,)))
      3.0
    """
    if outputs is None:
        return apply_fn
    if not callable(outputs):
        raise TypeError(
            "outputs must be a function of what apply_fn returns, such as "
            f'lambda y: y["logits"], got {outputs!r}'
        )
    held = as_function(outputs, "outputs")
    if isinstance(apply_fn, FlowMode):  # the choice is made inside of flow mode
        return replace(apply_fn, apply_fn=as_function(Chosen(apply_fn.apply_fn, held), "apply_fn"))
    if isinstance(apply_fn, Network):
        raise TypeError(
            f"outputs must be chosen before apply_fn becomes a {type(apply_fn).__name__}: pass "
            "that a network of choose_outputs(apply_fn, outputs)"
        )
    return Chosen(as_function(apply_fn, "apply_fn"), held)
