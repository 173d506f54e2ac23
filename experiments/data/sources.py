"""Data sets as sequences of records: {"image": uint8 (height, width, channels), "label": int}.

All but scikit-learn's digits are TFDS data sets in array_record files, which are read record by
record and without TensorFlow.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

DatasetName = Literal[
    "digits", "fashion_mnist", "mnist", "cifar10", "cifar100", "tiny_imagenet", "imagenet2012"
]
SplitName = Literal["train", "test"]

CLASSES: dict[str, int] = {"cifar100": 100, "tiny_imagenet": 200, "imagenet2012": 1000}
DIGITS_TRAIN = 1437  # of 1797; the rest is the test set
# The test images of both have no labels: accuracy is measured on the validation set.
VALIDATED = {"tiny_imagenet", "imagenet2012"}
BY_HAND = {
    "tiny_imagenet": "tiny-imagenet-200.zip",
    "imagenet2012": "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar",
}


class Split(NamedTuple):
    """Images, uint8 (examples, height, width, channels), and labels, int32 (examples,)."""

    images: Any
    labels: Any


def classes_of(name: DatasetName) -> int:
    """Count the classes of a data set."""
    return CLASSES.get(name, 10)


def source(
    name: DatasetName, split: SplitName, data_dir: Path | None = None, *, decoded: bool = True
) -> Sequence[dict[str, Any]]:
    """Open a split for random access.

    Args:
      name: digits needs no files; the others are prepared TFDS data sets.
      split: train or test; the test split of Tiny-ImageNet and of ImageNet is their validation
        set.
      data_dir: where TFDS keeps its data; None is TFDS's own default.
      decoded: False returns images as the bytes of their files, for reading labels alone.

    Returns:
      The records; each is read when it is asked for.

    Raises:
      ValueError: there is no such data set or split.
      FileNotFoundError: the data set is not prepared; the message has the command.
    """
    for argument, value, kind in (("name", name, DatasetName), ("split", split, SplitName)):
        if value not in get_args(kind):
            raise ValueError(f"{argument} must be one of {get_args(kind)}, got {value!r}")
    if name == "digits":
        return [
            {"image": image, "label": label} for image, label in zip(*digits(split), strict=True)
        ]
    return _tfds(name, split, data_dir, decoded)


def digits(split: SplitName) -> Split:
    """Read scikit-learn's digits, split by a fixed random order."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images, labels = bunch.images.astype(np.uint8)[..., None], bunch.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    part = order[:DIGITS_TRAIN] if split == "train" else order[DIGITS_TRAIN:]
    return Split(images[part], labels[part])


def _tfds(name: str, split: str, data_dir: Path | None, decoded: bool) -> Any:
    import tensorflow_datasets as tfds

    if name == "tiny_imagenet":
        from experiments.data import tiny_imagenet  # noqa: F401 (registers it with TFDS)

    part = "validation" if split == "test" and name in VALIDATED else split
    decoders: Any = None if decoded else {"image": tfds.decode.SkipDecoding()}
    try:
        return tfds.data_source(
            name, split=part, data_dir=data_dir, decoders=decoders, download=False
        )
    except (NotImplementedError, FileNotFoundError, ValueError, KeyError) as error:
        raise FileNotFoundError(
            f"{name} is not prepared{f' in {data_dir}' if data_dir else ''}. Prepare it once with\n"
            f"{_command(name, data_dir)}\nTFDS says: {error}"
        ) from error


def _command(name: str, data_dir: Path | None) -> str:
    """Format the instructions that prepare a data set."""
    by_hand = BY_HAND.get(name)
    if name == "tiny_imagenet":
        folder = "" if data_dir is None else f" --data-dir={data_dir}"
        command = f"  python -m experiments.data.tiny_imagenet --manual-dir=FOLDER{folder}\n"
        needs = "which needs no TensorFlow"
    else:
        folder = "" if data_dir is None else f" --data_dir={data_dir}"
        manual = " --manual_dir=FOLDER" if by_hand else ""
        command = f"  tfds build {name} --file_format=array_record{manual}{folder}\n"
        needs = "which needs TensorFlow (pip install tensorflow); reading it afterwards does not"
    return f"{command}{needs}{f'. FOLDER has {by_hand}' if by_hand else ''}."
