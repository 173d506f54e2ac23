"""Layouts: which axes of a leaf lie along layers, inputs and outputs."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from synflow_jax.structure import Reading, flax_sides
from synflow_jax.trees import Shape, check_int

Stacks = dict[str, tuple[int, ...]]  # path -> axes of layers


class Layout(NamedTuple):
    """The axes of one leaf; those of inputs, outputs and sums never hold those of layers.

    Attributes:
      layers: the axes along which layers are stacked, () for a leaf of one layer.
      inputs: the axes that lie along the inputs of a unit.
      outputs: the axes that lie along the units.
      sums: the axes that a product sums over for one unit.
    """

    layers: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    sums: tuple[int, ...]

    def shape_of_layer(self, shape: Shape) -> Shape:
        """Return the shape of one layer of a leaf."""
        return tuple(size for axis, size in enumerate(shape) if axis not in self.layers)

    def of_layer(self) -> "Layout":
        """Return the layout of one layer, whose axes are numbered without those of layers."""
        own = [[axis - sum(at < axis for at in self.layers) for axis in side] for side in self[1:]]
        return Layout((), *map(tuple, own))

    def in_leaf(self, unit: Shape) -> Shape:
        """Return the shape, in a leaf, of a unit of one layer."""
        sizes = list(unit)
        for axis in sorted(self.layers):
            sizes.insert(axis, 1)
        return tuple(sizes)


def layout_of(path: str, rank: int, stacks: Stacks, reading: Reading | None) -> Layout:
    """Return the layout of a leaf: from the trace, or (…, in, out) where there is none."""
    layers = stacks.get(path, ())
    inputs, outputs = flax_sides(rank, layers)
    sides = (inputs, outputs, inputs)
    if reading is not None:
        use = reading.by_path[path]
        read = (use.inputs, use.outputs, use.sums)
        found = [tuple(axis for axis in side if axis not in layers) for side in read]
        sides = found if found[1] else sides
    return Layout(layers, *sides)


def find_stacks(
    pairs: list[tuple[str, Any]], stacked: Any = (), reading: Reading | None = None
) -> Stacks:
    """Return the axes of layers of the leaves that hold several: as given, and as the trace shows.

    Args:
      pairs: (path, leaf) of all leaves.
      stacked: path -> number of layers, as `stacked_layers` returns it, or paths of leaves whose
        axis 0 is that of layers. What it does not name is as the trace shows.
      reading: of the network, where it is known.
    """
    if isinstance(stacked, str) or not isinstance(stacked, Iterable):
        hint = f": pass [{stacked!r}]" if isinstance(stacked, str) else ""
        raise TypeError(
            "stacked must be what stacked_layers returns, a dict path -> layers, or a list of "
            f"paths, got a {type(stacked).__name__}{hint}"
        )
    table = stacked if isinstance(stacked, Mapping) else dict.fromkeys(stacked)
    traced = {} if reading is None else {p: count.axes for p, count in reading.stacks.items()}
    shapes = {path: tuple(leaf.shape) for path, leaf in pairs}
    unknown = [path for path in table if path not in shapes]
    if unknown:
        raise ValueError(f"stacked must name leaves, and {unknown} are none of {list(shapes)}")
    return traced | {path: _axes_of(path, shapes[path], count) for path, count in table.items()}


def _axes_of(path: str, shape: Shape, count: Any) -> tuple[int, ...]:
    """Return the axes of layers, and check that there are so many."""
    axes = getattr(count, "axes", (0,))
    if count is not None:
        check_int(f"stacked[{path!r}]", count)
    fits = max(axes) < len(shape)
    if not fits or count not in (None, math.prod(shape[axis] for axis in axes)):
        said = "layers" if count is None else f"{count} layers"
        raise ValueError(
            f"stacked must give the layers along an axis of a leaf (axis 0, unless it comes from "
            f"stacked_layers): {path!r} has shape {shape}, and no {said} along axis "
            f"{', '.join(map(str, axes))}"
        )
    return axes
