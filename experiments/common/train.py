"""Training of pruned networks: all seeds of a cell together, the data on the device.

Momentum SGD (Nesterov, 0.9) under a cosine schedule with L2 decay, one compiled function an epoch.
Pruned weights are zero before the first step and stay zero. Clipping is not in the paper: networks
without BatchNorm need it where a method (GraSP at mild compression) leaves exploding gradients.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from experiments.common.data import Dataset, Split, augment
from synflow_jax import apply_masks, keep_masks

EVALUATION_BATCH = 120  # small enough that a CPU's patches stay a few hundred megabytes


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every network may use; a gradient longer than `clip` is cut to that norm."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    clip: float | None


class State(NamedTuple):
    """One seed in training; the optimiser's state holds its masks."""

    params: Any
    statistics: Any  # the Linen collections beside params
    optimiser: Any
    key: Array


class Trainer:
    """Trains one model on one data set under one budget; its epoch is compiled once.

    What is left of an epoch after its last full batch is dropped.

    Args:
      model: a Linen module called `model(x, train)`.
      dataset: the data; moved to the device here.
      budget: what every network gets.
      seeds_at_once: seeds under one vmap, the rest one after another; None is one on a CPU, where
        that is quickest, and all of them elsewhere.

    Raises:
      ValueError: a batch is larger than the training set.
    """

    def __init__(
        self, model: nn.Module, dataset: Dataset, budget: Budget, seeds_at_once: int | None = None
    ) -> None:
        self.model, self.dataset, self.budget = model, dataset, budget
        self.train, self.test = (Split(*map(jnp.asarray, x)) for x in (dataset.train, dataset.test))
        self.batch, count = budget.batch_size, len(self.train.labels)
        if self.batch > count:
            raise ValueError(f"batch_size must be 1 to {count}, all examples, got {self.batch}")
        self.steps = count // self.batch
        self.seeds_at_once = seeds_at_once
        self._starts = jax.jit(jax.vmap(self._start))
        self._epochs = jax.jit(self._over_seeds)

    def epochs(self, variables: Any, masks: Any, keys: Array) -> Iterator[tuple[Any, Array]]:
        """Train seeds together, one epoch at a time.

        Args:
          variables: Linen variables with a leading seed axis.
          masks: bool tree of the params with a leading seed axis.
          keys: one random key a seed: equal keys give the examples in equal order.

        Yields:
          After each epoch, the Linen variables and the test accuracy, float32 (seeds,).
        """
        statistics = {name: value for name, value in variables.items() if name != "params"}
        state = self._starts(variables["params"], statistics, masks, keys)
        for _ in range(self.budget.epochs):
            state, accuracy = self._epochs(state, self.train, self.test)
            yield {"params": state.params, **state.statistics}, accuracy

    def _sgd(self, masks: Any) -> optax.GradientTransformationExtraArgs:
        budget = self.budget
        clip = optax.identity() if budget.clip is None else optax.clip_by_global_norm(budget.clip)
        decay = optax.add_decayed_weights(budget.weight_decay)
        rate = optax.cosine_decay_schedule(budget.learning_rate, budget.epochs * self.steps)
        sgd = optax.sgd(rate, momentum=0.9, nesterov=True)
        return keep_masks(optax.chain(clip, decay, sgd), masks)

    def _start(self, params: Any, statistics: Any, masks: Any, key: Array) -> State:
        params = apply_masks(params, masks)
        return State(params, statistics, self._sgd(masks).init(params), key)

    def _over_seeds(self, states: State, train: Split, test: Split) -> tuple[State, Array]:
        count = 1 if jax.default_backend() == "cpu" else len(states.key)
        at_once = self.seeds_at_once or count
        one = partial(self._epoch, train=train, test=test)
        return lax.map(one, states, batch_size=None if at_once == 1 else at_once)

    def _epoch(self, state: State, train: Split, test: Split) -> tuple[State, Array]:
        key, order_key, step_key = jax.random.split(state.key, 3)
        order = jax.random.permutation(order_key, len(train.labels))
        order = order[: self.steps * self.batch].reshape(self.steps, self.batch)
        pairs = order, jax.random.split(step_key, self.steps)
        state, _ = lax.scan(partial(self._step, train), state._replace(key=key), pairs)
        return state, self._accuracy(state, test)

    def _step(self, train: Split, state: State, pair: tuple[Array, Array]) -> tuple[State, None]:
        batch = Split(train.images[pair[0]], train.labels[pair[0]])
        images = augment(pair[1], batch.images) if self.dataset.augmented else batch.images
        slope, statistics = jax.grad(self._loss, has_aux=True)(
            state.params, state.statistics, self.dataset.normalise(images), batch.labels
        )
        sgd = self._sgd(state.optimiser.masks)
        updates, optimiser = sgd.update(slope, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, statistics, optimiser, state.key), None

    def _loss(self, params: Any, statistics: Any, x: Array, labels: Array) -> tuple[Array, Any]:
        variables = {"params": params, **statistics}
        logits, statistics = self.model.apply(variables, x, train=True, mutable=list(statistics))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(loss), statistics

    def _accuracy(self, state: State, test: Split) -> Array:
        variables = {"params": state.params, **state.statistics}

        def right(example: Split) -> Array:
            logits = self.model.apply(variables, self.dataset.normalise(example.images[None]))
            return jnp.argmax(logits[0]) == example.labels

        return jnp.mean(lax.map(right, test, batch_size=EVALUATION_BATCH), dtype=jnp.float32)
