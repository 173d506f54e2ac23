import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from experiments.data.dataset import load
from experiments.data.sources import source
from experiments.data.stream import sample
from experiments.data.tiny_imagenet import ARCHIVE, ROOT, Config, prepare

WNIDS = [f"n{number:08d}" for number in np.random.default_rng(0).permutation(200)]
PAINTED = WNIDS[:3]  # the classes of which the archive has images
EACH = 4


def jpeg(mode, seed):
    """A JPEG file of coarse noise, as smooth as photographs are."""
    shape = (8, 8, 3) if mode == "RGB" else (8, 8)
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((64, 64)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def files():
    """What lies in the archive: images by path, the first of every class grey."""
    images = {
        f"{ROOT}/train/{wnid}/images/{wnid}_{n}.JPEG": jpeg("RGB" if n else "L", 10 * k + n)
        for k, wnid in enumerate(PAINTED)
        for n in range(EACH)
    }
    held_out = {f"{ROOT}/val/images/val_{k}.JPEG": jpeg("RGB", 100 + k) for k in range(3)}
    return images | held_out


@pytest.fixture(scope="module")
def folders(files, tmp_path_factory):
    manual, data = tmp_path_factory.mktemp("manual"), tmp_path_factory.mktemp("data")
    boxes = [f"val_{k}.JPEG\t{wnid}\t0\t0\t62\t62\n" for k, wnid in enumerate(PAINTED)]
    with zipfile.ZipFile(manual / ARCHIVE, "w") as archive:
        archive.writestr(f"{ROOT}/wnids.txt", "\n".join(WNIDS) + "\n")
        archive.writestr(f"{ROOT}/val/val_annotations.txt", "".join(boxes))
        archive.writestr(f"{ROOT}/train/{PAINTED[0]}/{PAINTED[0]}_boxes.txt", "no image")
        archive.writestr(f"{ROOT}/test/images/test_0.JPEG", jpeg("RGB", 0))
        for path, image in files.items():
            archive.writestr(path, image)
    assert prepare(Config(manual, data)) == {"train": 3 * EACH, "validation": 3}
    return manual, data


def decoded(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def by_pixels(images, labels):
    return {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}


def test_every_image_is_there_with_its_label_and_grey_ones_are_rgb(files, folders):
    data = load("tiny_imagenet", folders[1])
    assert data.train.images.shape == (3 * EACH, 64, 64, 3)
    assert data.classes == 200
    labels = {wnid: number for number, wnid in enumerate(sorted(WNIDS))}
    expected = {
        decoded(file).tobytes(): labels[path.split("/")[2]]
        for path, file in files.items()
        if "/train/" in path
    }
    assert by_pixels(*data.train) == expected
    held_out = {
        decoded(files[f"{ROOT}/val/images/val_{k}.JPEG"]).tobytes(): labels[wnid]
        for k, wnid in enumerate(PAINTED)
    }
    assert by_pixels(*data.test) == held_out
    grey = (data.train.images.max(-1) == data.train.images.min(-1)).all((1, 2))
    assert grey.sum() == 3


def test_the_files_are_stored_as_they_are(files, folders):
    records = source("tiny_imagenet", "train", folders[1], decoded=False)
    stored = {bytes(record["image"]) for record in records}
    assert stored == {file for path, file in files.items() if "/train/" in path}


def test_a_prepared_data_set_is_left_alone(folders, tmp_path):
    manual, data = folders
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert prepare(Config(manual, data)) == prepare(Config(tmp_path, data))
    assert before == {path: path.stat().st_mtime_ns for path in data.rglob("*")}


def test_an_archive_that_is_missing_or_another_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"manual-dir must .* {ARCHIVE}, got {tmp_path}"):
        prepare(Config(tmp_path, tmp_path / "data"))
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as archive:
        archive.writestr(f"{ROOT}/wnids.txt", "n1\nn2\n")
    with pytest.raises(ValueError, match=r"must list 200 classes in wnids\.txt, got 2"):
        prepare(Config(tmp_path, tmp_path / "data"))


def test_the_error_of_load_names_the_command(tmp_path):
    command = "python -m experiments.data.tiny_imagenet --manual-dir=FOLDER"
    with pytest.raises(FileNotFoundError) as caught:
        load("tiny_imagenet", tmp_path)
    assert f"{command} --data-dir={tmp_path}\n" in str(caught.value)
    assert "needs no TensorFlow" in str(caught.value)


def test_a_class_without_images_is_named(folders):
    with pytest.raises(ValueError, match=r"each .* got 1: there are 0 of class"):
        sample("tiny_imagenet", "train", 1, 200, 0, data_dir=folders[1])
