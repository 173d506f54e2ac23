"""A dense network within a budget: units are scored, and the lowest for their cost removed."""

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
from synflow_jax.compaction._groups import evened, groups_of
from synflow_jax.compaction._needed import needed
from synflow_jax.compaction._units import WHOLE, Axes
from synflow_jax.flow import as_network
from synflow_jax.plan import (
    Layers,
    check_functions,
    check_matching,
    exponential,
    find_layers,
    globally,
    layerwise,
    one_shot,
    read_structure,
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
    converted,
    floating_dtype,
    is_floating,
    is_traced,
    named_leaves,
    read_shape,
    write_limit,
)

Budget = Callable[[Network], list[Term]]


@converted("params")
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
    """Return a dense network at 1/ρ of the cost of this one, before training and without data.

    A unit is a channel, a neuron, a head, or a channel of a residual stream; it is removed from
    every array in which it stands. Its value is Σ S over all its weights, an upper bound of the
    flow that is lost with it, divided by the multiply-adds (entries, bytes) that removing it saves.
    In round k the units of least value are removed, until the network costs ρ^(−k/n) of what it
    did. No axis of an array loses its last unit. With scope=layerwise, units compete along their
    own axis alone, and every axis keeps the same share of its units, up to rounding.

    Args:
      params: any pytree of arrays; not modified.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode. For networks with norms, attention or
        gates pass `flow_mode(apply_fn)`: the scores are then of flow mode, the result is not.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      rho: ρ, cost before over after, at least 1.
      budget: what the cost counts: multiply_adds, entries or num_bytes.
      rounds: n, how often to score and prune.
      schedule: exponential, linear, one_shot, or schedule(k, n, rho) -> share after round k.
      scope: globally, or layerwise: the same share of every axis.
      saliency: saliency(params, masks) -> scores; by default synflow_saliency(apply_fn, shape).
      whole: (path, leaf) -> bool, the leaves of which every unit stays; `matching` builds one.
      progress: show a progress bar.

    Returns:
      A Compact: `.params`, `.apply_fn`, `.multiply_adds`, `.wrap` for losses, `.expand`. It costs
      at most 1/ρ, and would cost more with the unit that was removed last.

    Raises:
      ValueError: rho is out of reach (the message has the largest that is not), an argument makes
        no sense, the budget counts nothing, or every score is 0.
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
    layers = find_layers(params, None, read_structure(params, apply_fn, shape))
    score, terms = _unit_scores(params, saliency, names, layers), budget(network)
    even = groups_of(names, len(network.state.units.parents)) if scope is layerwise else None
    may_go, n = (
        _candidates(params, network, names, layers, whole),
        1 if schedule is one_shot else rounds,
    )
    shares = schedule(np.arange(1, n + 1, dtype=np.float64), n, np.float64(rho)).tolist()
    while True:
        shown = track(shares, "slim") if progress else shares
        kept = _prune_units(score, may_go, names, terms, shown, even)
        masks = _masks(params, names, kept)
        nonzero = nonzero_of(network, list(map(np.asarray, jax.tree.leaves(masks))))
        if not (read := needed(network.state, nonzero) & ~kept).any():
            break
        may_go &= ~read  # the output needs them even when they are empty: start again without
    return without(network, apply_masks(params, masks), masks, plain, kept, nonzero)


def _check(
    params: Any, rho: Any, rounds: Any, schedule: Any, budget: Any, whole: Any, scope: Any
) -> None:
    if is_traced(params, rho):
        raise TypeError("params and rho must be of known value: call slim outside of jit")
    check_rho(rho)
    check_rounds(rounds)
    check_finite(params)
    found = [path for path, leaf in named_leaves(params) if jnp.iscomplexobj(leaf)]
    if found:
        raise TypeError(
            f"params must be real for slim, and {found[0]!r} is complex: prune it by synflow or "
            "magnitude, which keep the shapes"
        )
    check_functions(schedule=schedule, budget=budget)
    if scope not in (globally, layerwise):
        raise TypeError(f"scope must be globally or layerwise, got {scope!r}")
    if whole is not None and not callable(whole):
        raise TypeError(f"whole must be a function (path, leaf) -> bool, got {whole!r}")
    check_matching(params, whole, "whole")


def _prune_units(
    score: Callable[..., np.ndarray],
    may_go: np.ndarray,
    names: list[Axes],
    terms: list[Term],
    shares: Iterable[float],
    even: np.ndarray | None,
) -> np.ndarray:
    """Remove units round by round, and return which are kept.

    Args:
      score: score(kept) -> the score of each unit.
      may_go: bool, the units that may be removed.
      names: of each leaf, the names of the units along each axis.
      terms: the cost.
      shares: the share of the cost that is left after each round.
      even: the group of each unit, each of which keeps the same share; None without groups.
    """
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
        kept = _prune_round(kept, value, names, terms, share * total)
    if (left := cost_of(terms, kept)) > share * total:
        raise ValueError(
            f"rho must be at most {write_limit(total / left)} here, got {1 / share:.12g}: no array "
            "may lose its last unit, and what cannot be followed or is to stay whole is never less"
        )
    return kept


def _masks(params: Params, names: list[Axes], kept: np.ndarray) -> Masks:
    """Return masks that are False wherever a unit along some axis is not kept."""
    treedef = jax.tree.structure(params)
    stays = [functools.reduce(np.logical_and.outer, [kept[ids] for ids in a], True) for a in names]
    return treedef.unflatten([jnp.asarray(stay, bool) for stay in stays])


def _unit_scores(
    params: Params, saliency: Any, names: list[Axes], layers: Layers
) -> Callable[..., np.ndarray]:
    """Build score(kept) -> Σ S over all weights of each unit, by number of unit."""
    scored = [axes for axes, hit in zip(names, layers.prunable, strict=True) if hit]
    fitted = saliency.fitted(params, layers.prunable)
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
    params: Params, network: Network, names: list[Axes], layers: Layers, whole: Prunable | None
) -> np.ndarray:
    """Find the units that may be removed.

    They have scored weights, stand in no leaf that is to stay whole, and the output does not need
    them once their weights are 0.
    """
    may_go = np.zeros(len(network.state.units.parents), bool)
    pairs = list(zip(named_leaves(params), names, strict=True))
    for axes, hit in zip(names, layers.prunable, strict=True):
        if hit:
            may_go[np.concatenate(axes)] = True
    for (path, leaf), axes in pairs:
        if not is_floating(leaf) or (whole is not None and whole(path, leaf)):
            may_go[np.concatenate([np.zeros(0, int), *axes])] = False
    may_go[WHOLE] = False
    # A norm may read a unit even when it is empty, and it then has to stay. It is the other units
    # of its stream that fill it: so empty half of the units at a time, every second one.
    places = np.cumsum(may_go)
    for half in (0, 1):
        tried = may_go & (places % 2 == half)
        masks = jax.tree.leaves(_masks(params, names, ~tried))
        nonzero = nonzero_of(network, list(map(np.asarray, masks)))
        may_go &= ~(tried & needed(network.state, nonzero))
    return may_go


def _prune_round(
    kept: np.ndarray, value: np.ndarray, names: list[Axes], terms: list[Term], target: float
) -> np.ndarray:
    """Remove the units of least value, as few as bring the cost down to the target.

    Of each axis, the unit of largest value stays.
    """
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
