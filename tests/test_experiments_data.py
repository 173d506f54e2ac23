import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.data import Split, augment, balanced, load


def test_digits_are_split_once_for_all_and_are_disjoint():
    first, second = load("digits"), load("digits")
    assert first.train.images.shape == (1437, 8, 8, 1)
    assert first.test.images.shape == (360, 8, 8, 1)
    np.testing.assert_array_equal(first.test.images, second.test.images)
    pixels = np.concatenate([first.train.images, first.test.images]).reshape(1797, -1)
    assert len(np.unique(pixels, axis=0)) == 1797


def test_normalised_digits_have_mean_0_and_deviation_1():
    data = load("digits")
    pixels = data.normalise(jnp.asarray(data.train.images))
    # The constants have four digits.
    np.testing.assert_allclose([pixels.mean(), pixels.std()], [0, 1], atol=1e-3)


def test_the_first_examples_are_used():
    data = load("digits", examples=100)
    np.testing.assert_array_equal(data.train.labels, load("digits").train.labels[:100])
    assert len(data.test.labels) == 360


@pytest.mark.parametrize("examples", [0, -1, 1438])
def test_an_impossible_number_of_examples_is_named(examples):
    with pytest.raises(ValueError, match=f"1 to 1437 .* got {examples}"):
        load("digits", examples=examples)


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("fashion_mnist", (28, 28, 1), 10),
        ("cifar10", (32, 32, 3), 10),
        ("cifar100", (32, 32, 3), 100),
    ],
)
def test_tfds_data_sets_are_read_whole(name, shape, classes):
    import tensorflow_datasets as tfds

    with tfds.testing.mock_data(num_examples=12):
        data = load(name, examples=7)
    assert data.train.images.shape == (7, *shape) == (7, *data.shape)
    assert data.test.images.shape == (12, *shape)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int32
    assert data.classes == classes
    assert data.augmented == name.startswith("cifar")


@pytest.mark.parametrize("examples", [0, -1, 13])
def test_an_impossible_number_of_examples_of_tfds_is_named(examples):
    import tensorflow_datasets as tfds

    with (
        tfds.testing.mock_data(num_examples=12),
        pytest.raises(ValueError, match=f"1 to 12 on mnist, got {examples}"),
    ):
        load("mnist", examples=examples)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_a_data_set_that_is_not_prepared_names_the_command(name, tmp_path):
    command = f"tfds build {name} --file_format=array_record --data_dir={tmp_path}"
    with pytest.raises(FileNotFoundError) as caught:
        load(name, tmp_path)
    assert command in str(caught.value)
    assert "pip install tensorflow" in str(caught.value)
    assert str(caught.value.__cause__) in str(caught.value)


def test_a_crop_is_a_window_of_the_padded_image_flipped_or_not():
    images = jnp.arange(1, 26, dtype=jnp.uint8).reshape(1, 5, 5, 1).repeat(40, 0)
    padded = np.pad(np.asarray(images[0, ..., 0]), 4)
    windows = {padded[i : i + 5, j : j + 5].tobytes(): (i, j) for i in range(9) for j in range(9)}
    crops = np.asarray(augment(jax.random.key(0), images))[..., 0]
    plain = [crop.tobytes() in windows for crop in crops]
    flipped = [crop[:, ::-1].tobytes() in windows for crop in crops]
    assert all(a or b for a, b in zip(plain, flipped, strict=True))
    # Of 40 fair coins, 6 to 34 heads; fewer or more is one draw in a hundred thousand.
    assert 5 < sum(plain) < 35
    # 40 draws of 162 crops repeat few.
    assert len({crop.tobytes() for crop in crops}) > 20


def test_balanced_draws_as_many_of_every_class_by_seed():
    labels = np.repeat(np.arange(3, dtype=np.int32), 20)
    split = Split(np.arange(60, dtype=np.uint8)[:, None, None, None], labels)
    one, again, other = (balanced(split, 4, 3, seed) for seed in (0, 0, 1))
    assert np.bincount(one.labels).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(one.images, again.images)
    assert (one.images != other.images).any()
    np.testing.assert_array_equal(labels[one.images.ravel()], one.labels)


def test_too_few_of_a_class_are_named():
    split = Split(np.zeros((5, 1, 1, 1), np.uint8), np.array([0, 0, 0, 1, 1], np.int32))
    with pytest.raises(ValueError, match=r"at least 3 of every class .* got 2 of class 1"):
        balanced(split, 3, 2, 0)
