"""Scopes: which weights compete with which, and how many of each competition stay."""

from typing import Any

import numpy as np

from synflow_jax.errors import is_traced

Shapes = tuple[tuple[int, ...], ...]


def sizes_of(shapes: Shapes) -> np.ndarray:
    """Weights of each layer."""
    return np.array([np.prod(shape) for shape in shapes], np.float64)


def whole(product: Any) -> Any:
    """Round N·d up, counting a product within 1e-12 (relative) of an integer as that integer.

    So ρ = N/L keeps L whatever float64 makes of it. A wider tolerance would decide real fractions:
    at 1e-9, ten million weights lose one that the reference keeps, in one round of fifty.
    """
    xp = product.__array_namespace__()
    nearest = xp.round(product)
    return xp.where(abs(product - nearest) <= 1e-12 * product, nearest, xp.ceil(product))


def globally(shapes: Shapes, density: Any) -> Any:
    """Let all weights compete with all: keep ⌈N·d⌉ in the whole network.

    Args:
      shapes: of the prunable leaves.
      density: d, of shape (n,), one a round.

    Returns:
      Counts of shape (n, 1).

    Example:
      >>> import numpy as np
      >>> globally(((2, 3), (3, 4)), np.array([0.5, 0.1])).tolist()
      [[9.0], [2.0]]
    """
    return whole(density * sizes_of(shapes).sum())[:, None]


def layerwise(shapes: Shapes, density: Any) -> Any:
    """Let weights compete inside their layer: keep ⌈N_l·d⌉ of each.

    Args:
      shapes: of the prunable leaves.
      density: d, of shape (n,), one a round.

    Returns:
      Counts of shape (n, layers).

    Example:
      >>> import numpy as np
      >>> layerwise(((2, 3), (3, 4)), np.array([0.5, 0.1])).tolist()
      [[3.0, 6.0], [1.0, 2.0]]
    """
    return whole(density[:, None] * sizes_of(shapes)[None, :])


uniform = layerwise


def erk(shapes: Shapes, density: Any) -> Any:
    """Give layer l the Erdős–Rényi-kernel density d_l = min(1, ε·Σ dims/Π dims).

    ε is chosen so that exactly ⌈N·d⌉ weights stay in the whole network; fractions of a weight go
    to the layers with the largest remainders, the first of equals first.

    Args:
      shapes: of the prunable leaves; dims are all axes of a leaf, kernel sizes included.
      density: d, of shape (n,), one a round; of known value.

    Returns:
      Counts of shape (n, layers).

    Raises:
      TypeError: density is traced.

    Example:
      >>> import numpy as np
      >>> erk(((10, 10), (10, 100)), np.array([0.1])).tolist()
      [[17.0, 93.0]]

    Source: Evci et al. 2020 (arXiv 1911.11134), section 3.
    """
    if is_traced(density):
        raise TypeError("erk needs a rho of known value, and this one is traced")
    return np.stack([_erk_counts(shapes, one) for one in np.asarray(density, np.float64)])


def _erk_counts(shapes: Shapes, density: float) -> np.ndarray:
    sizes = sizes_of(shapes)
    sums = np.array([np.sum(shape) for shape in shapes], np.float64)
    total = whole(np.float64(density * sizes.sum()))
    full = np.zeros(len(sizes), bool)
    while True:
        weights = np.where(full, 0.0, sums)
        left = total - sizes[full].sum()
        wanted = np.where(full, sizes, weights * left / max(weights.sum(), 1e-300))
        over = (wanted > sizes) & ~full
        if not over.any():
            break
        full |= over
    counts = np.floor(wanted + 1e-9)
    missing = round(float(total - counts.sum()))
    order = np.argsort(-(wanted - counts), kind="stable")
    counts[order[:missing]] += 1
    return counts
