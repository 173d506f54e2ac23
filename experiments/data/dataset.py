"""Data sets in memory, and operations on batches of their images on the device.

Images stay uint8, (examples, height, width, channels), until `normalise` turns a batch into
float32 on the device. `stream` reads data sets that are larger than memory.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from experiments.data.sources import DatasetName, Split, SplitName, classes_of, digits, source

# Mean and deviation of each channel, images scaled to [0, 1].
CHANNELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "digits": ((0.3053,), (0.3761,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "tiny_imagenet": ((0.480, 0.448, 0.397), (0.276, 0.269, 0.282)),
    "imagenet2012": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
LARGER_THAN_MEMORY = {"imagenet2012"}
PADDING = 4
SCORING_BATCH = 256
SCORING = 2**31  # folded into a seed's key for augmentation, apart from the splits of it


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
        """Whether training images are cropped and flipped: CIFAR's and Tiny-ImageNet's are."""
        return self.name in ("cifar10", "cifar100", "tiny_imagenet")

    def normalise(self, images: Array) -> Array:
        """Turn images of 0 to `white` into float32 of mean 0 and deviation 1 a channel."""
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
      ValueError: there are fewer training examples than asked for, or the data set is larger than
        memory.
      FileNotFoundError: the data set is not prepared; the message has the command.
    """
    if name in LARGER_THAN_MEMORY:
        raise ValueError(
            f"name must be a data set that fits into memory, got {name!r}: read it in batches with "
            "experiments.data.stream.stream, or some of every class with sample"
        )
    if name == "digits":
        train, test = digits("train"), digits("test")
        _check_examples(name, examples, len(train.labels))
        train = Split(*(array[:examples] for array in train))
    else:
        train, test = (_whole(name, split, data_dir, examples) for split in ("train", "test"))
    return Dataset(name, train, test, classes_of(name), white=16 if name == "digits" else 255)


def _check_examples(name: str, examples: int | None, count: int) -> None:
    if examples is not None and not 1 <= examples <= count:
        raise ValueError(f"examples must be 1 to {count} on {name}, got {examples}")


def _whole(
    name: DatasetName, split: SplitName, data_dir: Path | None, examples: int | None
) -> Split:
    import grain

    records = source(name, split, data_dir)
    stop = examples if split == "train" else None
    _check_examples(name, stop, len(records))
    pipeline = grain.MapDataset.source(records)[:stop].map(lambda one: (one["image"], one["label"]))
    batches = list(pipeline.batch(1000).to_iter_dataset())
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Split(images, labels.astype(np.int32))


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
      seed: seed of the draw.

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


def scoring_batches(
    dataset: Dataset, each: int, seed: int, augmented: bool
) -> list[tuple[Array, Array]]:
    """Draw the examples that SNIP and GraSP score, in batches of 256.

    Classes are mixed within a batch. The reference draws `each` · classes examples of any class;
    here every class has the same number.

    Args:
      dataset: where to draw from: its training examples.
      each: how many of every class.
      seed: seed of the draw, its order and the augmentation.
      augmented: crop and flip as in training, as the reference does; without effect on data sets
        that are not augmented in training.

    Returns:
      Batches of normalised images, float32 (at most 256, height, width, channels), and labels.

    Raises:
      ValueError: a class has too few examples.
    """
    drawn = balanced(dataset.train, each, dataset.classes, seed)
    order = np.random.default_rng(seed).permutation(len(drawn.labels))
    key = jax.random.fold_in(jax.random.key(seed), SCORING)
    batches = []
    for number, start in enumerate(range(0, len(order), SCORING_BATCH)):
        part = order[start : start + SCORING_BATCH]
        images = jnp.asarray(drawn.images[part])
        if augmented and dataset.augmented:
            images = augment(jax.random.fold_in(key, number), images)
        batches.append((dataset.normalise(images), jnp.asarray(drawn.labels[part])))
    return batches


def resized(images: Array, size: tuple[int, int]) -> Array:
    """Resize images bilinearly, such as CIFAR's to ImageNet's (224, 224).

    Args:
      images: (examples, height, width, channels), of any dtype.
      size: the new height and width.

    Returns:
      float32 (examples, *size, channels), in the units of `images`.

    Raises:
      ValueError: size is not two positive numbers, or images have no batch axis.
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be a height and a width of at least 1, got {size}")
    if images.ndim != 4:
        raise ValueError(
            f"images must be (examples, height, width, channels), got shape {images.shape}"
        )
    shape = (images.shape[0], *size, images.shape[3])
    return jax.image.resize(images.astype(jnp.float32), shape, "bilinear")
