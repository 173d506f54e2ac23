"""Units through a reshape: axes that are merged, and axes that are split."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from synflow_jax.compaction._units import Units

Axes = tuple[np.ndarray, ...]  # for each axis, the unit of each position


@dataclass(frozen=True)
class Product:
    """A long axis that is the product of others: what goes must be rows of one of them."""

    flat: np.ndarray
    axes: Axes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Positions along each axis."""
        return tuple(map(len, self.axes))

    def settle(self, units: Units, force: bool) -> bool:
        """Say which axis has the units of the long one, and keep the others whole.

        It is the axis along which alone the long one varies, as a tiled one does, or the only one
        that may go at all; else, where `force` is set, the first that may: whole heads.

        Returns:
          Whether that is settled.
        """
        table = units.find(self.flat).reshape(self.sizes)
        free = [k for k, ids in enumerate(self.axes) if len(ids) > 1 and units.find(ids).any()]
        if not table.any():
            lead = None
        elif len(free) <= 1 or force:
            lead = free[0] if free else None
        else:
            lead = next((k for k in free if _varies_along(table, k)), None)
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


def _varies_along(table: np.ndarray, axis: int) -> bool:
    rows = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
    return bool((rows == rows[:, :1]).all())


def reshaped(axes: Axes, new: Sequence[int], units: Units) -> tuple[Axes, list[Product]]:
    """Follow units through a reshape: the new axes, and what is the product of what."""
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
    """Settle what is known by itself first; then force one, which may settle others."""
    left = products
    while left:
        waiting = [product for product in left if not product.settle(units, False)]
        if len(waiting) == len(left):
            left[0].settle(units, True)
            waiting = left[1:]
        left = waiting
    # Units that were joined since must not have taken a row apart.
    before = -1
    while (now := len(np.unique(units.find(np.arange(len(units.parents)))))) != before:
        before = now
        for product in products:
            product.settle(units, True)


def _blocks(old: list[int], new: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Pair runs of axes of equal size, as short as can be; axes of size 1 go where they stand."""
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
