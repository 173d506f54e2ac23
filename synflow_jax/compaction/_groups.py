"""Competition within groups of units: the same share of each group stays."""

import numpy as np

from synflow_jax.compaction._units import Axes


def groups_of(names: list[Axes], count: int) -> np.ndarray:
    """Number the groups: units that stand along exactly the same axes of the same leaves are one.

    Args:
      names: of each leaf, the names of the units along each axis.
      count: number of units.

    Returns:
      The group of each unit, by number of unit.
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
      kept: bool, the units that are left.
      groups: as `groups_of` numbers them.

    Returns:
      −k/n for the k-th best unit of a group that began with n; infinite where value is.
    """
    order = np.lexsort((-value, groups))
    order = order[kept[order]]
    here = groups[order]
    rank = np.arange(len(order)) - np.searchsorted(here, here) + 1
    found = np.full(len(value), np.inf)
    found[order] = -rank / np.bincount(groups)[here]
    return np.where(np.isfinite(value), found, np.inf)
