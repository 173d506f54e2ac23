"""The state of following a function: the units along each axis of each of its values."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synflow_jax.compaction._reshape import Product
from synflow_jax.compaction._units import WHOLE, Axes, Stays, Units
from synflow_jax.jaxpr import Listing


@dataclass
class Followed:
    """The units of every value of a listing.

    Attributes:
      listing: the steps of the function, and what their numbers stand for.
      units: which units are joined.
      axes: the units along each axis of a value, by its number.
      lost: the equations that could not be followed.
      products: axes that a reshape merged or split; `follow` settles them at the end.
    """

    listing: Listing
    units: Units = field(default_factory=Units)
    axes: dict[int, Axes] = field(default_factory=dict)
    lost: list[Any] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of a value."""
        return self.listing.shape(number)

    def of(self, number: int) -> Axes:
        """Return the units of a value; a constant gets new ones when it is first asked for."""
        if number not in self.axes:
            self.axes[number] = tuple(map(self.units.fresh, self.shape(number)))
        return self.axes[number]

    def names(self, number: int) -> Axes:
        """Return the names of the units of a value: joined units have the same."""
        return tuple(self.units.find(ids) for ids in self.of(number))

    def stays(self, number: int, kept: np.ndarray) -> Stays:
        """Return which positions of a value stay, for a bool by number of unit."""
        return tuple(kept[ids] for ids in self.names(number))

    def removed(self, number: int, kept: np.ndarray) -> Axes:
        """Return the names of the units of a value that are removed, and WHOLE for the others."""
        return tuple(np.where(kept[ids], WHOLE, ids) for ids in self.names(number))

    def keep_whole(self, number: int) -> Axes:
        """Keep every position of a value, and return its units."""
        for ids in self.of(number):
            self.units.keep_whole(ids)
        return self.of(number)
