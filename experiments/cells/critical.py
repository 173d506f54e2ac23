"""The critical compression of one method on one network, by bisection."""

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.cells.methods import METHODS, ROUNDS, TEMPERATURE, OutOfReachError
from experiments.cells.network import Network
from experiments.records.rows import Row
from experiments.training.imp import as_given
from synflow_jax import CollapseWarning, UncertifiedWarning, cross_entropy, prune
from synflow_jax.measure import critical_compression, max_compression
from synflow_jax.saliency import grasp_saliency, snip_saliency

ONCE = {"snip", "grasp"}  # in one round their scores are the same at every ρ


def rounds(method: str, asked: int | None) -> int:
    """Return how often a method scores and prunes."""
    return asked or ROUNDS.get(method, 1)


def find(network: Network, method: str, tolerance: float, asked: int | None = None) -> Row:
    """Find the critical compression of a method on a network.

    Args:
      network: the network at its initialisation.
      method: a name of `METHODS`.
      tolerance: decades of ρ at which the search ends.
      asked: rounds; None is 100 for SynFlow and 1 for the others.

    Returns:
      log10 ρ_cr, log10 ρ_max and the seconds that it took.
    """
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        warnings.simplefilter("ignore", UncertifiedWarning)
        masks_at = _masks_at(network, method, rounds(method, asked))
        found = critical_compression(masks_at, network.params, tolerance=tolerance)
    return {
        "log10_rho_cr": round(math.log10(found), 4),
        "log10_rho_max": round(math.log10(max_compression(network.params)), 4),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _masks_at(network: Network, method: str, count: int) -> Callable[[float], Any]:
    """Build the function ρ -> masks; scores that do not depend on ρ are computed here."""
    if method == "synflow-certified":
        return lambda rho: _reached(network, rho)
    if method not in ONCE or count > 1:
        return lambda rho: METHODS[method](network, rho, count)
    loss = cross_entropy(network.apply_fn, 1.0 if method == "snip" else TEMPERATURE)
    saliency = (snip_saliency if method == "snip" else grasp_saliency)(loss, network.batches)
    scores = saliency(network.params, _all(network, True))
    return lambda rho: prune(scores, as_given, rho, 1)[0]


def _reached(network: Network, rho: float) -> Any:
    """Prune on the certified schedule; return empty masks for a ρ that it cannot reach."""
    try:
        return METHODS["synflow-certified"](network, rho, 1)
    except OutOfReachError:
        return _all(network, False)


def _all(network: Network, value: bool) -> Any:
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, value), network.params)
