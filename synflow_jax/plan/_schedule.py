"""Schedules: the density after round k of n, or the share of the flow that a round may prune."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from synflow_jax.trees import check_int


def exponential(k: Any, rounds: int, rho: Any) -> Any:
    """Prune the same share of what is left in every round, d_k = ρ^(−k/n).

    Args:
      k: the round, 1 … n; a number or an array.
      rounds: n.
      rho: the compression ratio ρ, at least 1.

    Returns:
      The density after round k.

    Example:
      >>> round(exponential(1, 2, 100.0), 6)
      0.1

    Source: Tanaka et al. 2020, section 6, algorithm 1.
    """
    return rho ** (-k / rounds)


def linear(k: Any, rounds: int, rho: Any) -> Any:
    """Prune the same number of weights in every round, d_k = 1 − (1 − 1/ρ)·k/n.

    Args:
      k: the round, 1 … n; a number or an array.
      rounds: n.
      rho: the compression ratio ρ, at least 1.

    Returns:
      The density after round k.

    Example:
      >>> linear(1, 2, 4.0)
      0.625

    Source: Tanaka et al. 2020, appendix (the linear schedule of figure 7).
    """
    return 1 - (1 - 1 / rho) * (k / rounds)


def cubic(k: Any, rounds: int, rho: Any) -> Any:
    """Prune more in early rounds than in late ones, d_k = 1/ρ + (1 − 1/ρ)·(1 − k/n)³.

    Args:
      k: the round, 1 … n; a number or an array.
      rounds: n.
      rho: the compression ratio ρ, at least 1.

    Returns:
      The density after round k.

    Example:
      >>> cubic(1, 2, 2.0)
      0.5625

    Source: Zhu and Gupta 2017 (arXiv 1710.01878), equation 1, from a sparsity of 0 to 1 − 1/ρ.
    """
    return 1 / rho + (1 - 1 / rho) * (1 - k / rounds) ** 3


def one_shot(k: Any, rounds: int, rho: Any) -> Any:
    """Prune once, d_1 = 1/ρ: `prune` then runs a single round, whatever n is.

    Args:
      k: the round; not used.
      rounds: not used.
      rho: the compression ratio ρ, at least 1.

    Returns:
      The density 1/ρ.

    Example:
      >>> one_shot(1, 1, 4.0)
      0.25
    """
    del rounds
    return 0 * k + 1 / rho


@dataclass(frozen=True)
class Certified:
    """What `certified` returns; equal settings share a compiled program."""

    alpha: float
    most: int


def certified(alpha: float = 0.5, *, most: int = 1000) -> Certified:
    """Prune in each round only what provably leaves flow: the lowest scores with ΣS ≤ α·R.

    Pruning the set P costs at most the flow through it, R(after) ≥ R(before) − ΣS(P), so rounds
    that prune less than R never cut the network: a plain chain of L layers can be pruned to one
    weight a layer, ρ = N/L. Every round prunes the weights without flow and at least the lowest
    one with flow, unless that one carries all of R. In flow mode (with `branches` other than None)
    the smallest flow of a layer, an output array or a floating input takes the place of R, so that
    none of them loses its last path; rounds can go on until layer l keeps F_l/min F weights, F_l
    being its flow.

    The guarantee is for flow from the input to the output: sources (leaves that are added to a
    signal, such as biases and means, and embeddings beside floating inputs) count as 0 while
    scoring. It needs a saliency that measures flow (`synflow`, `synflow_l2`) and scope=globally,
    and does not use `rounds`. Rounds end at the target. Where they cannot reach it, eager use
    raises an error; under a trace more weights stay than asked, which `PruneInfo.kept` shows.

    Args:
      alpha: α, the share of the flow that a round may prune; from 0.5 up to, not including, 1.
      most: the largest number of rounds.

    Returns:
      A value for the argument `schedule`.

    Raises:
      ValueError: alpha or most is out of range.
      TypeError: alpha or most is not a number.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import prune, synflow_saliency
      >>> weights = {"w": jnp.array([[1.0, -2.0]]), "v": jnp.array([[3.0], [0.5]])}
      >>> saliency = synflow_saliency(lambda p, x: x @ p["w"] @ p["v"], (1,))
      >>> masks, info = prune(weights, saliency, 2.0, schedule=certified())
      >>> masks["w"].tolist(), info.share.tolist(), bool(info.certified)
      ([[True, False]], [0.5], True)

    Source: own. R is a sum over paths of products that are not negative, and every path that is
    lost holds a pruned weight. For the Maximal Critical Compression that it reaches: Tanaka et al.
    2020, section 3.
    """
    if not isinstance(alpha, int | float | np.number) or isinstance(alpha, bool):
        raise TypeError(f"alpha must be a number, 0.5 <= alpha < 1, got a {type(alpha).__name__}")
    if not (math.isfinite(alpha) and 0.5 <= alpha < 1):
        raise ValueError(f"alpha must be at least 0.5 and below 1, got {alpha}")
    check_int("most", most)
    return Certified(float(alpha), int(most))
