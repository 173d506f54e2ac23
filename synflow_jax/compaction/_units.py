"""Units: positions along axes that stay or go together."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Axes = tuple[np.ndarray, ...]  # for each axis of a value, the unit of each position
Stays = tuple[np.ndarray, ...]  # for each axis of a value, whether each position stays
WHOLE = 0  # the unit that always stays; positions that must stay are joined with it


class Units:
    """Numbered units in a union-find: joined units share the smallest of their numbers as name."""

    def __init__(self) -> None:
        self.parents = np.zeros(1, np.int64)

    def fresh(self, count: int) -> np.ndarray:
        """Number new units, as many as asked for."""
        first = len(self.parents)
        self.parents = np.concatenate([self.parents, np.arange(first, first + count)])
        return np.arange(first, first + count)

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Return the names of units."""
        found = self.parents[ids]
        while not np.array_equal(found, above := self.parents[found]):
            found = above
        return found

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Join the units of two arrays, position by position."""
        while not np.array_equal(one := self.find(a), other := self.find(b)):
            # A unit with several partners takes the least here, and the others in the next pass.
            np.minimum.at(self.parents, np.maximum(one, other), np.minimum(one, other))

    def keep_whole(self, ids: np.ndarray) -> None:
        """Join units with WHOLE, so that they stay."""
        self.join(ids, np.full_like(ids, WHOLE))


def whole_axis(size: int) -> np.ndarray:
    """Return the units of an axis of which every position stays."""
    return np.full(size, WHOLE)


def taken(array: Any, stays: Stays) -> Any:
    """Return an array without the positions that are removed along each axis."""
    for axis, stay in enumerate(stays):
        if not stay.all():
            places = np.flatnonzero(stay)
            if isinstance(array, Tracer):
                array = jnp.take(array, places, axis, unique_indices=True, mode="clip")
            else:
                array = np.take(np.asarray(array), places, axis)
    return array


def widths(stays: Stays) -> tuple[int, ...]:
    """Count the positions that stay along each axis."""
    return tuple(int(stay.sum()) for stay in stays)
