"""What both adapters return: a function of the params, which jit compares by value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from synflow_jax.trees import Params


@dataclass(frozen=True)
class Evaluate:
    """call(model, settings, held, params, …); two of equal model and settings are one program."""

    call: Callable[..., Any]
    model: Any
    settings: tuple[tuple[str, Any], ...]

    def __call__(
        self, held: Any, arrays: dict[str, Any], params: Params, *inputs: Any, **named: Any
    ) -> Any:
        """Run the model on one batch, its settings after what the caller names."""
        settings = {**named, **dict(self.settings), **arrays}
        return self.call(self.model, held, params, inputs, settings)


def evaluation(
    call: Callable[..., Any], model: Any, held: Any, settings: dict[str, Any]
) -> jax.tree_util.Partial:
    """Build apply_fn(params, *inputs): arrays are its leaves, all the rest is static."""
    arrays = {name: value for name, value in settings.items() if _holds_arrays(value)}
    static = tuple(sorted((n, v) for n, v in settings.items() if n not in arrays))
    return jax.tree_util.Partial(Evaluate(call, model, static), held, arrays)


def _holds_arrays(value: Any) -> bool:
    return any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value))
