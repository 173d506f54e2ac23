"""Which outputs count: a function of what the network returns, composed with the network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from synflow_jax.flow._mode import FlowMode
from synflow_jax.flow._network import Network
from synflow_jax.trees import (
    Function,
    OutputsError,
    Params,
    as_function,
    is_floating,
    path_string,
)


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


Outputs = Callable[[Any], Any] | Mapping[str, float]


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=["weights"])
@dataclass(frozen=True)
class Weighted:
    """The outputs at some paths, as a dict in the order of the paths, times their weights.

    Attributes:
      apply_fn: the network.
      weights: (path, weight) of each output.
    """

    apply_fn: Function
    weights: tuple[tuple[str, float], ...]

    def __call__(self, params: Params, x: Any) -> Any:
        """Return the chosen outputs."""
        pairs = jax.tree_util.tree_flatten_with_path(self.apply_fn(params, x))[0]
        there = {path_string(path): leaf for path, leaf in pairs}
        unknown = [path for path, _ in self.weights if path not in there]
        if unknown:
            raise OutputsError(
                f"outputs must name arrays that apply_fn returns, and {unknown} are none of "
                f"{list(there)}"
            )
        return {path: there[path] * weight for path, weight in self.weights}


def _check_weights(outputs: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    for path, weight in outputs.items():
        if not isinstance(path, str) or isinstance(weight, bool) or not weight > 0:
            raise ValueError(
                "outputs must give a weight above 0 for the path of each output that counts, such "
                f'as {{"logits": 2, "value": 1}}, got {path!r}: {weight!r}'
            )
    if not outputs:
        raise ValueError("outputs must name an output, and it is an empty dict")
    return tuple(sorted((path, float(weight)) for path, weight in outputs.items()))


def choose_outputs(apply_fn: Callable[..., Any], outputs: Outputs | None) -> Callable[..., Any]:
    """Compose a network with a choice of its outputs, outputs(apply_fn(params, x)).

    The flow R sums every floating output. Where a model returns caches, attention maps or states
    beside its logits, this leaves them out. The argument `outputs` of `synflow` and of the
    measurements does the same.

    With weights, R is Σ_k w_k 1ᵀy_k. In flow mode, where each output array has the same share of R,
    the shares are w_k/Σw.

    Args:
      apply_fn: apply_fn(params, x) -> y; a network of `flow_mode` stays one.
      outputs: y -> the outputs that count, such as lambda y: y["logits"], or a dict path -> weight
        of those that do, such as {"logits": 2, "value": 1}; None for all of them. Make a function
        once: an equal one reuses a compiled program.

    Returns:
      A function of the same arguments, equal to another one of equal parts.

    Raises:
      TypeError: outputs is neither; when called, it returns no floating array, or names none.
      ValueError: a weight is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import log2_flow
      >>> def network(p, x):
      ...     h = x @ p["w"]
      ...     return {"logits": h, "cache": 100 * h}
      >>> weights = {"w": jnp.array([[1.0, -7.0]])}
      >>> float(log2_flow(weights, choose_outputs(network, lambda y: y["logits"]), (1,)))
      3.0
      >>> float(log2_flow(weights, choose_outputs(network, {"logits": 2}), (1,)))
      4.0
    """
    if outputs is None:
        return apply_fn
    if isinstance(outputs, Mapping):
        weights = _check_weights(outputs)
        choose: Any = partial(Weighted, weights=weights)
    elif callable(outputs):
        weights, choose = (), partial(Chosen, outputs=as_function(outputs, "outputs"))
    else:
        raise TypeError(
            'outputs must be a function of what apply_fn returns, such as lambda y: y["logits"], '
            f'or a dict of weights, such as {{"logits": 1}}, got {outputs!r}'
        )
    if isinstance(apply_fn, FlowMode):  # the choice is made inside of flow mode
        inside = as_function(choose(apply_fn.apply_fn), "apply_fn")
        shares = tuple(weight for _, weight in weights)
        return replace(apply_fn, apply_fn=inside, shares=shares)
    if isinstance(apply_fn, Network):
        raise TypeError(
            f"outputs must be chosen before apply_fn becomes a {type(apply_fn).__name__}: pass "
            "that a network of choose_outputs(apply_fn, outputs)"
        )
    return choose(as_function(apply_fn, "apply_fn"))
