"""A network at its initialisation, and the data that a method of pruning may see."""

import dataclasses
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from experiments.data.dataset import SCORING_BATCH, Dataset, Split, balanced, scoring_batches
from synflow_jax import linen

EXAMPLES_A_CLASS = 10


class Keys(NamedTuple):
    """The random keys of one seed, one for each purpose."""

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
    augmented: bool = False  # whether SNIP and GraSP score augmented images

    @cached_property
    def keys(self) -> Keys:
        """The random keys of the seed."""
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
