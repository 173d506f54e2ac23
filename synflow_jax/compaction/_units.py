"""Units: positions along axes that stay or go together."""

import numpy as np

WHOLE = 0  # the unit of all that must stay


class Units:
    """Numbered units, and which of them are one; the smallest number of those names them."""

    def __init__(self) -> None:
        self.parents = np.zeros(1, np.int64)

    def fresh(self, count: int) -> np.ndarray:
        """Number as many new units."""
        first = len(self.parents)
        self.parents = np.concatenate([self.parents, np.arange(first, first + count)])
        return np.arange(first, first + count)

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Give the names of units."""
        found = self.parents[ids]
        while not np.array_equal(found, above := self.parents[found]):
            found = above
        return found

    def join(self, a: np.ndarray, b: np.ndarray) -> None:
        """Let units be one, place by place."""
        while not np.array_equal(one := self.find(a), other := self.find(b)):
            # Of several partners, a unit takes the least here, and finds the others next time.
            np.minimum.at(self.parents, np.maximum(one, other), np.minimum(one, other))

    def keep_whole(self, ids: np.ndarray) -> None:
        """Let units stay, whatever they carry."""
        self.join(ids, np.full_like(ids, WHOLE))
