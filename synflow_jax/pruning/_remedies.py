"""What a call can be asked for instead, so that less of the network is lost.

A warning names only what the same call accepts: certified rounds and the sweep take no floors and
no other scope, N:M takes no floors, and counts that are copied from masks take nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synflow_jax.plan import ByGroup, Certified, InRuns, Plan, Together, globally, one_shot
from synflow_jax.trees import Schedule, Scope

SMALLER = "a smaller rho"


@dataclass(frozen=True)
class Asked:
    """What a run was asked for, as far as a remedy depends on it.

    Attributes:
      plan: what was pruned.
      schedule: of the rounds; None where the counts were copied from masks.
      scope: what competed.
      sweep: whether dead weights were replaced in the end.
      rho: the ratio or ratios.
    """

    plan: Plan
    schedule: Schedule | Certified | None = one_shot
    scope: Scope = globally
    sweep: bool = False
    rho: Any = None

    @property
    def copied(self) -> bool:
        """Whether the counts were copied from masks."""
        return self.schedule is None

    @property
    def may_have_floors(self) -> bool:
        """Whether the call takes a min_keep that it does not have yet."""
        fixed = self.copied or self.sweep or isinstance(self.schedule, Certified)
        runs = isinstance(self.plan.competition, InRuns)
        return not (fixed or runs or (self.plan.floors and all(self.plan.floors)))

    @property
    def may_go_by_layer(self) -> bool:
        """Whether the call takes a scope that gives each layer a count."""
        return self.may_have_floors and isinstance(self.plan.competition, Together | ByGroup)

    @property
    def may_be_certified(self) -> bool:
        """Whether the call takes schedule=certified(), where its saliency measures flow."""
        already = self.copied or isinstance(self.schedule, Certified)
        plain = self.scope is globally and not isinstance(self.rho, Mapping)
        return plain and not (already or self.plan.floors)

    def for_empty_layers(self) -> str:
        """Write how layers without a kept weight come to keep some."""
        if self.copied:
            return "pass densities that keep some there"
        if not self.may_have_floors:
            return f"pass {SMALLER}, or leave them out by `prunable`"
        by_layer = ", and a scope by layer (layerwise, erk) gives each a share"
        return f"min_keep=1 keeps one in each{by_layer if self.may_go_by_layer else ''}"

    def for_cuts(self) -> str:
        """Write how fewer paths are cut."""
        return f"use {_either([*self._floors(), *self._rounds(), SMALLER])}"

    def for_lost_flow(self) -> str:
        """Write how the flow of a saliency that measures it is kept."""
        certified = ["schedule=certified()"] if self.may_be_certified else []
        return f"use {_either([*certified, *self._rounds(), SMALLER])}"

    def _floors(self) -> list[str]:
        return ["min_keep=1"] if self.may_have_floors else []

    def _rounds(self) -> list[str]:
        fixed = self.copied or self.schedule is one_shot or isinstance(self.schedule, Certified)
        return [] if fixed else ["more rounds"]


def _either(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
