"""The space of NAS-Bench-201 in plain JAX: networks of one cell, given as an array.

Dong and Yang 2020 (arXiv 2001.00326). A cell has four nodes; each of the six edges between an
earlier and a later node holds one of five operations, 5⁶ = 15,625 cells. A network is a stem of 16
channels, three stages of five such cells at 16, 32 and 64 channels with a residual block of stride
2 between two stages, an average over the image and a linear layer. Images are (batch, height,
width, channels).

Params hold both kernels of every edge, whatever the cell, so that one compiled program serves all
cells. Layers have no bias. A norm is a function of images, with scale 1 and shift 0.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments.models.resnet import uniform_fan_in

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (from, to), in the benchmark's order
CHANNELS = (16, 32, 64)
CELLS = 5  # of a stage

SIZES = {"one": 1, "three": 3}  # of the kernels
PLACES = {"one": 2, "three": 3}  # of their operations in OPERATIONS
SPACE = len(OPERATIONS) ** len(EDGES)

Params = dict[str, Any]
Norm = Callable[[Array], Array]
Cell = Array | tuple[int, ...]


def cell_of(number: int) -> tuple[int, ...]:
    """Return the cell of a number below 15,625: its base-5 digits, one an edge."""
    return tuple(int(digit) for digit in np.unravel_index(number, (len(OPERATIONS),) * len(EDGES)))


def written(cell: tuple[int, ...]) -> str:
    """Format a cell as the benchmark does: |op~from| of each node, joined by +."""
    nodes: dict[int, str] = {}
    for operation, (start, end) in zip(cell, EDGES, strict=True):
        nodes[end] = nodes.get(end, "|") + f"{OPERATIONS[operation]}~{start}|"
    return "+".join(nodes.values())


def connects(cell: tuple[int, ...]) -> bool:
    """Whether a path leads through the cell, from its first node to its last."""
    reached = {0}
    for operation, (start, end) in zip(cell, EDGES, strict=True):
        if operation and start in reached:
            reached.add(end)
    return 3 in reached


def cost(cell: tuple[int, ...], params: Params, side: int = 32) -> tuple[int, int]:
    """Count the weights of a cell's network, and its multiply-adds for one square image."""
    parts = list(_parts(cell, params, side))
    return sum(size for size, _ in parts), sum(size * places for size, places in parts)


def _parts(cell: tuple[int, ...], params: Params, side: int) -> Iterator[tuple[int, int]]:
    """Yield the number of weights of each used part, and the pixels where each is applied."""
    for name, part in params.items():
        halved = int(name[-1]) if name[-1].isdigit() else 0
        places = 1 if name == "classifier" else (side >> halved) ** 2
        if name.startswith("stage"):
            for kind, operation in PLACES.items():
                yield part[kind].size * cell.count(operation) // len(EDGES), places
        else:
            yield sum(leaf.size for leaf in jax.tree.leaves(part)), places


def no_norm(x: Array) -> Array:
    """Return images unchanged: a network without norms."""
    return x


def batch_norm(x: Array) -> Array:
    """Normalise by the statistics of the batch itself, as BatchNorm in training mode does."""
    mean = jnp.mean(x, (0, 1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), (0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)


def initialise(
    key: Array,
    classes: int = 10,
    channels: tuple[int, ...] = CHANNELS,
    cells: int = CELLS,
    dtype: Any = jnp.float32,
) -> Params:
    """Draw the params of all networks of the space from PyTorch's default, U(±1/√fan_in).

    Args:
      key: a random key.
      classes: how many logits.
      channels: of the stages.
      cells: of a stage.
      dtype: of the params.

    Returns:
      stem, reduce1, …, classifier, and stage0, … with "one" (cells, edges, 1, 1, C, C) and "three"
      (cells, edges, 3, 3, C, C).
    """
    outline = _shapes(classes, channels, cells)
    leaves, treedef = jax.tree.flatten(outline, is_leaf=lambda x: isinstance(x, tuple))
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten([_draw(*pair, dtype) for pair in zip(keys, leaves, strict=True)])


def _shapes(classes: int, channels: tuple[int, ...], cells: int) -> Params:
    shapes: Params = {"stem": (3, 3, 3, channels[0])}
    for stage, wide in enumerate(channels):
        each = (cells, len(EDGES))
        shapes[f"stage{stage}"] = {name: (*each, n, n, wide, wide) for name, n in SIZES.items()}
        if stage:
            thin = channels[stage - 1]
            shapes[f"reduce{stage}"] = {
                "first": (3, 3, thin, wide),
                "second": (3, 3, wide, wide),
                "shortcut": (1, 1, thin, wide),
            }
    shapes["classifier"] = {"kernel": (channels[-1], classes)}
    return shapes


def _draw(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    stacked = shape[:-4]  # axes of stacked kernels, each of which has its own fan in
    count = math.prod(stacked)
    one = shape[len(stacked) :]
    draws = jax.vmap(lambda k: uniform_fan_in(k, one, dtype))(jax.random.split(key, count))
    return draws.reshape(shape)


def network(cell: Cell, params: Params, x: Array, norm: Norm = no_norm) -> Array:
    """Map images to logits through the network of a cell.

    Args:
      cell: the operation of each edge, indices into OPERATIONS of shape (6,); a tuple of ints
        builds a network of these operations alone.
      params: as `initialise` draws them.
      x: (batch, height, width, 3).
      norm: normalisation after every convolution and before the average.

    Returns:
      Logits, (batch, classes).
    """
    x = norm(convolve(x, params["stem"]))
    for stage in range(sum(name.startswith("stage") for name in params)):
        if stage:
            x = reduced(params[f"reduce{stage}"], x, norm)
        x, _ = lax.scan(
            lambda x, kernels: (through_cell(cell, kernels, x, norm), None),
            x,
            params[f"stage{stage}"],
        )
    return jnp.mean(jax.nn.relu(norm(x)), (1, 2)) @ params["classifier"]["kernel"]


def through_cell(cell: Cell, kernels: Params, x: Array, norm: Norm) -> Array:
    """Run a cell: each node is the sum of its incoming edges; return the last node."""
    nodes = [x]
    for node in range(1, 4):
        nodes.append(jnp.zeros_like(x))
        for edge, (start, end) in enumerate(EDGES):
            if end == node:
                here = {name: kernels[name][edge] for name in SIZES}
                nodes[node] += along_edge(cell[edge], here, nodes[start], norm)
    return nodes[-1]


def along_edge(operation: Array | int, kernels: Params, x: Array, norm: Norm) -> Array:
    """Run the operation of an edge; under vmap all five run and one is selected."""

    def convolved(name: str) -> Callable[[Array, Params], Array]:
        return lambda x, kernels: norm(convolve(jax.nn.relu(x), kernels[name]))

    branches = (
        lambda x, _: jnp.zeros_like(x),
        lambda x, _: x,
        convolved("one"),
        convolved("three"),
        lambda x, _: average(x),
    )
    if isinstance(operation, int):
        return branches[operation](x, kernels)
    return lax.switch(operation, branches, x, kernels)


def convolve(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolve with (size − 1) / 2 zeros on every side."""
    border = (kernel.shape[0] - 1) // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(border, border)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def average(x: Array) -> Array:
    """Average over windows of 3×3, leaving out pixels beyond the border."""
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return _windows(x) / _windows(ones)


def _windows(x: Array) -> Array:
    for axis in (1, 2):
        widths = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        padded, size = jnp.pad(x, widths), x.shape[axis]
        x = sum(
            (lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(1, 3)),
            start=lax.slice_in_dim(padded, 0, size, axis=axis),
        )
    return x


def reduced(kernels: Params, x: Array, norm: Norm) -> Array:
    """Halve the image and double the channels, in a residual block."""
    y = norm(convolve(jax.nn.relu(x), kernels["first"], 2))
    y = norm(convolve(jax.nn.relu(y), kernels["second"]))
    batch, height, width, depth = x.shape
    quarters = x.reshape(batch, height // 2, 2, width // 2, 2, depth)
    return convolve(jnp.mean(quarters, (2, 4)), kernels["shortcut"]) + y
