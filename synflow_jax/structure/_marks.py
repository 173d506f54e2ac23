"""What is known of a value in a trace: which leaves it is made of, and what it depends on.

Leaves have numbers, and sets of leaves are whole numbers with one bit a leaf, so that a trace of
thousands of equations is read in milliseconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import reduce
from operator import or_
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

Axes = frozenset[int]
NONE: Axes = frozenset()
READABLE = 2**20  # entries; the numbers of a larger constant are not looked at
MASKED = -1e4  # a summand this low is a mask, as in attention, and not a bias


class Kind(IntEnum):
    """What a value depends on: mostly the largest kind among the operands."""

    CONSTANT = 0  # neither params nor input
    WEIGHT = 1  # params alone
    INDEX = 2  # whole numbers and bools of the input, such as token ids
    ROUTED = 3  # whole numbers and bools computed from a signal, such as an argmax
    SIGNAL = 4  # floating, and dependent on the input


@dataclass(frozen=True)
class Part:
    """A leaf inside a value of leaves alone.

    Attributes:
      axes: for each axis of the value, the axes of the leaf that lie along it.
      sliced: axes of the leaf of which one position was taken, and that still have length 1.
      layers: the axes of the leaf from which one layer was taken; () if it holds one layer.
      summed: axes of the leaf that a product with other leaves has summed over.
      reduced: axes of the leaf that a sum or a maximum has reduced: a statistic of the leaf.
      bent: whether exp or its kind was applied, or a constant added: the sign of the leaf counts.
    """

    axes: tuple[Axes, ...]
    sliced: Axes = NONE
    layers: tuple[int, ...] = ()
    summed: Axes = NONE
    reduced: Axes = NONE
    bent: bool = False

    def moved(self, axes: Iterable[Axes]) -> "Part":
        """Return the part with other axes; an axis that was sliced and is gone is that of layers.

        An axis of length 1 that disappears without having been sliced leaves nothing behind.
        """
        new = tuple(axes)
        gone = self.sliced - frozenset().union(*new)
        layers = tuple(sorted({*self.layers, *gone}))
        return replace(self, axes=new, sliced=self.sliced - gone, layers=layers)

    def joined(self, other: "Part") -> "Part":
        """Combine two occurrences of one leaf in one value."""
        if len(self.axes) != len(other.axes):
            return self if len(self.axes) > len(other.axes) else other
        axes = tuple(a | b for a, b in zip(self.axes, other.axes, strict=True))
        layers = self.layers or other.layers
        return Part(
            axes,
            self.sliced | other.sliced,
            layers,
            self.summed | other.summed,
            self.reduced & other.reduced,
            self.bent or other.bent,
        )


Parts = Mapping[int, Part]
EMPTY: Parts = {}


@dataclass(frozen=True)
class Mark:
    """What is known of a value.

    Attributes:
      kind: what it depends on.
      parts: of a value of leaves alone, the leaves inside it.
      leaves: the bits of all leaves that it depends on.
      attached: the bits of those of them that get a gradient through it.
      breaks: the bits of the breaks of homogeneity that lie behind it.
      kernels: the bits of the kernels behind it after which no other kernel comes.
      needed: the bits of the leaves of which each makes it 0 by being 0; biases do not count.
      positive: whether no entry is below 0, for weights at |θ| and an input of ones.
      number: the one number of a constant whose entries are equal, else None.
      known: of a comparison, its answer, which is the same for all entries; else None.
      scales: leaves that the equation just before has multiplied a signal with.
      one_hot: whether each row has one entry that is 1, as tokens compared with all numbers.
    """

    kind: Kind = Kind.CONSTANT
    parts: Parts = field(default_factory=dict)
    leaves: int = 0
    attached: int = 0
    breaks: int = 0
    kernels: int = 0
    needed: int = 0
    positive: bool = False
    number: float | None = None
    known: bool | None = None
    scales: Parts = field(default_factory=dict)
    one_hot: bool = False

    @property
    def is_signal(self) -> bool:
        """Whether the value is floating and depends on the input."""
        return self.kind is Kind.SIGNAL


def mark_of_constant(array: Any) -> Mark:
    """Describe a constant of a trace."""
    if isinstance(array, Tracer) or np.size(array) > READABLE or not np.size(array):
        return Mark()
    if jax.numpy.issubdtype(getattr(array, "dtype", np.float32), jax.dtypes.prng_key):
        return Mark()
    found = np.asarray(array)
    if found.dtype.kind == "c":
        return Mark()
    found = found.astype(np.float64)
    first = float(found.flat[0])
    ones = found.ndim == 2 and ((found == 0) | (found == 1)).all() and (found.sum(-1) == 1).all()
    return Mark(
        positive=bool((found >= 0).all()),
        number=first if (found == first).all() else None,
        one_hot=bool(ones),
    )


def join(marks: Iterable[Mark], kind: Kind | None = None) -> Mark:
    """Describe a result of several operands, of which nothing but dependence is kept.

    As of a sum, all operands of the largest kind must be 0 for it to be 0.
    """
    leaves = attached = breaks = kernels = needed = 0
    most = Kind.CONSTANT
    for mark in marks:
        if mark.kind >= most:
            needed = mark.needed & (needed if mark.kind is most else mark.needed)
        leaves |= mark.leaves
        attached |= mark.attached
        breaks |= mark.breaks
        kernels |= mark.kernels
        most = max(most, mark.kind)
    return Mark(
        most if kind is None else kind,
        leaves=leaves,
        attached=attached,
        breaks=breaks,
        kernels=kernels,
        needed=needed,
    )


def join_factors(marks: Iterable[Mark]) -> Mark:
    """Describe a product, which is 0 where one of its factors is."""
    factors = list(marks)
    return replace(join(factors), needed=reduce(or_, (mark.needed for mark in factors)))


def join_parts(marks: Iterable[Mark]) -> dict[int, Part]:
    """Collect the leaves inside several values of one shape."""
    found: dict[int, Part] = {}
    for mark in marks:
        for leaf, part in mark.parts.items():
            found[leaf] = found[leaf].joined(part) if leaf in found else part
    return found


def alike(a: Mark, b: Mark) -> Mark:
    """Describe a value that may be either of two, as the carry of a loop may."""
    both = join([a, b])
    same = a.number == b.number
    return replace(
        both,
        parts=join_parts([a, b]) if both.kind is Kind.WEIGHT else {},
        positive=a.positive and b.positive,
        number=a.number if same else None,
        known=a.known if a.known == b.known else None,
    )
