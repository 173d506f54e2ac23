"""From a Flax Linen model to (params, apply_fn) and back."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import core

from synflow_jax.frameworks._evaluation import evaluation
from synflow_jax.trees import Params, check_structure


def from_linen(
    model: nn.Module, variables: Any, *, rngs: Any = None, mutable: Any = False, **settings: Any
) -> tuple[Params, jax.tree_util.Partial]:
    """Split a Linen model into its params and a function of them, in evaluation mode.

    The function holds the other collections (batch_stats, …): scoring neither treats them as
    weights nor changes them. Functions of equal models and settings share one compiled program,
    whatever their statistics are.

    Args:
      model: a Linen module.
      variables: what model.init returned, or {"params": state.params, "batch_stats": …}.
      rngs: {"sample": key} for a model that draws random numbers in evaluation mode too; it draws
        the same ones in every call.
      mutable: collections that the model writes in evaluation mode too, such as ["cache"]; what it
        writes is dropped.
      **settings: keyword arguments of model.apply for evaluation mode, such as train=False, and
        method="encode" to call another method than __call__.

    Returns:
      params = variables["params"], and apply_fn(params, x) -> y. For a model of several arguments,
      apply_fn(params, *inputs) and apply_fn(params, **inputs) work too.

    Raises:
      TypeError: model is not a Linen module, or variables is not a mapping.
      ValueError: variables has no "params".

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> model = nn.Dense(3, use_bias=False)
      >>> variables = model.init(jax.random.key(0), jnp.ones((1, 2)))
      >>> params, apply_fn = from_linen(model, variables)
      >>> apply_fn({"kernel": jnp.ones((2, 3))}, jnp.ones((1, 2))).tolist()
      [[2.0, 2.0, 2.0]]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a Linen module, such as Net(), got {_kind_of(model)}; for an NNX model "
            "there is synflow_jax.nnx.from_nnx, and a function needs no adapter"
        )
    rest = {name: value for name, value in _check_variables(variables).items() if name != "params"}
    writes = tuple(mutable) if _is_several(mutable) else mutable
    held = (rest, rngs)
    return variables["params"], evaluation(_apply, (model, writes), held, settings)


def to_linen(variables: Any, params: Params) -> Any:
    """Replace the params among the variables of a Linen model.

    Args:
      variables: the variables that `from_linen` was given; not modified.
      params: the params after pruning or training, with the same tree structure.

    Returns:
      Variables of the same container type for model.apply, with the other collections unchanged.

    Raises:
      TypeError: variables is not a mapping.
      ValueError: variables has no "params", or params has another tree structure.

    Example:
      >>> import jax.numpy as jnp
      >>> variables = {"params": {"kernel": jnp.ones(2)}, "batch_stats": {"mean": jnp.ones(1)}}
      >>> to_linen(variables, {"kernel": jnp.zeros(2)})["params"]["kernel"].tolist()
      [0.0, 0.0]
    """
    check_structure(_check_variables(variables)["params"], params, "params to put back")
    return core.copy(variables, {"params": params})


def _apply(static: Any, held: Any, params: Params, inputs: Any, settings: dict[str, Any]) -> Any:
    """Call model.apply on the params and the held collections, and return the output alone."""
    (model, mutable), (rest, rngs) = static, held
    variables = {"params": params, **rest}
    output = model.apply(variables, *inputs, rngs=rngs, mutable=mutable, **settings)
    return output if mutable is False else output[0]


def _check_variables(variables: Any) -> Any:
    """Return variables; refuse anything but a mapping with a "params" collection."""
    if not isinstance(variables, Mapping):
        raise TypeError(
            'variables must be a mapping {"params": …, "batch_stats": …}, got '
            f"{_kind_of(variables)}"
        )
    if "params" not in variables:
        raise ValueError(
            f'variables must have a "params" collection, got {list(variables)}; params alone are '
            'passed as {"params": params}'
        )
    return variables


def _is_several(mutable: Any) -> bool:
    """Whether `mutable` lists collections, and so may be a list that cannot be hashed."""
    return isinstance(mutable, Iterable) and not isinstance(mutable, str)


def _kind_of(value: Any) -> str:
    """Write what kind of thing a value is, for an error message."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
