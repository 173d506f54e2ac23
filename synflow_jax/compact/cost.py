"""What a network costs: multiplications of its matrix products and convolutions."""

import math

import numpy as np

from synflow_jax.compact.follow import Followed
from synflow_jax.compact.needed import stays


def multiply_adds(state: Followed, kept: np.ndarray) -> int:
    """Count the multiply-adds of one example on the units that stay."""

    def sizes(number: int) -> list[int]:
        return [int(stay.sum()) for stay in stays(state, number, kept)]

    total = 0
    for step in state.listing.every_step():
        if step.name == "dot_general":
            contracted = step.eqn.params["dimension_numbers"][0][0]
            left = sizes(step.operands[0])
            total += math.prod(sizes(step.results[0])) * math.prod(left[k] for k in contracted)
        elif step.name == "conv_general_dilated":
            numbers = step.eqn.params["dimension_numbers"]
            kernel = sizes(step.operands[1])
            inside = math.prod(n for k, n in enumerate(kernel) if k != numbers.rhs_spec[0])
            total += math.prod(sizes(step.results[0])) * inside
    return total
