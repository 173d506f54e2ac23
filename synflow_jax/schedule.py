"""Schedules: how dense the network is after round k of n."""

from typing import Any


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


def one_shot(k: Any, rounds: int, rho: Any) -> Any:
    """Prune once, d_1 = 1/ρ; with this schedule `prune` runs one round, whatever n is.

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
