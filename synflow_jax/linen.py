"""From a Flax Linen model to (params, apply_fn) and back."""

from typing import Any

import flax.linen as nn
import jax

from synflow_jax._types import Params


def from_linen(model: nn.Module, variables: Any, **settings: Any) -> tuple[Params, Any]:
    """Split a Linen model in its params and a function of them, in evaluation mode.

    Other collections (batch_stats, …) are held by the function, as they are: scoring neither reads
    them as weights nor changes them. Equal models and settings make functions that share one
    compiled program, whatever the statistics are.

    Args:
      model: a Linen module.
      variables: what model.init returned, or {"params": state.params, "batch_stats": …}.
      **settings: keyword arguments of the call that mean evaluation, such as train=False.

    Returns:
      params = variables["params"], and apply_fn(params, x) -> y.

    Raises:
      ValueError: variables has no "params".

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> model = nn.Dense(3)
      >>> variables = model.init(jax.random.key(0), jnp.ones((1, 2)))
      >>> params, apply_fn = from_linen(model, variables)
      >>> apply_fn(params, jnp.ones((1, 2))).shape
      (1, 3)
    """
    if "params" not in variables:
        raise ValueError(f'variables must have a "params" collection, got {list(variables)}')
    rest = {name: value for name, value in variables.items() if name != "params"}
    bound = _Evaluate(model, tuple(sorted(settings.items())))
    return variables["params"], jax.tree_util.Partial(bound, rest)


class _Evaluate:
    """model.apply with fixed settings, compared by value."""

    def __init__(self, model: nn.Module, settings: tuple[tuple[str, Any], ...]) -> None:
        self.parts = (model, settings)

    def __call__(self, rest: Any, params: Params, *args: Any) -> Any:
        model, settings = self.parts
        return model.apply({"params": params, **rest}, *args, **dict(settings))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Evaluate) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)
