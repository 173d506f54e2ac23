import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from experiments.data.crops import central
from experiments.data.dataset import balanced, load
from experiments.data.stream import sample, stream

SIZES = [(40, 50), (64, 30), (33, 33), (90, 45)]


def photograph(number):
    """A JPEG file of one of four sizes, every fifth grey."""
    shape = SIZES[number % 4] if number % 5 == 0 else (*SIZES[number % 4], 3)
    noise = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A small ImageNet of the official builder: 40 images of the classes 0 to 3."""
    folder = tmp_path_factory.mktemp("imagenet")
    builder = tfds.builder("imagenet2012", data_dir=folder, file_format="array_record")

    def examples(first, last):
        for number in range(first, last):
            name = f"{number:05d}.JPEG"
            yield name, {"image": photograph(number), "label": number % 4, "file_name": name}

    builder._split_generators = lambda *_, **__: {
        "train": examples(0, 40),
        "validation": examples(40, 47),
    }
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return folder


def decoded(number):
    return np.asarray(Image.open(io.BytesIO(photograph(number))).convert("RGB"))


def test_training_images_come_once_an_epoch_in_an_order_of_the_seed():
    digits = load("digits").train
    batches = list(stream("digits", "train", 64, 0, size=(8, 8), epochs=2))
    assert len(batches) == 2 * 1437 // 64
    assert {images.shape for images, _ in batches} == {(64, 8, 8, 1)}
    assert batches[0][0].dtype == np.uint8
    assert batches[0][1].dtype == np.int32
    labels = np.concatenate([labels for _, labels in batches])
    first, second = np.split(labels[: 2 * 1400], 2)
    np.testing.assert_array_equal(
        np.bincount(labels[:1437]), np.bincount(digits.labels), err_msg="each once"
    )
    assert (first != second).mean() > 0.8


@pytest.mark.parametrize("read", [0, 3, 20])
def test_a_stream_goes_on_where_it_stood(read):
    arguments = {"name": "mnist", "split": "train", "batch_size": 8, "seed": 7, "size": (6, 6)}
    with tfds.testing.mock_data(num_examples=50):
        one, again = (stream(**arguments, epochs=4) for _ in range(2))
        for _ in range(read):
            next(one)
        state = one.get_state()
        rest = list(one)
        next(again)
        again.set_state(state)
        for left, right in zip(rest, again, strict=True):
            np.testing.assert_array_equal(left[0], right[0])
            np.testing.assert_array_equal(left[1], right[1])
    assert len(rest) == 25 - read


def test_the_seed_decides_order_and_crops():
    one, again, other = (
        next(stream("digits", "train", 100, seed, size=(6, 6))) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one[0], again[0])
    assert (one[0] != other[0]).any()
    assert (one[1] != other[1]).any()


def test_test_images_come_once_in_their_order_cut_from_the_centre(photographs):
    batches = list(stream("imagenet2012", "test", 3, 0, size=(28, 28), data_dir=photographs))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    expected = {central(decoded(n), (28, 28)).tobytes(): n % 4 for n in range(40, 47)}
    assert len(expected) == 7
    for image, label in zip(images, labels, strict=True):
        assert expected.pop(image.tobytes()) == label


def test_photographs_of_many_sizes_are_streamed_at_one(photographs):
    images, labels = next(stream("imagenet2012", "train", 16, 0, data_dir=photographs))
    assert images.shape == (16, 224, 224, 3)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    with tfds.testing.mock_data(num_examples=12):
        images, labels = next(stream("imagenet2012", "test", 5, 0))
    assert images.shape == (5, 224, 224, 3)
    assert labels.max() < 1000


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sample_is_what_balanced_draws_of_a_data_set_in_memory(seed):
    drawn = sample("digits", "train", 5, 10, seed)
    expected = balanced(load("digits").train, 5, 10, seed)
    np.testing.assert_array_equal(drawn.images, expected.images)
    np.testing.assert_array_equal(drawn.labels, expected.labels)
    assert drawn.labels.dtype == np.int32


def test_a_sample_of_photographs_has_as_many_of_every_class_asked_for(photographs):
    arguments = {"size": (28, 28), "data_dir": photographs}
    images, labels = sample("imagenet2012", "train", 4, 3, 0, **arguments)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    known = {central(decoded(n), (28, 28)).tobytes(): n % 4 for n in range(40)}
    for image, label in zip(images, labels, strict=True):
        assert known.pop(image.tobytes()) == label
    other, _ = sample("imagenet2012", "train", 4, 3, 1, **arguments)
    assert (images != other).any()
    with pytest.raises(ValueError, match="size must be given for images of 3 shapes"):
        sample("imagenet2012", "train", 4, 3, 0, data_dir=photographs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "cifar"}, r"name must be one of .*'imagenet2012'.* got 'cifar'"),
        ({"split": "validation"}, r"split must be one of \('train', 'test'\), got 'validation'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 1438, "epochs": 1}, "batch_size must be at most 1437, .* got 1438"),
        ({"epochs": -1}, "epochs must be at least 1, got -1"),
        ({"size": (8, 0)}, "size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_streamed_is_named(changed, message):
    arguments = {"name": "digits", "split": "train", "batch_size": 2, "seed": 0, "size": (8, 8)}
    with pytest.raises(ValueError, match=message):
        stream(**arguments | changed)


@pytest.mark.parametrize(
    ("each", "classes", "message"),
    [
        (0, 10, "each must be at least 1, got 0"),
        (1, 11, "classes must be 1 to 10 on digits, got 11"),
        (500, 10, "each must be at most .* got 500: there are 1.. of class"),
    ],
)
def test_what_cannot_be_sampled_is_named(each, classes, message):
    with pytest.raises(ValueError, match=message):
        sample("digits", "train", each, classes, 0)


def test_imagenet_that_is_not_prepared_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        stream("imagenet2012", "train", 8, 0, data_dir=tmp_path)
    assert "tfds build imagenet2012 --file_format=array_record --manual_dir=FOLDER" in str(
        caught.value
    )
    assert "ILSVRC2012_img_train.tar" in str(caught.value)
