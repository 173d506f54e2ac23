"""Packs: small layers of one shape, stacked so that one compiled loop serves all of them.

Deep networks have hundreds of small layers of few shapes, and XLA compiles a loop over each of
them. A pack has a leading axis of layers; a large layer is a pack of one, whose leading axis costs
nothing. A leaf that holds the layers of a stack is a pack already, once their axis is in front.
Arrays that may be sharded are never stacked.
"""

import math
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from synflow_jax.selection._counting import count_dtype, count_true
from synflow_jax.trees import as_if_auto, whole_everywhere

SMALL = 2**17  # entries; stacking larger layers costs more time a round than it saves in compiling
Leaves = list[jax.Array]
LayerAxes = tuple[tuple[int, ...], tuple[int, ...]]  # axes of layers, and their lengths


class Packing(NamedTuple):
    """How leaves become packs of layers.

    Attributes:
      packs: for each pack, the positions of its leaves in tree order.
      stacks: of each leaf, the axes of its layers and their lengths; those of a leaf of one layer
        are empty. A stack is a pack by itself and keeps its axes, so that flat order is the leaf's;
        `in_front` moves its layers to the front where they are told apart. () where no leaf is one.
    """

    packs: tuple[tuple[int, ...], ...]
    stacks: tuple[LayerAxes, ...] = ()

    @property
    def of_packs(self) -> tuple[LayerAxes, ...]:
        """The axes of layers, and their lengths, of each pack."""
        return tuple(self.stacks[pack[0]] if self.stacks else ((), ()) for pack in self.packs)

    @property
    def layers(self) -> tuple[tuple[int, ...], ...]:
        """The positions, among all layers, of the rows of each pack."""
        if not self.stacks:
            return self.packs
        counts = [math.prod(lengths) for _, lengths in self.stacks]
        ends = np.cumsum(counts).tolist()
        own = [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
        return tuple(tuple(layer for i in pack for layer in own[i]) for pack in self.packs)

    def pack(self, leaves: Leaves) -> Leaves:
        """Stack the leaves of each pack along a new leading axis."""
        members = [[leaves[i] for i in pack] for pack in self.packs]
        return [_rows(few, axes) for few, (axes, _) in zip(members, self.of_packs, strict=True)]

    def unpack(self, packed: Leaves) -> Leaves:
        """List the leaves in the order of the tree, the inverse of `pack`."""
        stacks = self.of_packs
        return [
            packed[p] if stacks[p][0] else _row(packed[p], row, len(self.packs[p]))
            for p, row in self._places()
        ]

    def in_front(self, packed: Leaves) -> Leaves:
        """Move the layers of each stack to one axis in front."""
        return [
            _to_front(array, axes) for array, (axes, _) in zip(packed, self.of_packs, strict=True)
        ]

    def in_place(self, packed: Leaves) -> Leaves:
        """Move the layers of each stack back to their axes, the inverse of `in_front`."""
        return [
            _from_front(array, *stack) for array, stack in zip(packed, self.of_packs, strict=True)
        ]

    def in_order(self, rows: Leaves) -> jax.Array:
        """Join arrays of one number a layer, one array a pack, in the order of the layers."""
        joined = jnp.concatenate(list(map(whole_everywhere, rows)))
        order = np.argsort([i for pack in self.layers for i in pack])
        return joined if (order == np.arange(len(order))).all() else joined[order]

    def rows_of(self, numbers: jax.Array) -> Leaves:
        """Split an array of one number a layer into one array a pack, the inverse of `in_order`."""
        return [numbers[np.array(pack)] for pack in self.layers]

    def of_group(self, members: Sequence[int]) -> list[int]:
        """List the positions of the packs of a group of layers; each pack is of one group."""
        return [at for at, pack in enumerate(self.layers) if pack[0] in members]

    def starts(self, sizes: tuple[int, ...]) -> list[np.ndarray]:
        """Return the flat index of the first entry of each layer, of a stack that of all of it."""
        first = np.cumsum((0, *sizes))
        pairs = zip(self.layers, self.of_packs, strict=True)
        return [first[own[0]] if axes else first[list(own)] for own, (axes, _) in pairs]

    def _places(self) -> list[tuple[int, int]]:
        """List (pack, row in the pack) of each leaf."""
        found = {i: (p, row) for p, pack in enumerate(self.packs) for row, i in enumerate(pack)}
        return [found[i] for i in sorted(found)]


def _to_front(array: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    front = jnp.moveaxis(array, axes, range(len(axes)))
    return front if len(axes) < 2 else front.reshape(-1, *front.shape[len(axes) :])


def _from_front(array: jax.Array, axes: tuple[int, ...], lengths: tuple[int, ...]) -> jax.Array:
    front = array if len(axes) < 2 else array.reshape(*lengths, *array.shape[1:])
    return jnp.moveaxis(front, range(len(axes)), axes)


def _rows(few: Leaves, axes: tuple[int, ...]) -> jax.Array:
    if axes:
        return few[0]
    return jnp.stack(few) if len(few) > 1 else few[0][None]


def _row(pack: jax.Array, row: int, count: int) -> jax.Array:
    return lax.squeeze(pack, (0,)) if count == 1 else pack[row]


def packing_of(
    leaves: list[Any],
    shapes: tuple[tuple[int, ...], ...],
    groups: tuple[Hashable, ...] = (),
    stacks: tuple[LayerAxes, ...] = (),
) -> Packing:
    """Choose which leaves to stack: small ones of one shape, dtype and group, on one device.

    Args:
      leaves: the prunable leaves.
      shapes: the shapes of the arrays that will be stacked: of the leaves, or of their units.
      groups: the group of each leaf; leaves of different groups are not stacked.
      stacks: of each leaf, the axes of its layers and their lengths.
    """
    packs: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        single = not stacks or not stacks[i][0]
        together = single and math.prod(shapes[i]) <= SMALL and _on_one_device(leaf)
        key = (shapes[i], leaf.dtype, groups[i] if groups else 0)
        packs.setdefault(key if together else i, []).append(i)
    return Packing(
        tuple(map(tuple, packs.values())), stacks if any(axes for axes, _ in stacks) else ()
    )


def _on_one_device(leaf: Any) -> bool:
    """Whether a leaf is known to be on one device; under a trace, only if there is just one."""
    if jax.device_count() == 1 or not isinstance(leaf, jax.Array):
        return True
    return not isinstance(leaf, Tracer) and len(leaf.sharding.device_set) == 1


@partial(jax.jit, static_argnames=("packing",))
def count_layers(masks: Leaves, packing: Packing) -> jax.Array:
    """Count the kept weights of each layer: int32[L], or int64[L] if one has too many entries."""
    packed, count = (
        packing.in_front(packing.pack(masks)),
        jax.vmap(lambda mask: count_true([(mask,)])[0]),
    )
    with jax.enable_x64(True):
        counts = packing.in_order([as_if_auto(count, pack, replicated=True) for pack in packed])
        most = max(math.prod(pack.shape[1:]) for pack in packed)
        return lax.convert_element_type(counts, count_dtype(most))
