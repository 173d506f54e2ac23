"""From a Flax NNX model to (params, apply_fn) and back."""

from typing import Any

import jax
from flax import nnx

from synflow_jax.frameworks._evaluation import evaluation
from synflow_jax.trees import Params, check_structure


def from_nnx(
    model: nnx.Module, *, method: str = "__call__", **settings: Any
) -> tuple[Params, jax.tree_util.Partial]:
    """Split an NNX model into its params and a function of them, in evaluation mode.

    Both are copies: training the model later does not change them, and calling the function does
    not change the model's mode, statistics or rngs. The function holds what is not a Param
    (BatchStat, RngState, Variables of your own); a model that draws random numbers in evaluation
    mode too draws the same ones in every call. Functions of equal models and settings share one
    compiled program, whatever their statistics are.

    Args:
      model: an NNX module, in training or in evaluation mode.
      method: the name of the method to call.
      **settings: keyword arguments of the call, such as decode=False; rngs=nnx.Rngs(0) draws the
        same in every call.

    Returns:
      params, the State of nnx.Param, and apply_fn(params, x) -> y. For a model of several
      arguments, apply_fn(params, *inputs) and apply_fn(params, **inputs) work too.

    Raises:
      TypeError: model is not an NNX module, or has no such method.
      ValueError: model has no nnx.Param.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> model = nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))
      >>> params, apply_fn = from_nnx(model)
      >>> apply_fn(jax.tree.map(jnp.ones_like, params), jnp.ones((1, 2))).tolist()
      [[2.0, 2.0, 2.0]]
    """
    _check_model(model)
    if not callable(getattr(model, method, None)):
        raise TypeError(f"method must name a method of the model, got {method!r}")
    # Copy first: nnx.split would put the model's own Variables in the State.
    copy = nnx.clone(model)
    copy.eval()
    graphdef, params, rest = nnx.split(copy, nnx.Param, ...)
    if not jax.tree.leaves(params):
        raise ValueError("model must have weights (nnx.Param), and it holds none")
    return params, evaluation(_apply, (graphdef, method), rest, settings)


def to_nnx(model: nnx.Module, params: Params) -> nnx.Module:
    """Make a copy of an NNX model with these params.

    To change the model itself instead, call nnx.update(model, params).

    Args:
      model: the NNX module that the params came from; not modified.
      params: the State of nnx.Param after pruning or training.

    Returns:
      A new model with everything else, its mode too, as in the given one.

    Raises:
      TypeError: model is not an NNX module.
      ValueError: params has another tree structure than those of the model.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> model = nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))
      >>> params, _ = from_nnx(model)
      >>> ones = to_nnx(model, jax.tree.map(jnp.ones_like, params))
      >>> ones(jnp.ones((1, 2))).tolist()
      [[2.0, 2.0, 2.0]]
    """
    _check_model(model)
    graphdef, mine, rest = nnx.split(model, nnx.Param, ...)
    check_structure(mine, params, "params to put back")
    return nnx.merge(graphdef, params, rest, copy=True)


def _apply(static: Any, held: Any, params: Params, inputs: Any, settings: dict[str, Any]) -> Any:
    """Rebuild the model with these params, and call its method."""
    (graphdef, method), rest = static, held
    # A copy in each call: a model that counts its calls must not change the held Variables, and
    # neither may rngs that are passed to it count on.
    settings = {
        name: nnx.clone(value) if isinstance(value, nnx.Rngs | nnx.Module) else value
        for name, value in settings.items()
    }
    return getattr(nnx.merge(graphdef, params, rest, copy=True), method)(*inputs, **settings)


def _check_model(model: Any) -> None:
    """Refuse anything but an NNX module."""
    if not isinstance(model, nnx.Module):
        kind = type(model).__name__
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {kind}"
        raise TypeError(
            f"model must be an NNX module, such as Net(nnx.Rngs(0)), got {what}; for a Linen model "
            "there is synflow_jax.linen.from_linen, and a function needs no adapter"
        )
