"""Iterative magnitude pruning (IMP) with rewinding: train, prune by magnitude, rewind, repeat.

To reach ρ in n levels, level l = 1 … n keeps 1 weight in ρ^(l/n), the largest that level l − 1
trained (level 0 is the dense network), rewinds them to their initial values or to those after an
early epoch, and trains them with a fresh optimiser: n + 1 trainings. All params are rewound, biases
and BatchNorm's scales included. BatchNorm's running statistics stay as trained, as in the paper's
code; the next training soon overwrites them.

Until August 2021 the paper's code did not rewind: its filter on `requires_grad` matched no tensor
of a stored state (pull request 9 of ganguli-lab/Synaptic-Flow). Figure 5a is from 2020;
`rewind_to=None` does what that code did.

Sources: Frankle and Carbin 2019; Frankle, Dziugaite, Roy and Carbin 2019 and 2020 (rewinding to an
early epoch, and to its learning rate); Tanaka et al. 2020, Figure 5a.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from experiments.training.trainer import Scores, Trainer
from synflow_jax import prune


class Level(NamedTuple):
    """One training of several seeds; arrays have the seed axis first, except in `history`.

    `start` has the variables at which training begins and to which pruning rewinds, without masks
    applied. `history` has the scores after each epoch, (epochs, seeds).
    """

    number: int
    rho: float
    masks: Any
    start: Any
    trained: Any
    history: Scores


Choose = Callable[[Level, float], Any]


def by_magnitude(level: Level, rho: float) -> Any:
    """Keep the largest trained weights among those that the level kept.

    Args:
      level: a finished training.
      rho: compression ratio ρ, prunable weights before over after, not below the level's.

    Returns:
      Masks inside the level's masks, with the seed axis first.
    """
    size = lambda mask, leaf: jnp.where(mask, jnp.nan_to_num(jnp.abs(leaf)), -1)
    return _largest(jax.tree.map(size, level.masks, level.trained["params"]), rho)


def by_magnitude_of_all(level: Level, rho: float) -> Any:
    """Keep the largest weights as the paper's code does: a pruned weight may come back.

    That code never sets weights to zero, so a pruned weight competes with its rewound value.

    Args:
      level: a finished training.
      rho: compression ratio ρ, prunable weights before over after.

    Returns:
      Masks, with the seed axis first.
    """
    size = lambda mask, leaf, start: jnp.nan_to_num(jnp.abs(jnp.where(mask, leaf, start)))
    sizes = jax.tree.map(size, level.masks, level.trained["params"], level.start["params"])
    return _largest(sizes, rho)


def _largest(scores: Any, rho: float) -> Any:
    """Keep the largest scores of each seed."""
    return jax.vmap(lambda one: prune(one, as_given, rho, rounds=1)[0])(scores)


def as_given(scores: Any, masks: Any) -> Any:
    """Return the scores that are given in place of params; a saliency for `prune`."""
    del masks
    return scores


@dataclasses.dataclass(frozen=True)
class IterativePruning:
    """Trains, prunes and rewinds several seeds together.

    Args:
      trainer: trains every level; its budget is that of one level.
      keys: one random key a seed; each level folds its number into it.
      rewind_to: epochs of the dense training after which params are saved for rewinding; 0 is
        initialisation. Later trainings begin at that epoch of the learning-rate schedule. None
        rewinds nothing: training continues from the trained params, with the whole schedule.
      choose: function from a level and ρ to masks.

    Raises:
      ValueError: rewind_to is not None or an epoch before the last.
    """

    trainer: Trainer
    keys: Array
    rewind_to: int | None = 0
    choose: Choose = by_magnitude

    def __post_init__(self) -> None:
        epochs = self.trainer.budget.epochs
        if self.rewind_to is not None and not 0 <= self.rewind_to < epochs:
            raise ValueError(f"rewind_to must be None or 0 to {epochs - 1}, got {self.rewind_to}")

    def dense(self, variables: Any) -> Level:
        """Train the dense networks: level 0, the same for every ρ and number of levels.

        Args:
          variables: Linen variables with the seed axis first.

        Returns:
          Level 0. Later levels rewind to its `start`.
        """
        masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), variables["params"])
        early, trained, history = variables, variables, []
        for now, scores in self.trainer.epochs(variables, masks, self.keys):
            trained = now
            history.append(scores)
            early = now if len(history) == self.rewind_to else early
        return Level(0, 1.0, masks, early, trained, _stacked(history))

    def levels(self, dense: Level, rho: float, levels: int) -> Iterator[Level]:
        """Prune and train again, level by level.

        Args:
          dense: level 0, from `dense`.
          rho: compression ratio ρ after the last level.
          levels: n, how often to prune.

        Yields:
          Level l = 1 … n at ρ^(l/n), after its training.

        Raises:
          ValueError: levels is below 1, or rho is no compression ratio.
        """
        if levels < 1:
            raise ValueError(f"levels must be at least 1, got {levels}")
        level = dense
        for number in range(1, levels + 1):
            ratio = rho ** (number / levels)
            level = self._next(level, ratio, self.choose(level, ratio))
            yield level

    def _next(self, before: Level, rho: float, masks: Any) -> Level:
        number, first = before.number + 1, self.rewind_to or 0
        rewound = {} if self.rewind_to is None else {"params": before.start["params"]}
        start = {**before.trained, **rewound}
        keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(self.keys)
        trained, history = start, []
        for variables, scores in self.trainer.epochs(start, masks, keys, first=first):
            trained = variables
            history.append(scores)
        return Level(number, rho, masks, start, trained, _stacked(history))


def _stacked(history: list[Scores]) -> Scores:
    return jax.tree.map(lambda *epochs: jnp.stack(epochs), *history)
