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
    """Split a Linen model in its params and a function of them, in evaluation mode.

    Other collections (batch_stats, …) are held by the function, as they are: scoring neither reads
    them as weights nor changes them. Equal models and settings make functions that share one
    compiled program, whatever the statistics are.

    Args:
      model: a Linen module.
      variables: what model.init returned, or {"params": state.params, "batch_stats": …}.
      rngs: keys by name, {"sample": key}, of a model that draws in evaluation too: it draws the
        same in every call.
      mutable: collections that the model writes in evaluation too, such as ["cache"]; what it
        writes is dropped.
      **settings: keyword arguments of model.apply that mean evaluation, such as train=False, and
        method="encode" for another method than the call.

    Returns:
      params = variables["params"], and apply_fn(params, x) -> y. For a model of several arguments,
      apply_fn(params, *inputs) and apply_fn(params, **inputs) work too.

    Raises:
      TypeError: model is no Linen module, or variables no mapping.
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
            f"model must be a Linen module, such as Net(), got {_said(model)}; for an NNX model "
            "there is synflow_jax.nnx.from_nnx, and a function needs no adapter"
        )
    rest = {name: value for name, value in _checked(variables).items() if name != "params"}
    writes = tuple(mutable) if _is_several(mutable) else mutable
    held = (rest, rngs)
    return variables["params"], evaluation(_apply, (model, writes), held, settings)


def to_linen(variables: Any, params: Params) -> Any:
    """Put params back among the variables that they came from.

    Args:
      variables: what `from_linen` was given; not modified.
      params: the params after pruning or training, of the same tree structure.

    Returns:
      Variables of the same kind, the other collections as they were: model.apply takes them.

    Raises:
      TypeError: variables is no mapping.
      ValueError: variables has no "params", or params is built otherwise.

    Example:
      >>> import jax.numpy as jnp
      >>> variables = {"params": {"kernel": jnp.ones(2)}, "batch_stats": {"mean": jnp.ones(1)}}
      >>> to_linen(variables, {"kernel": jnp.zeros(2)})["params"]["kernel"].tolist()
      [0.0, 0.0]
    """
    check_structure(_checked(variables)["params"], params, "params to put back")
    return core.copy(variables, {"params": params})


def _apply(static: Any, held: Any, params: Params, inputs: Any, settings: dict[str, Any]) -> Any:
    (model, mutable), (rest, rngs) = static, held
    variables = {"params": params, **rest}
    output = model.apply(variables, *inputs, rngs=rngs, mutable=mutable, **settings)
    return output if mutable is False else output[0]


def _checked(variables: Any) -> Any:
    """Refuse what model.apply would not take as variables."""
    if not isinstance(variables, Mapping):
        raise TypeError(
            f'variables must be a mapping {{"params": …, "batch_stats": …}}, got {_said(variables)}'
        )
    if "params" not in variables:
        raise ValueError(
            f'variables must have a "params" collection, got {list(variables)}; params alone are '
            'passed as {"params": params}'
        )
    return variables


def _is_several(mutable: Any) -> bool:
    return isinstance(mutable, Iterable) and not isinstance(mutable, str)


def _said(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
