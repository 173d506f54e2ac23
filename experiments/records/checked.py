"""Settings that refuse values which make no sense: which argument, what is allowed, what came."""

import abc
import math
from collections.abc import Collection, Iterator
from typing import Any


class Checked(abc.ABC):
    """A dataclass of settings that is checked when it is made.

    Raises:
      ValueError: a rule does not hold.
    """

    def __post_init__(self) -> None:
        for name, good, allowed in self._rules():
            if not good:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    @abc.abstractmethod
    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """Yield each argument, whether its value is allowed, and the allowed values in words."""


Rule = tuple[str, bool, str]


def some_of(name: str, values: Collection[Any], known: Collection[Any]) -> Rule:
    """Return the rule that an argument holds one or more of the known values."""
    return name, bool(values) and set(values) <= set(known), f"one or more of {known}"


def ratios(name: str, values: Collection[float]) -> Rule:
    """Return the rule that an argument holds one or more compression ratios."""
    good = bool(values) and all(1 <= rho < math.inf for rho in values)
    return name, good, "one or more finite numbers of at least 1"
