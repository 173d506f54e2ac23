"""Patterns: the units of a leaf, whose weights stay or go together.

A pattern maps a leaf's path and shape to the shape of its units, which tile the leaf; at the end of
an axis a unit may be cut short. A unit's score is the sum of the scores of its weights, so that
for SynFlow it is the flow through the unit, and no more than that is lost with it.

A leaf that holds several layers is given to the pattern as one of them, so that no unit spans two.
"""

from dataclasses import dataclass
from typing import Any

from synflow_jax.plan._layout import Layout
from synflow_jax.plan._scope import Runs
from synflow_jax.trees import Pattern, Shape, check_int


def unstructured(path: str, shape: Shape) -> Shape:
    """Make every weight a unit of its own.

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
        """Return the shape of a block of the last two axes."""
        del path
        return self.along(-2, -1, shape)

    def along(self, inputs: int | None, outputs: int | None, shape: Shape) -> Shape:
        """Return the shape of a block along an axis of inputs, if there is one, and of outputs."""
        unit = [1] * len(shape)
        for axis, size in ((inputs, self.rows), (outputs, self.columns)):
            if axis is not None and -len(shape) <= axis < len(shape):
                unit[axis] = min(size, shape[axis])
        return tuple(unit)


def blocks(rows: int, columns: int | None = None) -> Blocks:
    """Make blocks of inputs by outputs the units.

    Which axes these are, the trace of the network shows: the last one that a product sums over, and
    the last one of outputs. Without a network (`magnitude`, `random`, `to_blocks`) they are the
    last two, as Flax has them.

    Args:
      rows: along the axis of inputs.
      columns: along the axis of outputs; as many as rows where it is not given.

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
        check_int(name, size)
    return Blocks(int(rows), int(columns))


@dataclass(frozen=True)
class Slices:
    """What `slices` returns; equal settings share a compiled program."""

    axis: int

    def __call__(self, path: str, shape: Shape) -> Shape:
        """Return the shape of a slice: one position of the axis, all of the others."""
        if not -len(shape) <= self.axis < len(shape):
            own = " (as channels are)" if self.axis == -1 else ""
            raise ValueError(
                f"pattern=slices({self.axis}){own} must name an axis of every prunable leaf, and "
                f"{path!r} has shape {shape}: leave it out by `prunable`"
            )
        axis = self.axis % len(shape)
        return tuple(1 if k == axis else size for k, size in enumerate(shape))


def slices(axis: int) -> Slices:
    """Make all weights at one position of an axis a unit: a channel, a neuron, a head.

    Args:
      axis: of a layer, without the axis along which layers are stacked; −1 for output channels,
        where leaves have them last, as Flax does.

    Returns:
      A value for the argument `pattern`.

    Raises:
      TypeError: axis is no int.

    Example:
      >>> slices(-2)("attention/query/kernel", (64, 8, 16))
      (64, 1, 16)
    """
    check_int("axis", axis, None)
    return Slices(int(axis))


def channels(path: str, shape: Shape) -> Shape:
    """Make all weights into one output channel or neuron a unit: slices of the axis of outputs.

    That is the last axis of outputs which the trace of the network shows, whatever the layout; and
    without a network (`magnitude`, `random`) the last axis. What is left of a network pruned so is
    dense, and `compact` makes it smaller; the output's own layer is better left out by `prunable`.

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


def in_layout(pattern: Pattern, layout: Layout) -> Pattern:
    """Return the pattern along the axes of a layer, where it is one of inputs or outputs."""
    inputs, outputs = (side[-1] if side else None for side in (layout.sums, layout.outputs))
    if pattern is channels and outputs is not None:
        return Slices(outputs)
    if isinstance(pattern, Blocks):
        return lambda _, shape: pattern.along(inputs, outputs, shape)
    return pattern


def check_pattern(pattern: Any) -> None:
    """Refuse what is not a pattern: not a function, a maker of patterns, or a scope."""
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
    """Whether this is a pattern, or a maker of patterns."""
    named = (unstructured, channels, slices, blocks)
    return isinstance(value, Blocks | Slices) or any(value is own for own in named)
