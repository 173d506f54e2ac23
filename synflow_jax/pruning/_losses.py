"""What the pruned network has lost that the dense one had: looked for after a run, in one warning.

A method keeps as many weights as asked, whatever that leaves of the network. Lost are layers
without a kept weight, branches without flow, outputs without flow and inputs without effect, and
what the saliency finds out about the network at its own values.
"""

from collections.abc import Iterable, Sequence

import jax
import numpy as np

from synflow_jax.plan import ByGroup, Plan
from synflow_jax.pruning._info import PruneInfo
from synflow_jax.pruning._rounds import Rows
from synflow_jax.saliency import Pruned, Saliency
from synflow_jax.trees import CollapseWarning, Masks, Params, listed_names, warn


def warn_of_losses(
    info: PruneInfo,
    rows: Rows,
    masks: Masks,
    params: Params,
    saliency: Saliency,
    plan: Plan,
    swept: bool = False,
) -> None:
    """Warn once of all that the network has lost; of a flow that died, `check_run` has warned.

    Args:
      info: of the run, the last row being of the masks returned.
      rows: the measurements, none of them traced.
      masks: those returned.
      params: the dense ones.
      saliency: what scored; says what else is lost.
      plan: what was pruned.
      swept: whether the masks are others than the last round's.
    """
    info, rows = jax.tree.map(np.asarray, (info, rows))
    if int(info.collapsed_at):
        return
    gone = info.kept[-1] == 0
    idle = rows.idle[-1] if saliency.measures_flow and not swept else np.zeros_like(gone)
    cut = _named(plan.paths, idle & ~rows.idle[0] & ~gone)
    known = _whole_leaves(plan, np.asarray(gone | idle | rows.idle[0]))
    log2_flows = float(info.log2_flow[0]), float(info.log2_flow[-1])
    said = [
        *_emptied(emptied_layers(info, rows, plan)),
        *_without_flow(cut),
        *saliency.losses(Pruned(params, masks, plan.layers, known, log2_flows)),
        *_negative(_named(plan.paths, rows.negative[0] & saliency.measures_flow)),
    ]
    if said:
        warn(f"check of the network as pruned: {'; '.join(said)}", CollapseWarning)


def emptied_layers(info: PruneInfo, rows: Rows, plan: Plan) -> list[str]:
    """List the layers without a kept weight, except those that another warning is about.

    That is of groups that keep fewer weights than they have layers, and of layers that scored 0
    from the start.
    """
    last = np.asarray(info.kept)[-1]
    competition = plan.competition
    everything = (tuple(range(len(last))),)
    told = np.asarray(rows.idle)[0].copy()
    for group in competition.members if isinstance(competition, ByGroup) else everything:
        told[list(group)] |= last[list(group)].sum() < len(group)
    return _named(plan.paths, (last == 0) & ~told)


def _whole_leaves(plan: Plan, flags: np.ndarray) -> frozenset[str]:
    """Return the leaves all of whose layers are flagged."""
    ends = np.cumsum(plan.layers.counts)[:-1]
    parts = zip(plan.layers.paths, np.split(flags, ends), strict=True)
    return frozenset(path for path, part in parts if part.all())


def _named(paths: Sequence[str], flags: Iterable[bool]) -> list[str]:
    return [path for path, flag in zip(paths, flags, strict=True) if flag]


def _emptied(names: list[str]) -> list[str]:
    if not names:
        return []
    return [
        f"no weight is left in {listed_names(names)} (min_keep=1 keeps one in each, and "
        "scope=layerwise or scope=erk gives each a share)"
    ]


def _without_flow(names: list[str]) -> list[str]:
    if not names:
        return []
    return [
        f"no flow goes through {listed_names(names)}, though weights are kept there: the branch is "
        "cut before or behind them (use min_keep=1, more rounds or a smaller rho)"
    ]


def _negative(names: list[str]) -> list[str]:
    if not names:
        return []
    return [
        f"scores of the dense network are negative in {listed_names(names)}: something is "
        "subtracted on their paths, such as a trained running mean or x - y, so that flows cancel "
        "and the weights of negative flow go first (flow_mode(apply_fn) drops means and adds what "
        "is subtracted)"
    ]
