"""Competition inside of groups of units: the same share of each stays."""

import functools
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax._progress import track
from synflow_jax.compaction._compact import Compact, network_of, nonzero_of, without
from synflow_jax.compaction._cost import Network, Term, cost_by_unit, cost_of, multiply_adds
from synflow_jax.compaction._needed import needed
from synflow_jax.compaction._reshape import Axes
from synflow_jax.compaction._units import WHOLE
from synflow_jax.flow import as_network
from synflow_jax.plan import (
    certified,
    check_matching,
    exponential,
    find_layers,
    globally,
    is_prunable,
    layerwise,
    one_shot,
)
from synflow_jax.saliency import Saliency, as_saliency, checked_scores, synflow_saliency
from synflow_jax.trees import (
    ApplyFn,
    Masks,
    Params,
    Prunable,
    Schedule,
    Scope,
    ScoreFn,
    apply_masks,
    check_finite,
    check_rho,
    check_rounds,
    floating_dtype,
    is_floating,
    is_traced,
    named_leaves,
    read_shape,
)


def groups_of(names: list[Axes], count: int) -> np.ndarray:
    """Number the groups: units that stand along just the same axes of the same leaves are one.

    Args:
      names: of each leaf, the numbers of the units along each axis.
      count: how many units there are.

    Returns:
      A group by number of unit.
    """
    groups = np.zeros(count, np.int64)
    for ids in {ids.tobytes(): ids for axes in names for ids in axes}.values():
        here = np.zeros(count, np.int64)
        here[ids] = 1
        groups = np.unique(2 * groups + here, return_inverse=True)[1]
    return groups


def evened(value: np.ndarray, kept: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rank units within their groups, so that lowest first takes the same share of each.

    Args:
      value: of each unit; infinite where it must stay.
      kept: bool, which units are left.
      groups: as `groups_of` numbers them.

    Returns:
      −k/n for the k-th best of a group that began with n; infinite where value is.
    """
    order = np.lexsort((-value, groups))
    order = order[kept[order]]
    here = groups[order]
    rank = np.arange(len(order)) - np.searchsorted(here, here) + 1
    found = np.full(len(value), np.inf)
    found[order] = -rank / np.bincount(groups)[here]
    return np.where(np.isfinite(value), found, np.inf)


Budget = Callable[[Network], list[Term]]


def slim(
    params: Params,
    apply_fn: ApplyFn,
    shape: Any,
    rho: float,
    *,
    budget: Budget = multiply_adds,
    rounds: int = 100,
    schedule: Schedule = exponential,
    scope: Scope = globally,
    saliency: Saliency | ScoreFn | None = None,
    whole: Prunable | None = None,
    progress: bool = False,
) -> Compact:
    """Give a dense network that costs 1/ρ of what this one does, before training and without data.

    A unit (a channel, a neuron, a head, a channel of a residual stream) goes from every array in
    which it stands. Its score is Σ S over all its weights, which is the most flow that goes with
    it, for each multiply-add (or byte) that going saves. In each round the lowest go, until the
    network costs c·ρ^(−k/n); no axis of an array loses its last unit. With scope=layerwise units
    compete with those of their own axis, and every axis keeps the same share, as nearly as it can.

    Args:
      params: any pytree of arrays; not modified.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode; `flow_mode(apply_fn)`, for networks
        with norms, attention or gates, is scored in flow mode, and what comes back is not in it.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      rho: ρ, cost before over after, at least 1.
      budget: what is to be saved: multiply_adds, entries or num_bytes.
      rounds: n, how often to score and prune.
      schedule: exponential, linear, one_shot, or schedule(k, n, rho) -> share after round k.
      scope: globally, or layerwise: the same share of every axis.
      saliency: saliency(params, masks) -> scores; synflow_saliency(apply_fn, shape) without it.
      whole: (path, leaf) -> bool chooses leaves of which every unit stays; `matching` builds one.
      progress: show how far it is.

    Returns:
      A Compact: `.params`, `.apply_fn`, `.multiply_adds`, `.wrap` for losses, `.expand`; it costs
      at most 1/ρ, and no unit could stay that was the last to go.

    Raises:
      ValueError: rho is out of reach (it says which is not), an argument makes no sense, the budget
        finds nothing to save, or every score is 0.
      TypeError: an argument is of the wrong kind, or params are traced.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, 3.0, 2.0]]), "v": jnp.array([[1.0], [1.0], [1.0]])}
      >>> small = slim(weights, lambda p, x: x @ p["w"] @ p["v"], (1,), 3.0)
      >>> small.params["w"].tolist(), small.multiply_adds
      ([[3.0]], (6, 2))

    Source: own; flow through a unit, Tanaka et al. 2020, section 4, theorem 2.
    """
    _check(params, rho, rounds, schedule, budget, whole, scope)
    plain = as_network(apply_fn).plain
    network = network_of(params, plain, read_shape(shape).ones(floating_dtype(params)))
    names = [network.names(number) for number in network.leaves]
    saliency = synflow_saliency(apply_fn, shape) if saliency is None else as_saliency(saliency)
    score, terms = _unit_scores(params, saliency, names), budget(network)
    even = groups_of(names, len(network.state.units.parents)) if scope is layerwise else None
    may_go, n = _candidates(params, network, names, whole), 1 if schedule is one_shot else rounds
    shares = schedule(np.arange(1, n + 1, dtype=np.float64), n, np.float64(rho)).tolist()
    while True:
        told = track(shares, "slim") if progress else shares
        kept = _within(score, may_go, names, terms, told, even)
        masks = _masks(params, names, kept)
        nonzero = nonzero_of(network, list(map(np.asarray, jax.tree.leaves(masks))))
        if not (read := needed(network.state, nonzero) & ~kept).any():
            break
        may_go &= ~read
    return without(network, apply_masks(params, masks), masks, plain, kept, nonzero)


def _check(
    params: Any, rho: Any, rounds: Any, schedule: Any, budget: Any, whole: Any, scope: Any
) -> None:
    if is_traced(params, rho):
        raise TypeError("params and rho must be of known value: call slim outside of jit")
    check_rho(rho)
    check_rounds(rounds)
    check_finite(params)
    for name, value in (("schedule", schedule), ("budget", budget)):
        if not callable(value) or value is certified:
            raise TypeError(
                f"{name} must be a function such as those that synflow_jax exports, got {value!r}"
            )
    if scope not in (globally, layerwise):
        raise TypeError(f"scope must be globally or layerwise, got {scope!r}")
    if whole is not None and not callable(whole):
        raise TypeError(f"whole must be a function (path, leaf) -> bool, got {whole!r}")
    check_matching(params, whole, "whole")


def _within(
    score: Callable[..., np.ndarray],
    may_go: np.ndarray,
    names: list[Axes],
    terms: list[Term],
    shares: Iterable[float],
    even: np.ndarray | None,
) -> np.ndarray:
    """Let units go, round by round, until the last of the shares of the cost is left."""
    kept, share = np.ones(len(may_go), bool), 1.0
    total = cost_of(terms, kept)
    if not total:
        raise ValueError(
            "budget finds nothing to save: apply_fn multiplies no matrices outside of loops, which "
            "are not followed; entries and num_bytes count params"
        )
    for share in shares:
        value = score(kept) / np.maximum(cost_by_unit(terms, kept), 1)
        value = np.where(may_go, value, np.inf)
        value = value if even is None else evened(value, kept, even)
        kept = _cheapened(kept, value, names, terms, share * total)
    if (left := cost_of(terms, kept)) > share * total:
        raise ValueError(
            f"rho must be at most {total / left:.6g} here, got {1 / share:.6g}: no array may lose "
            "its last unit, and what cannot be followed or is to stay whole is never less"
        )
    return kept


def _masks(params: Params, names: list[Axes], kept: np.ndarray) -> Masks:
    """Mask every leaf where a unit is gone along some axis."""
    treedef = jax.tree.structure(params)
    stays = [functools.reduce(np.logical_and.outer, [kept[ids] for ids in a], True) for a in names]
    return treedef.unflatten([jnp.asarray(stay, bool) for stay in stays])


def _unit_scores(params: Params, saliency: Any, names: list[Axes]) -> Callable[..., np.ndarray]:
    """Build score(kept) -> Σ S over all the weights of each unit, by number of unit."""
    layers = find_layers(params, is_prunable)
    scored = [axes for axes, hit in zip(names, layers.prunable, strict=True) if hit]
    fitted = saliency.fitted(params)
    run = fitted.scores if fitted.on_host else jax.jit(fitted.scores)

    @jax.jit
    def sums(tree: Any) -> list[list[jax.Array]]:
        scores = checked_scores(tree, params, layers)
        return [[_along(s, axis) for axis in range(s.ndim)] for s in scores]

    def score(kept: np.ndarray) -> np.ndarray:
        found = np.zeros(len(kept))
        by_axis = sums(run(params, _masks(params, names, kept)))
        for axes, parts in zip(scored, by_axis, strict=True):
            for ids, part in zip(axes, parts, strict=True):
                np.add.at(found, ids, np.asarray(part, np.float64))
        if not np.isfinite(found).all() or (kept.all() and not found.any()):
            what = "0 in all" if np.isfinite(found).all() else "NaN or infinite in some"
            raise ValueError(
                f"saliency must tell units apart, and its scores are {what} of the network: where "
                "that has norms, attention or gates, pass flow_mode(apply_fn)"
            )
        return found

    return score


def _along(score: jax.Array, axis: int) -> jax.Array:
    return jnp.sum(score, [k for k in range(score.ndim) if k != axis])


def _candidates(
    params: Params, network: Network, names: list[Axes], whole: Prunable | None
) -> np.ndarray:
    """Find the units that may go: they are scored, in no leaf to stay, and nothing needs them."""
    may_go = np.zeros(len(network.state.units.parents), bool)
    pairs = list(zip(named_leaves(params), names, strict=True))
    for (path, leaf), axes in pairs:
        if is_prunable(path, leaf):
            may_go[np.concatenate(axes)] = True
    for (path, leaf), axes in pairs:
        if not is_floating(leaf) or (whole is not None and whole(path, leaf)):
            may_go[np.concatenate([np.zeros(0, int), *axes])] = False
    may_go[WHOLE] = False
    # A norm may read even an empty unit, which then cannot go: every other unit is tried at once.
    places = np.cumsum(may_go)
    for half in (0, 1):
        tried = may_go & (places % 2 == half)
        masks = jax.tree.leaves(_masks(params, names, ~tried))
        nonzero = nonzero_of(network, list(map(np.asarray, masks)))
        may_go &= ~(tried & needed(network.state, nonzero))
    return may_go


def _cheapened(
    kept: np.ndarray, value: np.ndarray, names: list[Axes], terms: list[Term], target: float
) -> np.ndarray:
    """Let the units of least value go, as few as bring the cost down to the target."""
    last = np.zeros(len(kept), bool)
    for ids in (ids for axes in names for ids in axes if len(ids)):
        left = ids[kept[ids]]
        last[left[np.argmax(value[left])]] = True
    order = np.argsort(value, kind="stable")
    order = order[np.isfinite(value[order]) & kept[order] & ~last[order]]

    def fewer_by(count: int) -> np.ndarray:
        fewer = kept.copy()
        fewer[order[:count]] = False
        return fewer

    def cheap(count: int) -> bool:
        return cost_of(terms, fewer_by(count)) <= target

    return fewer_by(bisect_left(range(len(order)), x=True, key=cheap))
