"""The methods that are compared, as the paper runs them, and two controls.

Every method is a function of a `Network` and ρ that returns masks. SNIP and GraSP score 10
examples a class in evaluation mode, GraSP at temperature 200. The controls ask what a mask is
worth: SynFlow's with its weights redrawn inside each layer, and random weights at the ERK
densities.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from experiments.common.data import Dataset, balanced
from synflow_jax import cross_entropy, erk, grasp, linen, magnitude, random, shuffle, snip, synflow

MethodName = Literal[
    "synflow", "snip", "grasp", "magnitude", "random", "synflow-shuffled", "random-erk"
]
EXAMPLES_A_CLASS = 10
SCORING_BATCH = 256
TEMPERATURE = 200.0


@dataclasses.dataclass(frozen=True)
class Network:
    """A network at its initialisation from one seed, and the data that a method may see."""

    model: nn.Module
    dataset: Dataset
    seed: int

    @property
    def key(self) -> Array:
        """The seed as a random key."""
        return jax.random.key(self.seed)

    @cached_property
    def variables(self) -> Any:
        """The Linen variables at initialisation."""
        return jax.jit(self.model.init)(self.key, jnp.ones((1, *self.dataset.shape)))

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
        sample = balanced(self.dataset.train, EXAMPLES_A_CLASS, self.dataset.classes, self.seed)
        return list(self._batches(sample.images, sample.labels))

    def _batches(self, images: Any, labels: Any) -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(labels), SCORING_BATCH):
            part = slice(start, start + SCORING_BATCH)
            yield self.dataset.normalise(jnp.asarray(images[part])), jnp.asarray(labels[part])


def _synflow(net: Network, rho: float) -> Any:
    return synflow(net.params, net.apply_fn, net.dataset.shape, rho)


def _snip(net: Network, rho: float) -> Any:
    return snip(net.params, cross_entropy(net.apply_fn), net.batches, rho)


def _grasp(net: Network, rho: float) -> Any:
    return grasp(net.params, cross_entropy(net.apply_fn, TEMPERATURE), net.batches, rho)


METHODS: dict[str, Callable[[Network, float], Any]] = {
    "synflow": _synflow,
    "snip": _snip,
    "grasp": _grasp,
    "magnitude": lambda net, rho: magnitude(net.params, rho),
    "random": lambda net, rho: random(net.key, net.params, rho),
    "synflow-shuffled": lambda net, rho: shuffle(net.key, _synflow(net, rho)),
    "random-erk": lambda net, rho: random(net.key, net.params, rho, densities=erk),
}
