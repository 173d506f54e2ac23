"""What a network costs, as a function of the units that stay: a sum of products of widths."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synflow_jax.compaction._followed import Followed
from synflow_jax.compaction._primitives import primitive_of
from synflow_jax.compaction._units import WHOLE, Axes


class Term(NamedTuple):
    """A product of widths, in which each width counts the positions that stay along an axis.

    Attributes:
      of_each: a constant factor.
      axes: the names of the units along each axis.
    """

    of_each: int
    axes: Axes


@dataclass(frozen=True)
class Network:
    """A network whose units are followed: the argument of a budget.

    Attributes:
      state: the units of every value.
      leaves: the numbers of the leaves of its params.
    """

    state: Followed
    leaves: tuple[int, ...]

    def names(self, number: int) -> Axes:
        """Return the names of the units of a value."""
        return self.state.names(number)


def multiply_adds(network: Network) -> list[Term]:
    """Count the multiply-adds of one example, of its matrix products and convolutions.

    Those inside of a loop, such as a scan over layers, are not counted: loops are not followed.

    Args:
      network: a network whose units are followed; `slim` builds it.

    Returns:
      Products of widths that add up to the count. As `budget`, pass the function itself to `slim`.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import slim
      >>> weights = {"w": jnp.ones((2, 8)), "v": jnp.ones((8, 1))}
      >>> slim(weights, lambda p, x: x @ p["w"] @ p["v"], (2,), 4.0).multiply_adds
      (24, 6)
    """
    pairs = [(step, primitive_of(step).cost) for step in network.state.listing.every_step()]
    return [Term(1, cost(network.state, step)) for step, cost in pairs if cost]


def entries(network: Network) -> list[Term]:
    """Count the entries of all leaves of the params.

    Args:
      network: a network whose units are followed; `slim` builds it.

    Returns:
      Products of widths that add up to the count. As `budget`, pass the function itself to `slim`.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import slim
      >>> weights = {"w": jnp.ones((2, 8)), "v": jnp.ones((8, 1))}
      >>> small = slim(weights, lambda p, x: x @ p["w"] @ p["v"], (2,), 8.0, budget=entries)
      >>> small.params["w"].size + small.params["v"].size
      3
    """
    return [Term(1, network.names(number)) for number in network.leaves]


def num_bytes(network: Network) -> list[Term]:
    """Count the bytes of all leaves of the params.

    Args:
      network: a network whose units are followed; `slim` builds it.

    Returns:
      Products of widths that add up to the count. As `budget`, pass the function itself to `slim`.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import slim
      >>> weights = {"w": jnp.ones((2, 8)), "v": jnp.ones((8, 1))}
      >>> small = slim(weights, lambda p, x: x @ p["w"] @ p["v"], (2,), 8.0, budget=num_bytes)
      >>> small.params["w"].nbytes + small.params["v"].nbytes
      12
    """
    avals = network.state.listing.avals
    return [Term(avals[n].dtype.itemsize, network.names(n)) for n in network.leaves]


def cost_of(terms: list[Term], kept: np.ndarray) -> int:
    """Return the cost of the units that stay."""
    return sum(of_each * math.prod(int(kept[ids].sum()) for ids in axes) for of_each, axes in terms)


def cost_by_unit(terms: list[Term], kept: np.ndarray) -> np.ndarray:
    """Return what removing each unit alone would save, by number of unit.

    Removing several at once saves less than the sum.
    """
    saved = np.zeros(len(kept))
    for of_each, axes in terms:
        widths = [int(kept[ids].sum()) for ids in axes]
        for k, ids in enumerate(axes):
            others = math.prod(width for j, width in enumerate(widths) if j != k)
            np.add.at(saved, ids, float(of_each * others))
    saved[WHOLE] = 0
    return saved
