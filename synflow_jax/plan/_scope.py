"""Scopes: which weights compete with which, and how many of each competition stay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from synflow_jax.trees import Shape, check_int, is_floating, is_traced, warn

Shapes = tuple[Shape, ...]
NEAR = 1e-6  # ratios of runs that agree to six digits, as a message shows them, are taken as equal
Axes = tuple[int | None, ...]


def sizes_of(shapes: Shapes) -> np.ndarray:
    """Count the entries of each shape, in float64."""
    return np.array([np.prod(shape) for shape in shapes], np.float64)


def whole(product: Any) -> Any:
    """Round N·d up, counting a product within 1e-12 (relative) of an integer as that integer.

    So ρ = N/L keeps exactly L, however float64 rounds N/ρ. The tolerance is no wider, since it
    would then round true fractions down: at 1e-9, ten million weights lose one that the reference
    keeps, in one round of fifty.
    """
    xp = product.__array_namespace__()
    nearest = xp.round(product)
    return xp.where(abs(product - nearest) <= 1e-12 * product, nearest, xp.ceil(product))


def rounding_of(rho: Any, wide: Any) -> Any:
    """Return the relative error of a ρ that was computed in its own dtype, 0 for a Python number.

    `wide` is ρ in float64. The error is the machine epsilon of the dtype, two roundings: 1/0.3
    rounds 0.3 and then the quotient. A whole number is taken as exact where the dtype has
    thousandths beside it. What float64 rounds, `whole` makes good.
    """
    if not hasattr(rho, "dtype") or not is_floating(rho) or jnp.finfo(rho.dtype).bits >= 64:
        return 0.0
    eps, xp = float(jnp.finfo(rho.dtype).eps), wide.__array_namespace__()
    return xp.where((wide == xp.round(wide)) & (wide * eps < 1e-3), 0.0, eps)


def settle(exact: Any, fewer: Any, more: Any, by_total: bool = False) -> Any:
    """Choose the counts [n, competitions] of a rounded ρ: those of what it was rounded from.

    `exact` are the counts of ρ as it came, `fewer` and `more` those of the largest and the smallest
    number that it may stand for. Where a single whole number lies between N·d of those two, N·d
    counts as it, as with 1/0.3 of 1000 weights in float32. Where there are several, the dtype is
    too coarse to tell, and ρ counts as it came. `by_total` compares sums over the competitions.
    """
    xp = exact.__array_namespace__()
    pair = (c.sum(1, keepdims=True) for c in (exact, more)) if by_total else (exact, more)
    return xp.where(xp.equal(*pair), fewer, exact)


def globally(shapes: Shapes, density: Any) -> Any:
    """Count what stays where all weights compete together: ⌈N·d⌉ in the whole network.

    Args:
      shapes: of the layers: prunable leaves, or slices of a stack of layers.
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
    """Count what stays where weights compete within their layer: ⌈N_l·d⌉ of each.

    Args:
      shapes: of the layers: prunable leaves, or slices of a stack of layers.
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
    """Count what stays of each layer at Erdős–Rényi-kernel densities, min(1, ε·Σ dims/Π dims).

    ε is chosen so that exactly ⌈N·d⌉ weights stay in the whole network; fractions of a weight go
    to the layers with the largest remainders, the first of equals first.

    Args:
      shapes: of the layers, prunable leaves or slices of a stack of layers; dims are all axes of
        a layer, kernel sizes included.
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


@dataclass(frozen=True)
class Runs:
    """What `runs` returns; equal settings share a compiled program."""

    length: int
    axis: int | None = None

    def __call__(self, shapes: Shapes, density: Any) -> Any:
        """Count what each layer keeps, where layers have the layout of Flax, (…, in, out)."""
        axis = -2 if self.axis is None else self.axis
        sides = [(axis + len(shape),) if axis >= -len(shape) else () for shape in shapes]
        return self.count(shapes, density, self.axes_of(shapes, sides))

    def count(self, shapes: Shapes, density: Any, axes: Axes) -> Any:
        """Count what each layer keeps: ⌈M·d⌉ of every run; a layer without runs keeps all."""
        of_each = whole(density * self.length)[:, None]
        cut, sizes = np.array([axis is not None for axis in axes]), sizes_of(shapes)
        return (cut * sizes / self.length)[None] * of_each + (~cut * sizes)[None]

    def axes_of(self, shapes: Shapes, sums: Sequence[tuple[int, ...]]) -> Axes:
        """Return the axis of each layer along which its runs lie; None where it has no runs.

        Args:
          shapes: of the layers.
          sums: of each, the axes that a product sums over; the last one is taken by default.
        """
        return tuple(self._axis_of(*pair) for pair in zip(shapes, sums, strict=True))

    def _axis_of(self, shape: Shape, sums: tuple[int, ...]) -> int | None:
        if self.axis is not None:
            sums = (self.axis + len(shape),) if self.axis >= -len(shape) else ()
        return sums[-1] if sums and shape[sums[-1]] % self.length == 0 else None


@dataclass(frozen=True)
class LaidRuns:
    """Runs along a known axis of each layer."""

    runs: Runs
    axes: Axes

    def __call__(self, shapes: Shapes, density: Any) -> Any:
        """Count what each layer keeps."""
        return self.runs.count(shapes, density, self.axes)

    def check_reached(self, shapes: Shapes, density: Any, counts: Any, slack: float) -> None:
        """Refuse less than one weight a run; warn where runs keep more than a density asks for.

        Args:
          shapes: of the leaves.
          density: the last.
          counts: the last, one a leaf.
          slack: the relative rounding error of ρ.
        """
        length = self.runs.length
        wanted = density * length
        if wanted < 1 - 1e-9:
            raise ValueError(
                f"rho must be at most {length}, got {1 / density:.12g}: "
                f"runs({length}) keep a weight each"
            )
        trios = zip(shapes, counts, self.axes, strict=True)
        of_each = [n * length / math.prod(s) for s, n, axis in trios if axis is not None]
        if of_each and of_each[0] - wanted > (NEAR + slack) * wanted:
            most = round(of_each[0])
            near = " or ".join(f"{length}/{n} = {length / n:.6g}" for n in (most, most - 1))
            warn(
                f"rho must be {length}/N for a whole N to be reached by "
                f"scope=runs({length}), got {1 / density:.6g}: {most} of every {length} "
                f"weights stay, which is rho={length / most:.6g}; pass {near} as rho",
                UserWarning,
            )


def runs(length: int, axis: int | None = None) -> Runs:
    """Keep N of every M neighbours: N:M sparsity, at ρ = M/N.

    With rho=2, runs(4) is 2:4, which tensor cores multiply at twice the speed: 2 of every 4
    neighbours along the axis that a product sums over. In a leaf whose axis is no multiple of M,
    such as the kernel of a first convolution, all weights stay. Runs never span layers of a stack.

    Args:
      length: M.
      axis: along which neighbours stand, counted from the end of a layer's axes. By default it is
        the last axis that a product sums over (of a convolution, that of input features), which
        the trace of the network shows; without a network (`magnitude`, `random`) it is −2, where
        leaves end in inputs by outputs, as Flax has it.

    Returns:
      A value for the argument `scope` (or `densities` of `random`).

    Raises:
      TypeError: an argument is no int.
      ValueError: length is below 2, or axis is not negative; in use, rho is above M, or M divides
        the axis of no prunable leaf.

    Warns:
      UserWarning: in use, rho is no M/N, so that more than asked stay: the next M/N below is taken.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import magnitude
      >>> weights = {"w": jnp.array([[4.0], [-3.0], [2.0], [1.0], [0.1], [0.2], [0.3], [0.4]])}
      >>> magnitude(weights, rho=2, scope=runs(4))["w"][:, 0].tolist()
      [True, True, False, False, False, False, True, True]

    Source: Mishra et al. 2021 (arXiv 2104.08378), section 3.
    """
    check_int("length", length, 2)
    if axis is None:
        return Runs(int(length))
    check_int("axis", axis, None)
    if axis >= 0:
        raise ValueError(f"axis must be counted from the end, so below 0, got {axis}")
    return Runs(int(length), int(axis))
