"""Data sets as arrays: scikit-learn's digits, and TFDS image sets through tfds.data_source.

Images stay uint8, (examples, height, width, channels), until `normalise` turns a batch into
float32 on the device. TFDS reads array_record files without TensorFlow; only preparing them the
first time needs it.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

DatasetName = Literal["digits", "fashion_mnist", "mnist", "cifar10", "cifar100"]

# Mean and deviation of each channel, images scaled to [0, 1].
CHANNELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "digits": ((0.3053,), (0.3761,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
}
DIGITS_TRAIN = 1437  # of 1797; the rest is the test set
PADDING = 4


class Split(NamedTuple):
    """Images, uint8 (examples, height, width, channels), and labels, int32 (examples,)."""

    images: Any
    labels: Any


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set in memory; `white` is the value of a full pixel."""

    name: DatasetName
    train: Split
    test: Split
    classes: int
    white: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of one image."""
        return self.train.images.shape[1:]

    @property
    def augmented(self) -> bool:
        """Whether training images are cropped and flipped: CIFAR's are."""
        return self.name.startswith("cifar")

    def normalise(self, images: Array) -> Array:
        """Turn uint8 images into float32 of mean 0 and deviation 1 a channel."""
        mean, deviation = (jnp.array(x, jnp.float32)[None, None, None] for x in CHANNELS[self.name])
        return (images.astype(jnp.float32) / self.white - mean) / deviation


def load(name: DatasetName, data_dir: Path | None = None, examples: int | None = None) -> Dataset:
    """Read a data set into memory.

    Args:
      name: digits needs no files; the others are prepared TFDS data sets.
      data_dir: where TFDS keeps its data; None is TFDS's own default.
      examples: how many of the first training examples to use; None is all.

    Returns:
      The data set, as NumPy arrays.

    Raises:
      ValueError: there are fewer training examples than asked for.
      FileNotFoundError: the data set is not prepared; the message has the command.
    """
    if name == "digits":
        train, test = _digits()
        _check_examples(name, examples, len(train.labels))
        train = Split(*(array[:examples] for array in train))
    else:
        train, test = (_tfds(name, split, data_dir, examples) for split in ("train", "test"))
    classes = 100 if name == "cifar100" else 10
    return Dataset(name, train, test, classes, white=16 if name == "digits" else 255)


def _check_examples(name: str, examples: int | None, count: int) -> None:
    if examples is not None and not 1 <= examples <= count:
        raise ValueError(f"examples must be 1 to {count} on {name}, got {examples}")


def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images, labels = bunch.images.astype(np.uint8)[..., None], bunch.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = order[:DIGITS_TRAIN], order[DIGITS_TRAIN:]
    train, test = (Split(images[part], labels[part]) for part in parts)
    return train, test


def _tfds(name: str, split: str, data_dir: Path | None, examples: int | None) -> Split:
    import grain

    source = _source(name, split, data_dir)
    stop = examples if split == "train" else None
    _check_examples(name, stop, len(source))
    pipeline = grain.MapDataset.source(source)[:stop].map(lambda one: (one["image"], one["label"]))
    batches = list(pipeline.batch(1000).to_iter_dataset())
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Split(images, labels.astype(np.int32))


def _source(name: str, split: str, data_dir: Path | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.data_source(name, split=split, data_dir=data_dir, download=False)
    except (NotImplementedError, FileNotFoundError, ValueError, KeyError) as error:
        folder = "" if data_dir is None else f" --data_dir={data_dir}"
        raise FileNotFoundError(
            f"{name} is not prepared{f' in {data_dir}' if data_dir else ''}. Prepare it once with\n"
            f"  tfds build {name} --file_format=array_record{folder}\n"
            "which needs TensorFlow (pip install tensorflow); reading it afterwards does not.\n"
            f"TFDS says: {error}"
        ) from error


def augment(key: Array, images: Array) -> Array:
    """Pad uint8 images with 4 black pixels, crop them at random places and flip half of them."""
    rows, columns, flips = jax.random.split(key, 3)
    count, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))

    def one(image: Array, row: Array, column: Array, flip: Array) -> Array:
        crop = lax.dynamic_slice(image, (row, column, 0), (height, width, channels))
        return jnp.where(flip, crop[:, ::-1], crop)

    shift = 2 * PADDING + 1
    row, column = (jax.random.randint(part, (count,), 0, shift) for part in (rows, columns))
    return jax.vmap(one)(padded, row, column, jax.random.bernoulli(flips, shape=(count,)))


def balanced(split: Split, each: int, classes: int, seed: int) -> Split:
    """Draw `each` examples of every class at random, in class order.

    Args:
      split: where to draw from.
      each: how many of every class.
      classes: how many classes.
      seed: decides the draw.

    Returns:
      classes · each examples.

    Raises:
      ValueError: a class has too few examples.
    """
    counts = np.bincount(split.labels, minlength=classes)
    if counts.min() < each:
        few = int(counts.argmin())
        raise ValueError(
            f"examples must leave at least {each} of every class to score on, got "
            f"{counts[few]} of class {few} among {len(split.labels)}"
        )
    order = np.random.default_rng(seed).permutation(len(split.labels))
    chosen = [order[split.labels[order] == label][:each] for label in range(classes)]
    indices = np.concatenate(chosen)
    return Split(split.images[indices], split.labels[indices])
