"""Tiny-ImageNet as a TFDS data set: 200 classes, 64×64 pixels, 500 training images of each.

Put the official archive (http://cs231n.stanford.edu/tiny-imagenet-200.zip) into a folder; then

    python -m experiments.data.tiny_imagenet --manual-dir FOLDER

writes array_record files once, without TensorFlow. Labels are places in the sorted WordNet ids. The
bytes of the JPEG files are stored unchanged; grey images become RGB when they are read. The
archive's test images have no labels and are left out.
"""

import dataclasses
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
import tyro

from experiments.records.console import ready

ARCHIVE = "tiny-imagenet-200.zip"
ROOT = "tiny-imagenet-200"
CLASSES = 200
SIZE = 64


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Tiny-ImageNet: splits train and validation."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {ARCHIVE} into the folder, as it is."

    def _info(self) -> Any:
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=CLASSES),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="ImageNet's 200-class teaching set, 64×64 pixels.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        archive = Path(dl_manager.manual_dir, ARCHIVE)
        features: Any = self.info.features
        features["label"].names = _classes(archive)
        return {
            "train": self._generate_examples(archive, "train"),
            "validation": self._generate_examples(archive, "val"),
        }

    def _generate_examples(self, archive: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with zipfile.ZipFile(archive) as files:
            labelled = _validation(files) if split == "val" else _training(files)
            for path, label in labelled:
                yield path, {"image": io.BytesIO(files.read(path)), "label": label}


def _classes(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as files:
        classes = sorted(files.read(f"{ROOT}/wnids.txt").decode().split())
    if len(classes) != CLASSES:
        raise ValueError(f"{archive} must list {CLASSES} classes in wnids.txt, got {len(classes)}")
    return classes


def _training(files: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Yield the path and the class of every training image: ROOT/train/CLASS/images/NAME."""
    for path in files.namelist():
        if path.startswith(f"{ROOT}/train/") and path.endswith(".JPEG"):
            yield path, path.split("/")[2]


def _validation(files: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Yield the path and the class of every validation image, from lines of NAME, CLASS, box."""
    for line in files.read(f"{ROOT}/val/val_annotations.txt").decode().splitlines():
        name, label, *_ = line.split("\t")
        yield f"{ROOT}/val/images/{name}", label


@dataclasses.dataclass(frozen=True)
class Config:
    """Prepare Tiny-ImageNet for TFDS, without TensorFlow."""

    manual_dir: Path
    """Folder that has tiny-imagenet-200.zip."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default TFDS_DATA_DIR or ~/tensorflow_datasets."""


def prepare(config: Config) -> dict[str, int]:
    """Write the data set as array_record files, unless it is prepared already.

    Args:
      config: folders of the archive and of the data set.

    Returns:
      The number of examples of every split.

    Raises:
      FileNotFoundError: the archive is not there.
      ValueError: the archive is not Tiny-ImageNet.
    """
    builder = TinyImagenet(data_dir=config.data_dir, file_format="array_record")
    if not builder.is_prepared() and not Path(config.manual_dir, ARCHIVE).is_file():
        raise FileNotFoundError(
            f"manual-dir must be a folder with {ARCHIVE}, got {config.manual_dir}"
        )
    download = tfds.download.DownloadConfig(manual_dir=config.manual_dir, try_download_gcs=False)
    builder.download_and_prepare(download_config=download)
    return {name: split.num_examples for name, split in builder.info.splits.items()}


if __name__ == "__main__":
    print(ready(prepare, tyro.cli(Config)))
