"""The input on which flow is measured: a batch of one example of ones, built from `shape`."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.trees._leaves import floating_dtype, is_floating, path_string
from synflow_jax.trees._types import ApplyFn, Params

EVALUATION = "apply_fn must run in evaluation mode (train=False, deterministic=True)"
SHAPE = "shape is one example without the batch axis"
OWN = "its own code raised this, at the line that the traceback above names"
UNDER_JIT = "it must run under jax.jit, where numbers are not known yet"
HINTS = {
    "KeyError": "it looked up a key that params or its input do not have",
    "AttributeError": "it asked params, its input or a value for an attribute that is not there; "
    "under jax.jit values are tracers, not NumPy arrays",
    "InvalidRngError": f"{EVALUATION}: it asked for rngs; where it draws even so, "
    'from_linen(model, variables, rngs={"name": key})',
    "ModifyScopeVariableError": f"{EVALUATION}: it wanted to change a collection (mutable); where "
    'it writes even so, from_linen(model, variables, mutable=["name"])',
    "ScopeParamShapeError": SHAPE,
    "ScopeCollectionNotFound": "the variables must hold all collections of model.init",
    "TraceContextError": "an NNX model needs its own Variables in each call (from_nnx sees to it)",
}


class NetworkError(ValueError):
    """A refusal, in full words, that is raised while a network is evaluated."""


class OutputsError(TypeError):
    """The argument `outputs` does not fit what apply_fn returns."""


@dataclass(frozen=True)
class Inputs:
    """The pytree of inputs of one example, without the batch axis.

    Attributes:
      treedef: of the inputs.
      specs: (shape, dtype) of each leaf; None for a floating leaf, which takes the params' dtype.
    """

    treedef: Any
    specs: tuple[tuple[tuple[int, ...], Any], ...]

    @property
    def discrete(self) -> bool:
        """Whether no input is floating or complex: all are whole numbers, such as token ids."""
        fixed = [dtype for _, dtype in self.specs]
        return not any(dtype is None or jnp.issubdtype(dtype, jnp.inexact) for dtype in fixed)

    def ones(self, dtype: Any) -> Any:
        """Make ones of shape (1, *shape), floating leaves in `dtype`."""
        leaves = [jnp.ones((1, *shape), fixed or dtype) for shape, fixed in self.specs]
        return self.treedef.unflatten(leaves)


def read_shape(shape: Any) -> Inputs:
    """Read the argument `shape`: a tuple of sizes, or a pytree of jax.ShapeDtypeStruct."""
    if isinstance(shape, tuple | list) and all(isinstance(n, int | np.integer) for n in shape):
        if any(n < 1 for n in shape):
            raise ValueError(f"shape must hold sizes of at least 1, got {tuple(shape)}")
        return Inputs(jax.tree.structure(0), ((tuple(int(n) for n in shape), None),))
    leaves, treedef = jax.tree.flatten(shape)
    if not leaves or not all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        raise TypeError(
            "shape must be one example without the batch axis, such as (32, 32, 3), or a pytree "
            f"of jax.ShapeDtypeStruct, got {shape!r}"
        )
    specs = [(tuple(s.shape), None if is_floating(s) else jnp.dtype(s.dtype)) for s in leaves]
    return Inputs(treedef, tuple(specs))


def call_on_ones(apply_fn: ApplyFn, params: Params, inputs: Inputs) -> Any:
    """Return apply_fn(params, ones); its errors are raised again with the input and a hint."""
    return call_network(apply_fn, params, inputs.ones(floating_dtype(params)))


def call_network(apply_fn: ApplyFn, params: Params, x: Any) -> Any:
    """Return apply_fn(params, x); its errors are raised again with the input and a hint."""
    saw = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(x))
    try:
        outputs = apply_fn(params, x)
    except (NetworkError, OutputsError):
        raise
    except Exception as error:  # the user's network may raise anything
        usual = SHAPE if type(error) in (TypeError, ValueError) else OWN
        under_jit = isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError)
        hint = HINTS.get(type(error).__name__, UNDER_JIT if under_jit else usual)
        raise ValueError(
            f"apply_fn(params, x) failed on the ones of {saw} made from `shape`: {hint}. "
            f"It said {type(error).__name__}: {error}"
        ) from error
    _check_outputs(outputs, saw)
    return outputs


def _check_outputs(outputs: Any, saw: str) -> None:
    """Refuse outputs with updated statistics, and outputs without a floating array."""
    pairs = jax.tree_util.tree_flatten_with_path(outputs)[0]
    if any("batch_stats" in path_string(path).split("/") for path, _ in pairs):
        raise ValueError(f"{EVALUATION}: it returned updated batch_stats beside the output")
    kinds = [(leaf.dtype, leaf.shape) for _, leaf in pairs if hasattr(leaf, "dtype")]
    if not any(jnp.issubdtype(dtype, jnp.floating) and math.prod(s) for dtype, s in kinds):
        raise TypeError(f"apply_fn must return a floating array, got {kinds or outputs} on {saw}")
