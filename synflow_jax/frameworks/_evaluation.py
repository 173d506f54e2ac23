"""The apply_fn that the adapters return: equal models and settings share a compiled program."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from synflow_jax.trees import Params


@dataclass(frozen=True)
class Evaluate:
    """The static part of an apply_fn, compared by value.

    Attributes:
      call: call(model, held, params, inputs, settings) -> outputs, the adapter's own function.
      model: a static description of the model.
      settings: keyword arguments of the model without arrays, sorted.
    """

    call: Callable[..., Any]
    model: Any
    settings: tuple[tuple[str, Any], ...]

    def __call__(
        self, held: Any, arrays: dict[str, Any], params: Params, *inputs: Any, **named: Any
    ) -> Any:
        """Run the model on one batch; the fixed settings override keyword inputs."""
        settings = {**named, **dict(self.settings), **arrays}
        return self.call(self.model, held, params, inputs, settings)


def evaluation(
    call: Callable[..., Any], model: Any, held: Any, settings: dict[str, Any]
) -> jax.tree_util.Partial:
    """Build apply_fn(params, *inputs) as a Partial: arrays are its leaves, the rest is static.

    Args:
      call: see `Evaluate`.
      model: see `Evaluate`.
      held: a pytree of arrays that call needs, such as statistics.
      settings: keyword arguments of the model, some of which may hold arrays.
    """
    arrays = {name: value for name, value in settings.items() if _holds_arrays(value)}
    static = tuple(sorted((n, v) for n, v in settings.items() if n not in arrays))
    return jax.tree_util.Partial(Evaluate(call, model, static), held, arrays)


def _holds_arrays(value: Any) -> bool:
    return any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value))
