"""The options that the methods share with `prune`, typed, so that editors complete them."""

from typing import Any, TypedDict

from synflow_jax.plan import Certified
from synflow_jax.trees import Pattern, Prunable, Schedule, Scope


class Choice(TypedDict, total=False):
    """What may be pruned, and in which units; each key is described at `prune`."""

    min_keep: Any
    pattern: Pattern
    prunable: Prunable | None
    stacked: Any


class Options(Choice, total=False):
    """When and in which competition weights are pruned; each key is described at `prune`."""

    schedule: Schedule | Certified
    scope: Scope
    progress: bool


def check_options(name: str, given: Any, known: Any) -> None:
    """Refuse keyword arguments that a method does not have."""
    unknown = sorted(set(given) - set(known.__annotations__))
    if unknown:
        raise TypeError(
            f"{name}() got an unexpected keyword argument {unknown[0]!r}; beside its own it takes "
            f"{', '.join(sorted(known.__annotations__))}"
        )
