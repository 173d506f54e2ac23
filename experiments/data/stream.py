"""Data sets that are larger than memory: a stream of batches, and a balanced sample."""

from pathlib import Path
from typing import Any

import grain
import numpy as np

from experiments.data.crops import central, random_crop
from experiments.data.sources import DatasetName, Split, SplitName, classes_of, source


def stream(
    name: DatasetName,
    split: SplitName,
    batch_size: int,
    seed: int,
    *,
    size: tuple[int, int] = (224, 224),
    epochs: int | None = None,
    data_dir: Path | None = None,
) -> grain.DatasetIterator:
    """Read a split in batches.

    Training images are shuffled by the seed, differently in every epoch, and cropped at random;
    half are flipped; a last batch that is not full is dropped. Test images come once, in their own
    order, as central crops; the last batch may be smaller.

    Args:
      name: the data set.
      split: train or test.
      batch_size: examples a batch.
      seed: seed of the order and the crops of training images.
      size: height and width of the crops.
      epochs: how often to read the training images; None repeats without end.
      data_dir: where TFDS keeps its data; None is TFDS's own default.

    Returns:
      An iterator of images, uint8 (batch_size, *size, channels), and labels, int32. `get_state`
      returns its position, and `set_state` restores it in an iterator of the same arguments.

    Raises:
      ValueError: an argument is out of range.
      FileNotFoundError: the data set is not prepared; the message has the command.
    """
    _check_at_least_1(batch_size=batch_size, epochs=epochs, size=min(size))
    records = grain.MapDataset.source(source(name, split, data_dir))
    if split == "test":
        cut = records.map(lambda one: _central(one, size))
    else:
        _check_batch_size(batch_size, len(records), epochs)
        shuffled = records.seed(seed).shuffle()
        cut = shuffled.random_map(lambda one, generator: _random(one, generator, size))
        cut = cut.repeat(epochs)
    return iter(cut.to_iter_dataset().batch(batch_size, drop_remainder=split == "train"))


def sample(
    name: DatasetName,
    split: SplitName,
    each: int,
    classes: int,
    seed: int,
    size: tuple[int, int] | None = None,
    data_dir: Path | None = None,
) -> Split:
    """Draw `each` examples of every class at random, in class order, decoding only those.

    Labels are read in an order drawn from the seed until every class is full. On a data set in
    memory, `balanced` draws the same examples.

    Args:
      name: the data set.
      split: train or test.
      each: how many of every class.
      classes: how many classes, counted from the first.
      seed: seed of the draw.
      size: height and width of a central crop; None leaves the images unchanged.
      data_dir: where TFDS keeps its data; None is TFDS's own default.

    Returns:
      classes · each examples.

    Raises:
      ValueError: an argument is out of range, or a class has too few examples.
      FileNotFoundError: the data set is not prepared; the message has the command.
    """
    if not 1 <= classes <= classes_of(name):
        raise ValueError(f"classes must be 1 to {classes_of(name)} on {name}, got {classes}")
    _check_at_least_1(each=each, size=None if size is None else min(size))
    labelled = source(name, split, data_dir, decoded=False)
    records = source(name, split, data_dir)
    chosen = _first_of_each(labelled, each, classes, seed)
    images = [records[index]["image"] for index in chosen]
    if size is not None:
        images = [central(image, size) for image in images]
    elif len(shapes := {image.shape for image in images}) > 1:
        raise ValueError(f"size must be given for images of {len(shapes)} shapes, got None")
    return Split(np.stack(images), np.repeat(np.arange(classes, dtype=np.int32), each))


def _first_of_each(records: Any, each: int, classes: int, seed: int) -> list[int]:
    """Find the first records of every class in a random order, in class order."""
    found: list[list[int]] = [[] for _ in range(classes)]
    missing = each * classes
    for index in np.random.default_rng(seed).permutation(len(records)).tolist():
        label = int(records[index]["label"])
        if label < classes and len(found[label]) < each:
            found[label].append(index)
            missing -= 1
            if not missing:
                return [index for indices in found for index in indices]
    few = min(range(classes), key=lambda label: len(found[label]))
    raise ValueError(
        f"each must be at most the examples of every class, got {each}: there are "
        f"{len(found[few])} of class {few}"
    )


def _check_at_least_1(**arguments: int | None) -> None:
    for argument, value in arguments.items():
        if value is not None and value < 1:
            raise ValueError(f"{argument} must be at least 1, got {value}")


def _check_batch_size(batch_size: int, examples: int, epochs: int | None) -> None:
    if epochs is not None and batch_size > epochs * examples:
        raise ValueError(
            f"batch_size must be at most {epochs * examples}, all that is read, got {batch_size}"
        )


def _random(one: Any, generator: np.random.Generator, size: tuple[int, int]) -> Any:
    return random_crop(one["image"], generator, size), np.int32(one["label"])


def _central(one: Any, size: tuple[int, int]) -> Any:
    return central(one["image"], size), np.int32(one["label"])
