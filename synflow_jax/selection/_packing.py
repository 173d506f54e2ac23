"""Layers side by side: small ones of one shape stacked, so that one kernel serves them all.

Deep networks have hundreds of small layers of few shapes, and XLA compiles every loop over every
one of them. Each pack has a leading axis of layers; a large layer is a pack of its own, of which
the leading axis costs nothing. What is laid out across devices is never stacked.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

SMALL = 2**17  # entries; stacking larger layers costs more time a round than it saves once
Leaves = list[jax.Array]


class Packing(NamedTuple):
    """Which layers lie side by side: positions in the list of layers, a tuple a pack."""

    packs: tuple[tuple[int, ...], ...]

    def pack(self, leaves: Leaves) -> Leaves:
        """Stack the leaves of each pack."""
        chosen = [[leaves[i] for i in pack] for pack in self.packs]
        return [jnp.stack(few) if len(few) > 1 else few[0][None] for few in chosen]

    def unpack(self, packed: Leaves) -> Leaves:
        """Take the leaves apart again."""
        return [
            lax.squeeze(packed[pack], (0,)) if len(self.packs[pack]) == 1 else packed[pack][row]
            for pack, row in self._places()
        ]

    def in_order(self, rows: Leaves) -> jax.Array:
        """Put one number a layer, listed by pack, in the order of the layers."""
        joined = jnp.concatenate(rows)
        order = np.argsort([i for pack in self.packs for i in pack])
        return joined if (order == np.arange(len(order))).all() else joined[order]

    def rows_of(self, numbers: jax.Array) -> Leaves:
        """List one number a layer by pack."""
        return [numbers[np.array(pack)] for pack in self.packs]

    def of_group(self, members: Sequence[int]) -> list[int]:
        """List the packs of a group of layers; no pack holds layers of two."""
        return [at for at, pack in enumerate(self.packs) if pack[0] in members]

    def starts(self, sizes: tuple[int, ...]) -> list[np.ndarray]:
        """Give the flat index of the first entry of each layer, an array a pack."""
        first = np.cumsum((0, *sizes))
        return [first[list(pack)] for pack in self.packs]

    def _places(self) -> list[tuple[int, int]]:
        found = {i: (p, row) for p, pack in enumerate(self.packs) for row, i in enumerate(pack)}
        return [found[i] for i in sorted(found)]


def packing_of(
    leaves: list[Any], shapes: tuple[tuple[int, ...], ...], groups: tuple[int, ...] = ()
) -> Packing:
    """Stack small layers of one shape and group, where it is known that all lie on one device.

    Shapes are those of what is stacked: of the leaves, or of their units.
    """
    packs: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        together = math.prod(shapes[i]) <= SMALL and _on_one_device(leaf)
        key = (shapes[i], leaf.dtype, groups[i] if groups else 0)
        packs.setdefault(key if together else i, []).append(i)
    return Packing(tuple(map(tuple, packs.values())))


def _on_one_device(leaf: Any) -> bool:
    if jax.device_count() == 1 or not isinstance(leaf, jax.Array):
        return True
    return not isinstance(leaf, Tracer) and len(leaf.sharding.device_set) == 1
