"""The training budget of a network, and the Optax transform that is built from it.

Each optimiser equals PyTorch's of the same name, with PyTorch's constants. Weight decay is L2: it
is added to the gradient before the optimiser, as in PyTorch.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import optax

from experiments.records.checked import Checked, Rule

OptimiserName = Literal["nesterov", "momentum", "sgd", "adam", "rmsprop"]
Precision = Literal["float32", "bfloat16"]

OPTIMISERS: dict[OptimiserName, Callable[[Any], optax.GradientTransformation]] = {
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "sgd": optax.sgd,
    "adam": optax.adam,
    # PyTorch adds ε to the root; Optax's default adds it under the root.
    "rmsprop": lambda rate: optax.rmsprop(rate, decay=0.99, eps=1e-8, eps_in_sqrt=False),
}


@dataclasses.dataclass(frozen=True)
class Budget(Checked):
    """The training budget that every network gets; gradients are clipped to norm `clip`.

    The learning rate follows a cosine where `drops` is None; otherwise it is multiplied by `factor`
    after each epoch in `drops`. With the precision bfloat16, params and images are cast to bfloat16
    in the forward pass; the trained params, BatchNorm's statistics and the loss stay float32.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    clip: float | None
    drops: tuple[int, ...] | None = None
    factor: float = 0.1
    optimiser: OptimiserName = "nesterov"
    precision: Precision = "float32"

    def _rules(self) -> Iterator[Rule]:
        for name in ("epochs", "batch_size"):
            yield name, getattr(self, name) >= 1, "at least 1"
        yield "learning_rate", 0 < self.learning_rate < math.inf, "finite and above 0"
        yield "weight_decay", 0 <= self.weight_decay < math.inf, "finite and at least 0"
        yield "clip", self.clip is None or self.clip > 0, "None or above 0"
        drops = self.drops or ()
        rising = sorted(set(drops)) == list(drops)
        good = rising and all(0 < drop < self.epochs for drop in drops)
        yield "drops", good, f"None or rising epochs between 0 and epochs, {self.epochs}"
        yield "factor", 0 < self.factor <= 1, "above 0 and at most 1"
        for name, kind in (("optimiser", OptimiserName), ("precision", Precision)):
            yield name, getattr(self, name) in get_args(kind), f"one of {get_args(kind)}"


def learning_rate(budget: Budget, steps: int) -> optax.Schedule:
    """Build the learning-rate schedule.

    Args:
      budget: its learning rate, epochs, drops and factor are used.
      steps: steps an epoch.

    Returns:
      A function from the number of steps taken so far to the learning rate.
    """
    if budget.drops is None:
        return optax.cosine_decay_schedule(budget.learning_rate, budget.epochs * steps)
    falls = {drop * steps: budget.factor for drop in budget.drops}
    return optax.piecewise_constant_schedule(budget.learning_rate, falls)


def optimiser(budget: Budget, steps: int) -> optax.GradientTransformation:
    """Chain gradient clipping, weight decay and the optimiser.

    Args:
      budget: the settings.
      steps: steps an epoch.

    Returns:
      An Optax transform; its update needs params.
    """
    clip = optax.identity() if budget.clip is None else optax.clip_by_global_norm(budget.clip)
    decay = optax.add_decayed_weights(budget.weight_decay)
    return optax.chain(clip, decay, OPTIMISERS[budget.optimiser](learning_rate(budget, steps)))


def later(state: Any, steps: Any) -> Any:
    """Advance the step count of the learning-rate schedule in an optimiser's state.

    Args:
      state: the result of `init` of a transform that contains an `optimiser`.
      steps: how many steps of the schedule count as done, int32.

    Returns:
      The state, with its moments and their counts unchanged.
    """

    def in_schedule(path: Any, value: Any) -> bool:
        del value
        return getattr(path[-1], "tuple_name", None) == "ScaleByScheduleState"

    return optax.tree_utils.tree_set(state, in_schedule, count=steps)
