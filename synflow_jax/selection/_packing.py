"""Packs: small layers of one shape, stacked so that one compiled loop serves all of them.

Deep networks have hundreds of small layers of few shapes, and XLA compiles a loop over each of
them. A pack has a leading axis of layers; a large layer is a pack of one, whose leading axis costs
nothing. Arrays that may be sharded are never stacked.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

SMALL = 2**17  # entries; stacking larger layers costs more time a round than it saves in compiling
Leaves = list[jax.Array]


class Packing(NamedTuple):
    """Which layers are stacked: for each pack, the positions of its layers in tree order."""

    packs: tuple[tuple[int, ...], ...]

    def pack(self, leaves: Leaves) -> Leaves:
        """Stack the leaves of each pack along a new leading axis."""
        members = [[leaves[i] for i in pack] for pack in self.packs]
        return [jnp.stack(few) if len(few) > 1 else few[0][None] for few in members]

    def unpack(self, packed: Leaves) -> Leaves:
        """List the leaves in the order of the layers, the inverse of `pack`."""
        return [
            lax.squeeze(packed[pack], (0,)) if len(self.packs[pack]) == 1 else packed[pack][row]
            for pack, row in self._places()
        ]

    def in_order(self, rows: Leaves) -> jax.Array:
        """Join arrays of one number a layer, one array a pack, in the order of the layers."""
        joined = jnp.concatenate(rows)
        order = np.argsort([i for pack in self.packs for i in pack])
        return joined if (order == np.arange(len(order))).all() else joined[order]

    def rows_of(self, numbers: jax.Array) -> Leaves:
        """Split an array of one number a layer into one array a pack, the inverse of `in_order`."""
        return [numbers[np.array(pack)] for pack in self.packs]

    def of_group(self, members: Sequence[int]) -> list[int]:
        """List the positions of the packs of a group of layers; each pack is of one group."""
        return [at for at, pack in enumerate(self.packs) if pack[0] in members]

    def starts(self, sizes: tuple[int, ...]) -> list[np.ndarray]:
        """Return the flat index of the first entry of each layer, one array a pack."""
        first = np.cumsum((0, *sizes))
        return [first[list(pack)] for pack in self.packs]

    def _places(self) -> list[tuple[int, int]]:
        """List (pack, row in the pack) of each layer."""
        found = {i: (p, row) for p, pack in enumerate(self.packs) for row, i in enumerate(pack)}
        return [found[i] for i in sorted(found)]


def packing_of(
    leaves: list[Any], shapes: tuple[tuple[int, ...], ...], groups: tuple[int, ...] = ()
) -> Packing:
    """Choose which layers to stack: small ones of one shape, dtype and group, on one device.

    Args:
      leaves: the layers.
      shapes: the shapes of the arrays that will be stacked: of the leaves, or of their units.
      groups: the group of each layer; layers of different groups are not stacked.
    """
    packs: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        together = math.prod(shapes[i]) <= SMALL and _on_one_device(leaf)
        key = (shapes[i], leaf.dtype, groups[i] if groups else 0)
        packs.setdefault(key if together else i, []).append(i)
    return Packing(tuple(map(tuple, packs.values())))


def _on_one_device(leaf: Any) -> bool:
    """Whether a leaf is known to be on one device; under a trace, only if there is just one."""
    if jax.device_count() == 1 or not isinstance(leaf, jax.Array):
        return True
    return not isinstance(leaf, Tracer) and len(leaf.sharding.device_set) == 1
