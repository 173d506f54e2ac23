"""The warning, after a run, of what the pruned network has lost that the dense one had.

A method keeps as many weights as asked, whatever that leaves of the network. One warning names
layers without a kept weight, branches without flow, outputs that no flow reaches, inputs without
effect, and layers that pass no signal or get no gradient at the network's own values.
"""

from collections.abc import Iterable, Sequence

import jax
import numpy as np

from synflow_jax.plan import ByGroup
from synflow_jax.pruning._info import PruneInfo
from synflow_jax.pruning._remedies import Asked
from synflow_jax.pruning._rounds import Rows
from synflow_jax.saliency import Pruned, Saliency
from synflow_jax.structure import Reading, describe
from synflow_jax.trees import CollapseWarning, Masks, Params, listed_names, warn


def warn_of_losses(
    info: PruneInfo, rows: Rows, masks: Masks, params: Params, saliency: Saliency, asked: Asked
) -> None:
    """Warn once of all that the network has lost; of a flow that died, `check_run` has warned.

    Args:
      info: of the run, the last row being of the masks returned.
      rows: the measurements, none of them traced.
      masks: those returned.
      params: the dense ones.
      saliency: what scored; says what else is lost.
      asked: what the run was asked for.
    """
    info, rows = jax.tree.map(np.asarray, (info, rows))
    plan = asked.plan
    below = _named(plan.paths, rows.negative[0] & saliency.measures_flow)
    said = _negative(below, saliency.reading(params), saliency.homogeneous) if below else []
    if not int(info.collapsed_at):
        said = [*_lost(info, rows, masks, params, saliency, asked), *said]
    if said:
        warn(f"check of the network as pruned: {'; '.join(said)}", CollapseWarning)


def _lost(
    info: PruneInfo, rows: Rows, masks: Masks, params: Params, saliency: Saliency, asked: Asked
) -> list[str]:
    """Write what the network has lost; the arguments are those of `warn_of_losses`."""
    plan = asked.plan
    gone = info.kept[-1] == 0
    # After a sweep the masks are others than those whose flow the rounds measured last.
    measured = saliency.measures_flow and not asked.sweep
    idle = rows.idle[-1] if measured else np.zeros_like(gone)
    cut = _named(plan.paths, idle & ~rows.idle[0] & ~gone)
    known = frozenset(_named(plan.paths, gone | idle | rows.idle[0]))
    pruned = Pruned(params, masks, plan.layers, known, asked.for_cuts())
    return [
        *emptied_words(emptied_layers(info, rows, saliency, asked), asked),
        *_without_flow(cut, asked),
        *saliency.losses(pruned),
    ]


def names_idle_layers(saliency: Saliency) -> bool:
    """Whether `check_run` warns of layers whose scores are all 0 from the start.

    Scores by flow or by a loss say then that the layer has no effect; other scores, such as the
    magnitudes of a layer of zeros, may be 0 for any reason.
    """
    return saliency.measures_flow or saliency.on_host


def emptied_layers(info: PruneInfo, rows: Rows, saliency: Saliency, asked: Asked) -> list[str]:
    """List the layers without a kept weight, except those that another warning is about.

    That is of groups for which fewer weights than layers were asked for, and of layers that scored
    0 from the start.
    """
    plan, last = asked.plan, np.asarray(info.kept)[-1]
    told = np.asarray(rows.idle)[0] & names_idle_layers(saliency)
    return _named(plan.paths, (last == 0) & ~told & ~_too_few(last, asked))


def _too_few(last: np.ndarray, asked: Asked) -> np.ndarray:
    """Flag the layers of groups that keep fewer units than they have layers: a plan warns of them.

    A plan whose counts are copied from masks does not.
    """
    flags = np.zeros(last.shape, bool)
    if asked.copied:
        return flags
    competition = asked.plan.competition
    everything = (tuple(range(len(last))),)
    for group in competition.members if isinstance(competition, ByGroup) else everything:
        flags[list(group)] = last[list(group)].sum() < len(group)
    return flags


def _named(paths: Sequence[str], flags: Iterable[bool]) -> list[str]:
    return [path for path, flag in zip(paths, flags, strict=True) if flag]


def emptied_words(names: list[str], asked: Asked) -> list[str]:
    """Write which layers have no kept weight, and the remedy; nothing where there are none."""
    if not names:
        return []
    return [f"no weight is left in {listed_names(names)} ({asked.for_empty_layers()})"]


def _without_flow(names: list[str], asked: Asked) -> list[str]:
    if not names:
        return []
    return [
        f"no flow goes through {listed_names(names)}, though weights are kept there: the branch is "
        f"cut before or behind them ({asked.for_cuts()})"
    ]


def _negative(names: list[str], reading: Reading | None, homogeneous: bool) -> list[str]:
    """Write why scores of the dense network are negative."""
    remedy = "" if homogeneous else "; pass flow_mode(apply_fn), in which no score is negative"
    if reading is not None and reading.breaks and not homogeneous:
        why = f"the network is not homogeneous ({describe(reading.breaks)})"
    elif reading is not None and reading.subtractions:
        why = (
            "something is subtracted on their paths, such as a trained running mean, or negated "
            f"({describe(reading.subtractions)})"
        )
    else:
        why = "a derivative on their paths is negative, as a custom one may be"
    return [
        f"scores of the dense network are negative in {listed_names(names)}: {why}, so that flows "
        f"cancel and the weights of negative flow go first{remedy}"
    ]
