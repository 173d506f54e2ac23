"""Follow units through a reshape, which merges axes and splits them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from synflow_jax.compaction._units import Axes, Units


@dataclass(frozen=True)
class Product:
    """A flat axis that a reshape merges from, or splits into, several axes.

    Positions can be removed along one of these axes only, its lead: the flat axis then loses whole
    rows, such as heads.

    Attributes:
      flat: the units of the flat axis.
      axes: the units of the axes whose sizes multiply to its length.
    """

    flat: np.ndarray
    axes: Axes

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of positions along each axis."""
        return tuple(map(len, self.axes))

    def settle(self, units: Units, force: bool) -> bool:
        """Choose the lead, join the flat axis with it, and keep the other axes whole.

        The lead is the only axis of which positions may go. Where several have such positions, it
        is the one along which alone the units of the flat axis differ, as of a tiled array. Where
        there is none, `force` takes the first axis of which positions may go.

        Returns:
          Whether it is settled.
        """
        table = units.find(self.flat).reshape(self.sizes)
        free = [k for k, ids in enumerate(self.axes) if len(ids) > 1 and units.find(ids).any()]
        if not table.any():
            lead = None
        elif len(free) <= 1 or force:
            lead = free[0] if free else None
        else:
            lead = next((k for k in free if _depends_only_on(table, k)), None)
            if lead is None:
                return False
        for k, ids in enumerate(self.axes):
            if k != lead:
                units.keep_whole(ids)
        if lead is None:
            units.keep_whole(self.flat)
        else:
            shape = [-1 if k == lead else 1 for k in range(len(self.axes))]
            rows = np.broadcast_to(self.axes[lead].reshape(shape), self.sizes)
            units.join(self.flat, rows.reshape(-1))
        return True


def _depends_only_on(table: np.ndarray, axis: int) -> bool:
    """Whether a table is constant along all axes but this one."""
    rows = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
    return bool((rows == rows[:, :1]).all())


def reshaped(axes: Axes, new: Sequence[int], units: Units) -> tuple[Axes, list[Product]]:
    """Follow units through a reshape.

    Args:
      axes: the units along each axis.
      new: the new shape.
      units: which units are joined.

    Returns:
      The units along each new axis, and the products that are to be settled.
    """
    result: list[np.ndarray] = []
    products: list[Product] = []
    for ins, outs in _blocks([len(ids) for ids in axes], list(new)):
        mine, sizes = tuple(axes[i] for i in ins), [new[i] for i in outs]
        if len(mine) == len(sizes) == 1:
            result += mine
            continue
        flat = mine[0] if len(mine) == 1 else units.fresh(math.prod(sizes))
        parts = (flat,) if len(sizes) == 1 else tuple(map(units.fresh, sizes))
        products += [Product(flat, own) for own in (mine, parts) if len(own) != 1]
        result += parts
    return tuple(result), products


def settle_all(products: list[Product], units: Units) -> None:
    """Settle the products that have one possible lead; then force one, which may settle others."""
    left = products
    while left:
        waiting = [product for product in left if not product.settle(units, False)]
        if len(waiting) == len(left):
            left[0].settle(units, True)
            waiting = left[1:]
        left = waiting
    # Units may have been joined since their product was settled: settle again until none changes.
    before = -1
    while (now := len(np.unique(units.find(np.arange(len(units.parents)))))) != before:
        before = now
        for product in products:
            product.settle(units, True)


def _blocks(old: list[int], new: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Pair the shortest runs of old and new axes that have equal sizes, as indices of both."""
    i = j = 0
    while i < len(old) or j < len(new):
        ins, outs = [], []
        if i < len(old):
            ins, i = [i], i + 1
        if j < len(new):
            outs, j = [j], j + 1
        while (a := math.prod(old[k] for k in ins)) != (b := math.prod(new[k] for k in outs)):
            if (a < b and i < len(old)) or j == len(new):
                ins, i = [*ins, i], i + 1
            else:
                outs, j = [*outs, j], j + 1
        yield ins, outs
