"""Patterns: which weights of a leaf are one unit, and stay or go together.

A pattern maps a leaf's path and shape to the shape of its units, which tile the leaf; at the end of
an axis a unit may be cut short. A unit's score is the sum of the scores of its weights, so that
for SynFlow it is the flow through the unit, and no more than that is lost with it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from synflow_jax.errors import is_traced
from synflow_jax.scope import Shapes, sizes_of, whole

Shape = tuple[int, ...]


def unstructured(path: str, shape: Shape) -> Shape:
    """Let every weight be a unit of its own.

    Args:
      path: where the leaf stands.
      shape: of the leaf.

    Returns:
      The shape of a unit, ones.

    Example:
      >>> unstructured("dense/kernel", (300, 100))
      (1, 1)
    """
    del path
    return (1,) * len(shape)


@dataclass(frozen=True)
class Blocks:
    """What `blocks` returns; equal settings share a compiled program."""

    rows: int
    columns: int

    def __call__(self, path: str, shape: Shape) -> Shape:
        """Cut the last two axes in blocks."""
        del path
        wanted = (self.rows, self.columns)[-len(shape) :]
        return (*(1,) * (len(shape) - 2), *map(min, wanted, shape[-2:]))


def blocks(rows: int, columns: int | None = None) -> Blocks:
    """Let blocks of the last two axes, inputs by outputs, be the units.

    Args:
      rows: along the last axis but one.
      columns: along the last axis; as many as rows where it is not given.

    Returns:
      A value for the argument `pattern`.

    Raises:
      TypeError: a size is no int.
      ValueError: a size is below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import magnitude
      >>> weights = {"w": jnp.array([[1.0, 5.0, 2.0, 2.0], [1.0, 0.0, 2.0, 2.0]])}
      >>> magnitude(weights, 2.0, pattern=blocks(2))["w"].tolist()
      [[False, False, True, True], [False, False, True, True]]
    """
    columns = rows if columns is None else columns
    for name, size in (("rows", rows), ("columns", columns)):
        _check_whole(name, size)
    return Blocks(int(rows), int(columns))


@dataclass(frozen=True)
class Slices:
    """What `slices` returns; equal settings share a compiled program."""

    axis: int

    def __call__(self, path: str, shape: Shape) -> Shape:
        """Take all that stands at one position of the axis."""
        if not -len(shape) <= self.axis < len(shape):
            own = " (as channels are)" if self.axis == -1 else ""
            raise ValueError(
                f"pattern=slices({self.axis}){own} must name an axis of every prunable leaf, and "
                f"{path!r} has shape {shape}: leave it out by `prunable`"
            )
        axis = self.axis % len(shape)
        return tuple(1 if k == axis else size for k, size in enumerate(shape))


def slices(axis: int) -> Slices:
    """Let all weights at one position of an axis be a unit: a channel, a neuron, a head.

    Args:
      axis: −1 for output channels, where leaves have them last, as Flax does.

    Returns:
      A value for the argument `pattern`.

    Raises:
      TypeError: axis is no int.

    Example:
      >>> slices(-2)("attention/query/kernel", (64, 8, 16))
      (64, 1, 16)
    """
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool):
        raise TypeError(f"axis must be an int, got a {type(axis).__name__}")
    return Slices(int(axis))


def channels(path: str, shape: Shape) -> Shape:
    """Let all weights into one output channel, or neuron, be a unit: slices of the last axis.

    What is left of a network pruned so is dense, and `compact` makes it smaller; the output's own
    layer is better left out by `prunable`.

    Args:
      path: where the leaf stands.
      shape: of the leaf, output channels last, as in Flax.

    Returns:
      The shape of a unit.

    Example:
      >>> channels("conv/kernel", (3, 3, 64, 128))
      (3, 3, 64, 1)
    """
    return slices(-1)(path, shape)


@dataclass(frozen=True)
class Runs:
    """What `runs` returns; equal settings share a compiled program."""

    length: int
    axis: int

    def __call__(self, shapes: Shapes, density: Any) -> Any:
        """Count what each layer keeps: ⌈M·d⌉ of every run, and all of what has no runs."""
        if not is_traced(density) and density.min() * self.length < 1 - 1e-9:
            raise ValueError(
                f"rho must be at most {self.length}, got {1 / density.min():.6g}: "
                f"runs({self.length}) keep a weight each"
            )
        of_each = whole(density * self.length)[:, None]
        cut, sizes = np.array([self.cuts(shape) for shape in shapes]), sizes_of(shapes)
        return (cut * sizes / self.length)[None] * of_each + (~cut * sizes)[None]

    def cuts(self, shape: Shape) -> bool:
        """Whether a leaf of this shape can be cut in runs."""
        there = -len(shape) <= self.axis < len(shape)
        return there and shape[self.axis] % self.length == 0


def runs(length: int, axis: int = -2) -> Runs:
    """Let weights compete in runs of M neighbours: N:M sparsity, of which ρ = M/N.

    With rho=2, runs(4) is 2:4, which tensor cores multiply at twice the speed: 2 of every 4
    neighbours along the axis that a product sums over. In a leaf whose axis is no multiple of M,
    such as the kernel of a first convolution, all weights stay.

    Args:
      length: M.
      axis: along which neighbours stand; −2 is that of inputs, where leaves end in inputs by
        outputs, as Flax has it. It is counted from the end.

    Returns:
      A value for the argument `scope` (or `densities` of `random`).

    Raises:
      TypeError: an argument is no int.
      ValueError: length is below 2, or axis is not negative; in use, rho is above M, or M divides
        the axis of no prunable leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import magnitude
      >>> weights = {"w": jnp.array([[4.0], [-3.0], [2.0], [1.0], [0.1], [0.2], [0.3], [0.4]])}
      >>> magnitude(weights, rho=2, scope=runs(4))["w"][:, 0].tolist()
      [True, True, False, False, False, False, True, True]

    Source: Mishra et al. 2021 (arXiv 2104.08378), section 3.
    """
    _check_whole("length", length, 2)
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool):
        raise TypeError(f"axis must be an int, got a {type(axis).__name__}")
    if axis >= 0:
        raise ValueError(f"axis must be counted from the end, so below 0, got {axis}")
    return Runs(int(length), int(axis))


def check_pattern(pattern: Any) -> None:
    """Refuse what is no pattern: no function, one that makes patterns, or a scope."""
    if not callable(pattern):
        raise TypeError(
            "pattern must be a function such as channels or blocks(4), that is (path, shape) -> "
            f"shape of a unit, got {pattern!r}"
        )
    if any(pattern is maker for maker in (blocks, slices)):
        raise TypeError(f"pattern must be {pattern.__name__}(…), with brackets")
    if isinstance(pattern, Runs):
        raise TypeError("pattern must say what a unit is, and runs(…) is a scope: pass it as scope")


def is_pattern(value: Any) -> bool:
    """Whether this is a pattern, or what makes one."""
    named = (unstructured, channels, slices, blocks)
    return isinstance(value, Blocks | Slices) or any(value is own for own in named)


def _check_whole(name: str, size: Any, least: int = 1) -> None:
    if not isinstance(size, int | np.integer) or isinstance(size, bool):
        raise TypeError(f"{name} must be an int, got a {type(size).__name__}")
    if size < least:
        raise ValueError(f"{name} must be at least {least}, got {size}")
