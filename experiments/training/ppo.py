"""Training of a pruned actor and critic on CartPole by PPO: one compiled scan over all updates.

Schulman et al. 2017, with the usual details: generalised advantages, normalised in each minibatch,
a clipped ratio and a clipped value loss, Adam with a rate that falls linearly to 0, and gradients
clipped to norm 0.5. An episode that reaches the cap counts as ended there. Pruned weights are set
to zero before the first step and stay zero.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from experiments.data.cartpole import CAP, Episode, advance, start
from synflow_jax import apply_masks, keep_masks

DISCOUNT, TRACE = 0.99, 0.95
RATIO = 0.2  # the ratio of probabilities is clipped to 1 ± RATIO, and values move as far
ENTROPY, VALUE = 0.01, 0.5  # weights in the loss
CLIP = 0.5
EPSILON = 1e-5  # of Adam


@dataclasses.dataclass(frozen=True)
class Budget:
    """The training budget that every network gets."""

    updates: int
    environments: int
    horizon: int  # steps of each environment an update
    epochs: int  # passes over these steps
    minibatches: int
    learning_rate: float
    episodes: int  # fresh ones, on which the final policy is measured


class Steps(NamedTuple):
    """What environments did in one step, or in many: arrays with leading axes of both."""

    state: Array
    action: Array
    log_prob: Array
    value: Array
    ended: Array


class Outcome(NamedTuple):
    """Result of a training: params, the mean return of the final policy, whether all is finite."""

    params: Any
    mean_return: Array
    finite: Array


class PolicyTrainer:
    """Trains one actor and critic under one budget; compiled once.

    Args:
      model: a Linen module, states (batch, 4) to {"logits": (batch, 2), "value": (batch,)}.
      budget: updates, environments and optimiser, the same for every network.

    Raises:
      ValueError: the steps of an update do not divide into equal minibatches.
    """

    def __init__(self, model: nn.Module, budget: Budget) -> None:
        self.model, self.budget = model, budget
        self.batch = budget.environments * budget.horizon
        if self.batch % budget.minibatches:
            raise ValueError(
                f"minibatches must divide {self.batch}, the steps of an update, got "
                f"{budget.minibatches}"
            )
        self._run = jax.jit(self._train)

    def __call__(self, params: Any, masks: Any, key: Array) -> Outcome:
        """Train masked params on episodes drawn with the key; return params and mean return."""
        return jax.block_until_ready(self._run(params, masks, key))

    def _optimiser(self, masks: Any) -> optax.GradientTransformationExtraArgs:
        budget = self.budget
        steps = budget.updates * budget.epochs * budget.minibatches
        rate = optax.linear_schedule(budget.learning_rate, 0.0, steps)
        chain = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(rate, eps=EPSILON))
        return keep_masks(chain, masks)

    def _train(self, params: Any, masks: Any, key: Array) -> Outcome:
        tx, params = self._optimiser(masks), apply_masks(params, masks)
        begin_key, train_key, test_key = jax.random.split(key, 3)
        episodes = self._begin(begin_key, self.budget.environments)
        keys = jax.random.split(train_key, self.budget.updates)
        carry = (params, tx.init(params), episodes)
        (params, *_), _ = lax.scan(partial(self._update, tx), carry, keys)
        finite = jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)])
        return Outcome(params, self._mean_return(params, test_key), jnp.all(finite))

    def _begin(self, key: Array, count: int) -> Episode:
        return jax.vmap(start)(jax.random.split(key, count))

    def _call(self, params: Any, states: Array) -> tuple[Array, Array]:
        out: Any = self.model.apply({"params": params}, states)
        return jax.nn.log_softmax(out["logits"]), out["value"]

    def _update(self, tx: Any, carry: tuple[Any, Any, Episode], key: Array) -> tuple[Any, None]:
        """Collect steps by the present policy, then make the epochs on them."""
        params, state, episodes = carry
        play_key, order_key = jax.random.split(key)
        keys = jax.random.split(play_key, self.budget.horizon)
        episodes, steps = lax.scan(partial(self._play, params), episodes, keys)
        advantages = _advantages(steps, self._call(params, episodes.state)[1])
        flat = lambda leaf: leaf.reshape(self.batch, *leaf.shape[2:])
        data = jax.tree.map(flat, (steps, advantages))
        keys = jax.random.split(order_key, self.budget.epochs)
        order = jax.vmap(lambda key: jax.random.permutation(key, self.batch))(keys)
        order = order.reshape(self.budget.epochs * self.budget.minibatches, -1)
        step = partial(self._step, tx, data)
        (params, state), _ = lax.scan(step, (params, state), order)
        return (params, state, episodes), None

    def _play(self, params: Any, episodes: Episode, key: Array) -> tuple[Episode, Steps]:
        """Advance every environment by an action of the policy; ended episodes begin anew."""
        act_key, begin_key = jax.random.split(key)
        log_probs, value = self._call(params, episodes.state)
        action = jax.random.categorical(act_key, log_probs)
        after, ended = jax.vmap(advance)(episodes, action)
        fresh = self._begin(begin_key, self.budget.environments)
        following = Episode(
            jnp.where(ended[:, None], fresh.state, after.state),
            jnp.where(ended, fresh.steps, after.steps),
        )
        return following, Steps(episodes.state, action, _at(log_probs, action), value, ended)

    def _step(
        self, tx: Any, data: tuple[Steps, Array], carry: tuple[Any, Any], indices: Array
    ) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        minibatch = jax.tree.map(lambda leaf: leaf[indices], data)
        slope = jax.grad(self._loss)(params, *minibatch)
        updates, state = tx.update(slope, state, params)
        return (optax.apply_updates(params, updates), state), None

    def _loss(self, params: Any, steps: Steps, advantages: Array) -> Array:
        log_probs, value = self._call(params, steps.state)
        ratio = jnp.exp(_at(log_probs, steps.action) - steps.log_prob)
        gain = (advantages - jnp.mean(advantages)) / (jnp.std(advantages) + 1e-8)
        policy = -jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - RATIO, 1 + RATIO) * gain)
        target = advantages + steps.value
        near = steps.value + jnp.clip(value - steps.value, -RATIO, RATIO)
        error = jnp.maximum((value - target) ** 2, (near - target) ** 2) / 2
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
        return jnp.mean(policy + VALUE * error - ENTROPY * entropy)

    def _mean_return(self, params: Any, key: Array) -> Array:
        """Return the mean return on fresh episodes, actions drawn from the policy."""
        begin_key, play_key = jax.random.split(key)
        episodes = self._begin(begin_key, self.budget.episodes)

        def step(carry: tuple[Episode, Array], key: Array) -> tuple[tuple[Episode, Array], Array]:
            episodes, over = carry
            action = jax.random.categorical(key, self._call(params, episodes.state)[0])
            after, ended = jax.vmap(advance)(episodes, action)
            return (after, over | ended), ~over

        carry = episodes, jnp.zeros(self.budget.episodes, bool)
        _, rewards = lax.scan(step, carry, jax.random.split(play_key, CAP))
        return jnp.mean(jnp.sum(rewards, 0, dtype=jnp.float32))


def _at(log_probs: Array, action: Array) -> Array:
    return jnp.take_along_axis(log_probs, action[:, None], -1)[:, 0]


def _advantages(steps: Steps, last: Array) -> Array:
    """Return the generalised advantages, (horizon, environments); every reward is 1."""

    def back(carry: tuple[Array, Array], step: Steps) -> tuple[tuple[Array, Array], Array]:
        advantage, following = carry
        goes_on = 1.0 - step.ended.astype(step.value.dtype)
        error = 1.0 + DISCOUNT * following * goes_on - step.value
        advantage = error + DISCOUNT * TRACE * goes_on * advantage
        return (advantage, step.value), advantage

    return lax.scan(back, (jnp.zeros_like(last), last), steps, reverse=True)[1]
