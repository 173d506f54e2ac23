"""Training of a pruned language model: one compiled scan over all steps, the text on the device.

AdamW with a linear warm-up and a cosine, gradients clipped to norm 1. Pruned weights are set to
zero before the first step and stay zero. Losses are in bits per character.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from experiments.data.text import Text
from synflow_jax import apply_masks, keep_masks

CLIP = 1.0
WARMUP = 0.1  # of all steps
TAIL = 0.1  # of all steps: the last ones, over which the training loss is averaged
EVALUATION_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Budget:
    """The training budget that every network gets."""

    steps: int
    batch_size: int
    context: int
    learning_rate: float
    weight_decay: float


class Outcome(NamedTuple):
    """Result of a training: params, losses in bits per character, whether params are finite."""

    params: Any
    validation: Array
    train: Array
    finite: Array


class LanguageTrainer:
    """Trains one model on one text under one budget; compiled once.

    Args:
      model: a Linen module, tokens (batch, length) to logits (batch, length, vocabulary).
      text: training and validation text; moved to the device here.
      budget: steps, windows and optimiser, the same for every network.

    Raises:
      ValueError: a part of the text is shorter than one context and the next character.
    """

    def __init__(self, model: nn.Module, text: Text, budget: Budget) -> None:
        self.model, self.budget = model, budget
        size, shortest = budget.context + 1, min(len(text.train), len(text.validation))
        if shortest < size:
            raise ValueError(f"context must be below {shortest}, the text, got {budget.context}")
        self.text = jnp.asarray(text.train)
        # Windows that overlap by one: each character but the first is predicted once.
        count = (len(text.validation) - 1) // budget.context
        starts = jnp.arange(count) * budget.context
        self.windows = self._windows(jnp.asarray(text.validation), starts)
        self._run = jax.jit(self._train)

    def __call__(self, params: Any, masks: Any, key: Array) -> Outcome:
        """Train masked params on windows drawn with the key; return params and losses."""
        return jax.block_until_ready(self._run(params, masks, key, self.text, self.windows))

    def _windows(self, text: Array, starts: Array) -> Array:
        cut = lambda start: lax.dynamic_slice_in_dim(text, start, self.budget.context + 1)
        return jax.vmap(cut)(starts).astype(jnp.int32)

    def _adam(self, masks: Any) -> optax.GradientTransformationExtraArgs:
        budget = self.budget
        rate = optax.warmup_cosine_decay_schedule(
            0.0, budget.learning_rate, math.ceil(WARMUP * budget.steps), budget.steps
        )
        adam = optax.adamw(rate, b2=0.99, weight_decay=budget.weight_decay)
        return keep_masks(optax.chain(optax.clip_by_global_norm(CLIP), adam), masks)

    def _train(self, params: Any, masks: Any, key: Array, text: Array, windows: Array) -> Outcome:
        tx = self._adam(masks)

        def step(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], Array]:
            params, state = carry
            starts = jax.random.randint(
                key, (self.budget.batch_size,), 0, len(text) - self.budget.context
            )
            loss, slope = jax.value_and_grad(self._bits)(params, self._windows(text, starts))
            updates, state = tx.update(slope, state, params)
            return (optax.apply_updates(params, updates), state), loss

        params = apply_masks(params, masks)
        keys = jax.random.split(key, self.budget.steps)
        (params, _), losses = lax.scan(step, (params, tx.init(params)), keys)
        each = lax.map(
            lambda one: self._bits(params, one[None]), windows, batch_size=EVALUATION_BATCH
        )
        tail = losses[-math.ceil(TAIL * self.budget.steps) :]
        finite = jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)])
        return Outcome(params, jnp.mean(each), jnp.mean(tail), jnp.all(finite))

    def _bits(self, params: Any, windows: Array) -> Array:
        logits: Any = self.model.apply({"params": params}, windows[:, :-1])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:])
        return jnp.mean(loss) / math.log(2)
