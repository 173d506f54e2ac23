"""The methods that are compared, as the paper runs them, two controls and the certified schedule.

Every method is a function of a `Network`, ρ and a number of rounds that returns masks. SNIP and
GraSP score 10 examples a class in evaluation mode, GraSP at temperature 200. The controls ask what
a mask is worth: SynFlow's with its weights redrawn inside each layer, and random weights at the
ERK densities. One draw and one order of magnitudes are the same however often they are looked at,
and the certified schedule counts its own rounds: those methods take no notice of the number.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from experiments.common.data import SCORING_BATCH, Dataset, Split, balanced, scoring_batches
from synflow_jax import (
    certified,
    cross_entropy,
    erk,
    grasp,
    linen,
    magnitude,
    random,
    shuffle,
    snip,
    synflow,
)

MethodName = Literal[
    "synflow",
    "snip",
    "grasp",
    "magnitude",
    "random",
    "synflow-shuffled",
    "random-erk",
    "synflow-certified",
]
PAPERS: tuple[MethodName, ...] = ("synflow", "snip", "grasp", "magnitude", "random")
CONTROLS: tuple[MethodName, ...] = ("synflow-shuffled", "random-erk")
ROUNDS = {"synflow": 100, "synflow-shuffled": 100}  # of the paper; the other methods have one
EXAMPLES_A_CLASS = 10
TEMPERATURE = 200.0
SCORED_ON_DATA = {"snip", "grasp"}


class OutOfReachError(ValueError):
    """The certified schedule cannot prune as much as was asked for, and says how far it came."""


class Keys(NamedTuple):
    """The random keys of one seed, one a purpose."""

    init: Array
    order: Array  # of training examples, and how they are augmented
    masks: Array
    shuffle: Array


@partial(jax.jit, static_argnames=("model", "shape"))
def initialise(model: nn.Module, shape: tuple[int, ...], key: Array) -> Any:
    """Draw the Linen variables of a model for images of a shape."""
    return model.init(key, jnp.ones((1, *shape)))


@dataclasses.dataclass(frozen=True)
class Network:
    """A network at its initialisation from one seed, and the data that a method may see."""

    model: nn.Module
    dataset: Dataset
    seed: int
    compiled: set[str] = dataclasses.field(default_factory=set)  # methods run before
    augmented: bool = False  # whether SNIP and GraSP score images as they are trained on

    @cached_property
    def keys(self) -> Keys:
        """The seed as random keys."""
        return Keys(*jax.random.split(jax.random.key(self.seed), len(Keys._fields)))

    @cached_property
    def variables(self) -> Any:
        """The Linen variables at initialisation."""
        return initialise(self.model, self.dataset.shape, self.keys.init)

    @property
    def params(self) -> Any:
        """The params at initialisation."""
        return self.variables["params"]

    @property
    def apply_fn(self) -> Any:
        """The network in evaluation mode: params and images to logits."""
        return linen.from_linen(self.model, self.variables, train=False)[1]

    @cached_property
    def batches(self) -> list[tuple[Array, Array]]:
        """10 examples a class, drawn by the seed, in batches of 256."""
        if self.augmented:
            return scoring_batches(self.dataset, EXAMPLES_A_CLASS, self.seed, augmented=True)
        sample = self.sample()
        return list(self._batches(sample.images, sample.labels))

    def sample(self) -> Split:
        """Draw the examples that SNIP and GraSP score."""
        return balanced(self.dataset.train, EXAMPLES_A_CLASS, self.dataset.classes, self.seed)

    def _batches(self, images: Any, labels: Any) -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(labels), SCORING_BATCH):
            part = slice(start, start + SCORING_BATCH)
            yield self.dataset.normalise(jnp.asarray(images[part])), jnp.asarray(labels[part])


def _synflow(net: Network, rho: float, rounds: int) -> Any:
    return synflow(net.params, net.apply_fn, net.dataset.shape, rho, rounds=rounds)


def _certified(net: Network, rho: float, _: int) -> Any:
    try:
        return synflow(net.params, net.apply_fn, net.dataset.shape, rho, schedule=certified())
    except ValueError as error:
        raise OutOfReachError(str(error)) from error


def _snip(net: Network, rho: float, rounds: int) -> Any:
    return snip(net.params, cross_entropy(net.apply_fn), net.batches, rho, rounds=rounds)


def _grasp(net: Network, rho: float, rounds: int) -> Any:
    loss_fn = cross_entropy(net.apply_fn, TEMPERATURE)
    return grasp(net.params, loss_fn, net.batches, rho, rounds=rounds)


METHODS: dict[str, Callable[[Network, float, int], Any]] = {
    "synflow": _synflow,
    "snip": _snip,
    "grasp": _grasp,
    "magnitude": lambda net, rho, _: magnitude(net.params, rho),
    "random": lambda net, rho, _: random(net.keys.masks, net.params, rho),
    "synflow-shuffled": lambda net, rho, n: shuffle(net.keys.shuffle, _synflow(net, rho, n)),
    "random-erk": lambda net, rho, _: random(net.keys.masks, net.params, rho, densities=erk),
    "synflow-certified": _certified,
}
