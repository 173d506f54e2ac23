"""Training of pruned networks: several seeds together, with the data on the device.

An epoch is one compiled function: a scan over its steps, then the whole test set. Pruned weights
are set to zero before the first step and stay zero. Gradient clipping is not in the paper; networks
without BatchNorm need it where gradients explode (GraSP at mild compression).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from experiments.data.dataset import Dataset, Split, augment
from experiments.training.checkpoints import Checkpoints
from experiments.training.optimiser import Budget, later, optimiser
from synflow_jax import apply_masks, keep_masks

TOP = 5


class State(NamedTuple):
    """One seed in training; the optimiser's state holds its masks."""

    params: Any
    statistics: Any  # the Linen collections beside params
    optimiser: Any
    key: Array

    @property
    def variables(self) -> Any:
        """The Linen variables."""
        return {"params": self.params, **self.statistics}


class Scores(NamedTuple):
    """Scores of a network on the test set, float32.

    `top5` is the fraction of examples whose label is among the five largest outputs, so it is 1
    where there are at most five classes; `loss` is the mean cross-entropy.
    """

    top1: Any
    top5: Any
    loss: Any


class Trainer:
    """Trains one model on one data set under one budget; its epoch is compiled once.

    Examples that do not fill the last batch of an epoch are dropped.

    Args:
      model: a Linen module called `model(x, train)`; it may draw from the random stream "dropout".
      dataset: the data; moved to the device here.
      budget: epochs, batch size and optimiser, the same for every network.
      seeds_at_once: seeds trained under one vmap; such groups run one after another. None is 1 on
        a CPU, where that is fastest, and all seeds elsewhere.

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
        self._starts = jax.jit(jax.vmap(self._start, in_axes=(0, 0, 0, 0, None)))
        self._epochs = jax.jit(self._over_seeds)

    def epochs(
        self,
        variables: Any,
        masks: Any,
        keys: Array,
        *,
        first: int = 0,
        resume: Checkpoints | None = None,
    ) -> Iterator[tuple[Any, Scores]]:
        """Train seeds together, one epoch at a time.

        Args:
          variables: Linen variables with a leading seed axis.
          masks: bool tree of the params with a leading seed axis.
          keys: one random key a seed; equal keys give the same order of examples.
          first: how many epochs of the budget count as done.
          resume: where checkpoints are stored; training continues from the last one.

        Yields:
          After each epoch, the Linen variables and the scores, float32 (seeds,). Epochs read
          from `resume` yield their own scores, with the variables of the last stored epoch.

        Raises:
          ValueError: first is no epoch of the budget, or `resume` holds a checkpoint of other
            settings.
        """
        if not 0 <= first < self.budget.epochs:
            raise ValueError(f"first must be 0 to {self.budget.epochs - 1}, got {first}")
        statistics = {name: value for name, value in variables.items() if name != "params"}
        done = jnp.int32(first * self.steps)
        state = self._starts(variables["params"], statistics, masks, keys, done)
        history: list[Scores] = []
        if resume is not None:
            one = jax.ShapeDtypeStruct(keys.shape, jnp.float32)
            state, history = resume.load(state, Scores(one, one, one))
        for scores in history:
            yield state.variables, scores
        for _ in range(first + len(history), self.budget.epochs):
            state, scores = self._epochs(state, self.train, self.test)
            history = [*history, scores]
            if resume is not None:
                resume.save(state, history)
            yield state.variables, scores

    def order(self, key: Array) -> Array:
        """Draw the order of an epoch: indices of examples, (steps, batch)."""
        order = jax.random.permutation(key, len(self.train.labels))
        return order[: self.steps * self.batch].reshape(self.steps, self.batch)

    def _optimiser(self, masks: Any) -> optax.GradientTransformationExtraArgs:
        return keep_masks(optimiser(self.budget, self.steps), masks)

    def _start(self, params: Any, statistics: Any, masks: Any, key: Array, done: Array) -> State:
        params = apply_masks(params, masks)
        return State(params, statistics, later(self._optimiser(masks).init(params), done), key)

    def _over_seeds(self, states: State, train: Split, test: Split) -> tuple[State, Scores]:
        count = 1 if jax.default_backend() == "cpu" else len(states.key)
        at_once = self.seeds_at_once or count
        one = partial(self._epoch, train=train, test=test)
        return lax.map(one, states, batch_size=None if at_once == 1 else at_once)

    def _epoch(self, state: State, train: Split, test: Split) -> tuple[State, Scores]:
        key, order_key, step_key = jax.random.split(state.key, 3)
        pairs = self.order(order_key), jax.random.split(step_key, self.steps)
        state, _ = lax.scan(partial(self._step, train), state._replace(key=key), pairs)
        return state, self._scores(state, test)

    def _step(self, train: Split, state: State, pair: tuple[Array, Array]) -> tuple[State, None]:
        batch = Split(train.images[pair[0]], train.labels[pair[0]])
        images = augment(pair[1], batch.images) if self.dataset.augmented else batch.images
        slope, statistics = jax.grad(self._loss, has_aux=True)(
            state.params,
            state.statistics,
            self.dataset.normalise(images),
            batch.labels,
            jax.random.fold_in(pair[1], 1),
        )
        tx = self._optimiser(state.optimiser.masks)
        updates, held = tx.update(slope, state.optimiser, state.params)
        return State(optax.apply_updates(state.params, updates), statistics, held, state.key), None

    def _loss(
        self, params: Any, statistics: Any, x: Array, labels: Array, key: Array
    ) -> tuple[Array, Any]:
        inner = params, x
        if self.budget.precision == "bfloat16":  # BatchNorm itself reduces in float32
            inner = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), inner)
        logits, statistics = self.model.apply(
            {"params": inner[0], **statistics},
            inner[1],
            train=True,
            mutable=list(statistics),
            rngs={"dropout": key},
        )
        logits = logits.astype(x.dtype)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(loss), statistics

    def _scores(self, state: State, test: Split) -> Scores:
        """Score a network in float32, whatever the precision of training."""

        def one(example: Split) -> Scores:
            x = self.dataset.normalise(example.images[None])
            logits = self.model.apply(state.variables, x)[0]
            best = lax.top_k(logits, min(TOP, len(logits)))[1]
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, example.labels)
            # Of equal outputs the first counts, and likewise of NaN outputs.
            return Scores(best[0] == example.labels, jnp.any(best == example.labels), loss)

        each = lax.map(one, test, batch_size=evaluation_batch())
        return jax.tree.map(lambda column: jnp.mean(column, dtype=jnp.float32), each)


def evaluation_batch() -> int:
    """Return how many test examples are scored at once; few on a CPU, where patches take memory."""
    return 120 if jax.default_backend() == "cpu" else 1000
