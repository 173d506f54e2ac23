"""Checks after a run: errors where its masks mean nothing, warnings where they may mean little."""

from typing import Any, NamedTuple

import jax
import numpy as np

from synflow_jax.measure import explain_flow, layers_of
from synflow_jax.plan import Certified, Layers
from synflow_jax.pruning._info import PruneInfo
from synflow_jax.pruning._losses import emptied_layers, names_idle_layers
from synflow_jax.pruning._remedies import Asked
from synflow_jax.pruning._rounds import Rows
from synflow_jax.saliency import Saliency
from synflow_jax.selection import sum_counts
from synflow_jax.structure import Reading, describe
from synflow_jax.trees import (
    CollapseWarning,
    Params,
    UncertifiedWarning,
    all_true,
    listed_names,
    pick,
    warn,
    write_limit,
)


class Layer(NamedTuple):
    """One layer of a leaf."""

    name: str
    path: str  # of the leaf
    weights: Any


SOURCELESS = (
    " The certified schedule leaves out sources: leaves that are added to a signal, such as biases "
    "and means, and embeddings beside floating inputs."
)


def check_run(
    info: PruneInfo, rows: Rows, params: Params, saliency: Saliency, asked: Asked, target: int = 0
) -> None:
    """Check the measurements of a run: flow and scores, standstill, collapse, guarantee."""
    info, rows = jax.tree.map(np.asarray, (info, rows))  # NumPy has nothing to compile
    measured, schedule = saliency.measures_flow, asked.schedule
    certified = isinstance(schedule, Certified)
    if measured and not np.isfinite(info.log2_flow[0]):
        said = explain_flow(saliency, params, jax.tree.map(all_true, params))
        raise ValueError(said + (SOURCELESS if certified else ""))
    if not info.finite.all():
        first = int(info.finite.argmin()) + 1
        raise ValueError(
            f"saliency must return finite scores: round {first} had NaN or infinity"
            f"{_why_not_finite(saliency.reading(params), saliency)}"
        )
    if names_idle_layers(saliency):
        _check_idle(np.asarray(rows.idle)[0], params, saliency, asked)
    if isinstance(schedule, Certified):
        _check_target(info, schedule, target)
    if int(info.collapsed_at):
        emptied = emptied_layers(info, rows, saliency, asked)
        _warn_dead(info, emptied, _remedy(params, saliency, asked))
    elif measured and not certified and not info.certified:
        _warn_uncertified(info, _remedy(params, saliency, asked))


def _check_target(info: PruneInfo, schedule: Certified, target: int) -> None:
    """Raise where certified rounds ended before the target."""
    kept, total, rounds = sum_counts(info.kept[-1]), sum(info.sizes), int(info.rounds)
    if kept <= target:
        return
    where = f"{kept} {info.units} are kept, {target} are asked for, and the rho reached is"
    reached = write_limit(total / kept)
    chain = f"N/L = {total / len(info.layers):.6g} is the most that a plain chain of layers bears"
    before = sum_counts(info.kept[-2]) if rounds > 1 else total
    if kept == before:
        raise ValueError(
            "certified pruning stands still: any further weight may carry all of the flow, in flow "
            "mode all of the flow of a layer, an output or an input. After "
            f"{rounds} rounds {where} {reached}: pass at most that as rho; {chain}"
        )
    raise ValueError(
        f"certified(alpha={schedule.alpha}, most={schedule.most}) used up its {rounds} rounds: "
        f"{where} {reached}: pass at most that as rho, or a larger most; {chain}"
    )


def _remedy(params: Params, saliency: Saliency, asked: Asked) -> str:
    """Write the remedy for a flow that is lost: flow mode for a network that is not homogeneous."""
    reading = saliency.reading(params)
    if reading is not None and reading.breaks and not saliency.homogeneous:
        return "apply_fn is not homogeneous, so pass flow_mode(apply_fn) first"
    return asked.for_lost_flow()


def _warn_dead(info: PruneInfo, emptied: list[str], remedy: str) -> None:
    """Warn of the round from which on no flow is left, and of the layers that are empty."""
    died = int(info.collapsed_at)
    where = f", and no weight is left in {listed_names(emptied)}" if emptied else ""
    warn(
        f"the flow is 0 from round {died} of {len(info.share)} on: the network as pruned "
        f"computes a constant{where}; {remedy}",
        CollapseWarning,
    )


def _warn_uncertified(info: PruneInfo, remedy: str) -> None:
    """Warn of the round that pruned the largest share of the flow, all of it or more."""
    worst = int(np.argmax(info.share))
    warn(
        f"round {worst + 1} of {len(info.share)} pruned {float(info.share[worst]):.3g} times the "
        f"flow there was: some flow is left, but nothing guarantees it; {remedy}",
        UncertifiedWarning,
    )


def _check_idle(idle: np.ndarray, params: Params, saliency: Saliency, asked: Asked) -> None:
    """Report layers whose scores are all 0: they are pruned first, in an order of no meaning."""
    if not idle.any():
        return
    reading = saliency.reading(params)
    if idle.all():
        raise ValueError(
            "every score of the dense network is 0: the objective does not feel the prunable "
            f"leaves. {_why_nothing(reading, saliency)}"
        )
    layers = asked.plan.layers
    names = [name for name, none in zip(layers.names, idle, strict=True) if none]
    warn(
        f"all scores are 0 in {listed_names(names)}, which therefore go first: "
        f"{_why_idle(_layers(layers, params, idle), reading, saliency)}. Leave them out by "
        "`prunable`, or score them at other values",
        CollapseWarning,
    )


def _layers(layers: Layers, params: Params, flags: np.ndarray) -> list[Layer]:
    """List the flagged layers; of a leaf that holds several, the slice of each."""
    parts = np.split(flags, np.cumsum(layers.counts)[:-1])
    leaves = pick(params, layers.prunable)
    return [
        Layer(name, path, part)
        for path, leaf, at, own in zip(layers.paths, leaves, layers.layouts, parts, strict=True)
        if own.any()
        for (name, part), hit in zip(layers_of(path, leaf, at.layers), own, strict=True)
        if hit
    ]


def _why_not_finite(reading: Reading | None, saliency: Saliency) -> str:
    """Write what may have made scores NaN or infinite after the first round."""
    breaks = () if reading is None or saliency.homogeneous else reading.breaks
    normalisers = [one for one in breaks if one.breaks == "normaliser"]
    if normalisers:
        return (
            f", as where a signal that is cut off is divided by its own size "
            f"({describe(normalisers)}); pass flow_mode(apply_fn)"
        )
    return f" ({describe(breaks)}); pass flow_mode(apply_fn)" if breaks else ""


def _why_nothing(reading: Reading | None, saliency: Saliency) -> str:
    """Write the likely cause of scores that are 0 in all layers."""
    if reading is not None and reading.shut:
        names = listed_names([use.path for use in reading.uses if use.path in reading.shut])
        return f"{names} {_why_shut(reading)}."
    if reading is None or saliency.homogeneous or not reading.breaks:
        return "A head that is all zero, or a function that ignores its params?"
    return (
        f"apply_fn is not homogeneous, and saturates at |θ|: {describe(reading.breaks)}; pass "
        "flow_mode(apply_fn), or leave out a function at the output that changes no ranking"
    )


def _why_shut(reading: Reading | None) -> str:
    """Write what takes the gradient from the leaves of `Reading.shut`."""
    if reading is not None and reading.detached:
        return f"lies behind {describe(reading.detached)}, which no gradient passes"
    return "gets no gradient: outputs depend on it by whole numbers or comparisons alone"


def _why_idle(idle: list[Layer], reading: Reading | None, saliency: Saliency) -> str:
    """Write the likely causes of scores that are 0 in some layers."""
    roles = {} if reading is None else {path: use.role for path, use in reading.by_path.items()}
    flow_mode = saliency.measures_flow and saliency.homogeneous
    shut = frozenset() if reading is None else reading.shut
    added, unused, zero, behind, other = [], [], [], [], []
    for layer in idle:
        role = roles.get(layer.path)
        if role == "added" and flow_mode:
            added.append(layer.name)
        elif role == "unused":
            unused.append(layer.name)
        elif not layer.weights.any():
            zero.append(layer.name)
        else:
            (behind if layer.path in shut else other).append(layer.name)
    said = [
        f"{listed_names(names)} {what}"
        for names, what in (
            (added, "is added to a signal, and flow mode leaves out what is added"),
            (unused, "meets no signal"),
            (zero, "is all zero"),
            (behind, _why_shut(reading)),
        )
        if names
    ]
    if other:
        breaks = () if reading is None or saliency.homogeneous else reading.breaks
        said.append(
            f"the network is not homogeneous ({describe(breaks)}): pass flow_mode(apply_fn)"
            if breaks
            else "something on their path is initialised to 0 (a norm's scale, a head)"
        )
    return ", ".join(said)
