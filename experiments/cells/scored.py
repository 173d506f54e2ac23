"""The scores of a network's weights at initialisation, by the five methods of the paper.

SNIP and GraSP need images of ImageNet's shape, and labels. They get images of a smaller data set,
10 a class, normalised as that data set is and resized bilinearly; its labels are the first of the
1,000, and grey images are repeated over the channels. Random scores are N(0, 1), as in the
reference.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array

from experiments.cells.initial import Config, Start, network_order
from experiments.cells.methods import SCORED_ON_DATA, TEMPERATURE, MethodName
from experiments.cells.network import EXAMPLES_A_CLASS
from experiments.data.dataset import DatasetName, balanced, load, resized
from experiments.records.files import replacing
from experiments.records.rows import Row, fingerprint
from synflow_jax import cross_entropy
from synflow_jax.plan import is_prunable
from synflow_jax.saliency import grasp_saliency, magnitude_saliency, snip_saliency

METHODS: tuple[MethodName, ...] = ("random", "magnitude", "snip", "grasp", "synflow")
BATCH = 4

Scores = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ScoredConfig(Config):
    """Settings of a figure of scores."""

    dataset: DatasetName = "cifar10"
    """Data set of the images that SNIP and GraSP score; digits needs no files."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default TFDS_DATA_DIR or ~/tensorflow_datasets."""
    keep: Path | None = None
    """Folder to keep scores in (0.6 GB a method), which several figures share."""

    def of_method(self, method: str, **cell: Any) -> Row:
        """Return everything that decides one row of a method."""
        data = {"dataset": self.dataset} if method in SCORED_ON_DATA else {}
        return self.settings(method=method, **data, **cell)


def batches(config: ScoredConfig) -> list[tuple[Array, Array]]:
    """Draw 10 images a class, resized to the network's shape, in batches of 4.

    Args:
      config: data set and seed of the draw.

    Returns:
      (images, labels) of shapes (4, height, width, 3) and (4,).

    Raises:
      ValueError: the data set is too small.
      FileNotFoundError: the data set is not prepared.
    """
    dataset = load(config.dataset, config.data_dir)
    found = balanced(dataset.train, EXAMPLES_A_CLASS, dataset.classes, config.seed)
    images = dataset.normalise(jnp.asarray(found.images))
    images = jnp.broadcast_to(images, (*images.shape[:3], 3))
    images = resized(images, config.shape[:2])
    starts = range(0, len(images), BATCH)
    return [(images[i : i + BATCH], jnp.asarray(found.labels[i : i + BATCH])) for i in starts]


def _normal_scores(seed: int, params: Any) -> Any:
    generator = np.random.default_rng([seed, 1])
    return jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape, np.float32), params)


def _saliency(method: str, start: Start, config: ScoredConfig) -> Callable[[Any, Any], Any]:
    if method == "snip":
        return snip_saliency(cross_entropy(start.apply_fn), batches(config))
    if method == "grasp":
        return grasp_saliency(cross_entropy(start.apply_fn, TEMPERATURE), batches(config))
    if method == "synflow":
        return jax.jit(start.saliency)
    if method == "magnitude":
        return magnitude_saliency()
    return lambda params, _: _normal_scores(config.seed, params)


def scores(method: str, start: Start, config: ScoredConfig) -> Scores:
    """Score every prunable weight once, or read the scores if they are kept.

    Args:
      method: one of METHODS.
      start: the network.
      config: the data, and where scores are kept.

    Returns:
      path -> scores, in the order of the network.

    Raises:
      ValueError: the data set is too small.
      FileNotFoundError: the data set is not prepared.
    """
    name = f"{method}-{fingerprint(config.of_method(method))}.npz"
    path = config.keep and config.keep / name
    if path and path.exists():
        with np.load(path) as file:
            return dict(file)
    dense = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), start.params)
    found = dict(_in_order(_saliency(method, start, config)(start.params, dense)))
    if path:
        parts: dict[str, Any] = {**found}
        with replacing(path) as temporary:
            np.savez(temporary, **parts)
    return found


def _in_order(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    flat = traverse_util.flatten_dict(tree, sep="/")
    for path in network_order(flat):
        if is_prunable(path, flat[path]):
            yield path, np.asarray(flat[path])
