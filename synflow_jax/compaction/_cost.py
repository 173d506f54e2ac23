"""What a network costs, as a function of the units that stay: sums of products of widths."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synflow_jax.compaction._follow import Followed
from synflow_jax.compaction._reshape import Axes
from synflow_jax.compaction._units import WHOLE


class Term(NamedTuple):
    """A product of widths: `of_each` for every position that stays along all the axes."""

    of_each: int
    axes: Axes  # names of the units along each


@dataclass(frozen=True)
class Network:
    """A network whose units are followed: what a budget is asked about."""

    state: Followed
    leaves: tuple[int, ...]  # the numbers of the leaves of its params

    def names(self, number: int) -> Axes:
        """Name the units of a value."""
        return tuple(self.state.units.find(ids) for ids in self.state.of(number))


def multiply_adds(network: Network) -> list[Term]:
    """Count the multiply-adds of one example: those of matrix products and convolutions.

    What is inside of a loop, such as a scan over layers, is not followed, and not counted.

    Args:
      network: with its units followed, as `slim` has it.

    Returns:
      A value for the argument `budget` of `slim` is this function itself.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import slim
      >>> weights = {"w": jnp.ones((2, 8)), "v": jnp.ones((8, 1))}
      >>> slim(weights, lambda p, x: x @ p["w"] @ p["v"], (2,), 4.0).multiply_adds
      (24, 6)
    """
    terms = []
    for step in network.state.listing.every_step():
        if step.name == "dot_general":
            contracted = step.eqn.params["dimension_numbers"][0][0]
            left = network.names(step.operands[0])
            inside = tuple(left[k] for k in contracted)
        elif step.name == "conv_general_dilated":
            numbers = step.eqn.params["dimension_numbers"]
            kernel = network.names(step.operands[1])
            inside = tuple(ids for k, ids in enumerate(kernel) if k != numbers.rhs_spec[0])
        else:
            continue
        terms.append(Term(1, (*network.names(step.results[0]), *inside)))
    return terms


def entries(network: Network) -> list[Term]:
    """Count the entries of all arrays of the params.

    Args:
      network: with its units followed, as `slim` has it.

    Returns:
      A value for the argument `budget` of `slim` is this function itself.

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
    """Count the bytes of all arrays of the params.

    Args:
      network: with its units followed, as `slim` has it.

    Returns:
      A value for the argument `budget` of `slim` is this function itself.

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
    """Add up what the units that stay cost."""
    return sum(of_each * math.prod(int(kept[ids].sum()) for ids in axes) for of_each, axes in terms)


def cost_by_unit(terms: list[Term], kept: np.ndarray) -> np.ndarray:
    """Say what would be saved if one unit went, by number of unit; several save less together."""
    saved = np.zeros(len(kept))
    for of_each, axes in terms:
        widths = [int(kept[ids].sum()) for ids in axes]
        for k, ids in enumerate(axes):
            others = math.prod(width for j, width in enumerate(widths) if j != k)
            np.add.at(saved, ids, float(of_each * others))
    saved[WHOLE] = 0
    return saved
