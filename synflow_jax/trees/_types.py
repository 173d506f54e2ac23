"""Type aliases of the library's signatures."""

from collections.abc import Callable
from typing import Any

import jax

Params = Any
"""Any pytree of arrays; never modified."""


Masks = Any
"""A pytree of bool arrays with the treedef of the params; True = keep."""


Scores = Any
"""A pytree of floating arrays with the treedef of the params; higher = keep."""


ApplyFn = Callable[[Params, Any], Any]
"""apply_fn(params, x) -> y, the network in evaluation mode."""


LossFn = Callable[[Params, Any], jax.Array]
"""loss_fn(params, batch) -> scalar mean loss."""


Prunable = Callable[[str, Any], bool]
"""prunable(path, leaf) -> bool, the path written as a/b/kernel."""


ScoreFn = Callable[[Params, Masks], Scores]
"""saliency(params, masks) -> scores, as a plain function."""


Pattern = Callable[[str, tuple[int, ...]], tuple[int, ...]]
"""pattern(path, shape) -> the shape of a unit: weights that stay or go together."""


Schedule = Callable[[Any, int, Any], Any]
"""schedule(k, rounds, rho) -> density after round k."""


Scope = Callable[[tuple[tuple[int, ...], ...], Any], Any]
"""scope(shapes, densities[n]) -> counts[n, 1] (one competition) or counts[n, layers]."""

Shape = tuple[int, ...]
"""The shape of an array, or of a unit of weights."""
