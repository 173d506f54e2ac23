import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.dataset import (
    CHANNELS,
    Dataset,
    Split,
    augment,
    balanced,
    load,
    resized,
    scoring_batches,
)


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
        ("tiny_imagenet", (64, 64, 3), 200),
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
    assert data.augmented == (data.shape[2] == 3)


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


def test_imagenet_is_not_read_whole():
    with pytest.raises(ValueError, match=r"got 'imagenet2012'.* with .*stream.*sample"):
        load("imagenet2012")


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_the_mean_of_a_channel_becomes_0_and_a_deviation_above_it_1(name):
    mean, deviation = (np.array(part)[None, None, None] for part in CHANNELS[name])
    none = Split(np.zeros((0, 4, 4, mean.size), np.uint8), np.zeros(0, np.int32))
    for white in (16, 255):
        data = Dataset(name, none, none, 10, white)
        for add in (0, 1):
            pixels = jnp.asarray(white * (mean + add * deviation), jnp.float32)
            # Differences of numbers near 1 in float32, over deviations of 0.22 and more.
            np.testing.assert_allclose(data.normalise(pixels), np.full(mean.shape, add), atol=2e-6)


def test_augmentation_is_that_of_a_loop():
    key = jax.random.key(3)
    images = np.random.default_rng(0).integers(0, 256, (6, 10, 8, 3), np.uint8)
    rows, columns, flips = jax.random.split(key, 3)
    tops, lefts = (jax.random.randint(part, (6,), 0, 9) for part in (rows, columns))
    expected = np.zeros_like(images)
    for one, flip in enumerate(jax.random.bernoulli(flips, shape=(6,))):
        for row in range(10):
            for column in range(8):
                down, right = row + int(tops[one]) - 4, column + int(lefts[one]) - 4
                if 0 <= down < 10 and 0 <= right < 8:
                    place = 7 - column if flip else column
                    expected[one, row, place] = images[one, down, right]
    np.testing.assert_array_equal(augment(key, jnp.asarray(images)), expected)


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


def coloured(each, classes=100):
    """A CIFAR-100 of which every image is one colour, which says its number."""
    count = each * classes
    colours = np.stack([np.arange(count) // 250, np.arange(count) % 250, np.full(count, 9)], -1)
    images = np.broadcast_to(colours[:, None, None].astype(np.uint8), (count, 32, 32, 3))
    split = Split(images, (np.arange(count) % classes).astype(np.int32))
    return Dataset("cifar100", split, split, classes, 255)


def pixels_of(batches, data):
    """The pixels before they were normalised."""
    mean, deviation = (np.array(part) for part in CHANNELS[data.name])
    images = np.concatenate([images for images, _ in batches])
    return np.round((images * deviation + mean) * data.white).astype(int)


def test_scoring_batches_have_as_many_of_every_class_and_mix_them():
    data = coloured(15)
    batches = scoring_batches(data, 10, 0, augmented=False)
    assert [len(labels) for _, labels in batches] == [256, 256, 256, 232]
    assert all(images.dtype == jnp.float32 for images, _ in batches)
    labels = np.concatenate([labels for _, labels in batches])
    assert np.bincount(labels).tolist() == [10] * 100
    # 256 of 1000 examples miss a class with probability 0.05; in class order they would miss 74.
    assert len(np.unique(labels[:256])) > 80
    drawn = pixels_of(batches, data)[:, 0, 0] @ [250, 1, 0]
    np.testing.assert_array_equal(drawn % 100, labels)
    of_balanced = balanced(data.train, 10, 100, 0).images[:, 0, 0].astype(int) @ [250, 1, 0]
    assert sorted(drawn) == sorted(of_balanced)


def test_scoring_batches_are_augmented_as_in_training_by_seed():
    data = coloured(4)
    plain, one, again, other = (
        pixels_of(scoring_batches(data, 3, seed, augmented), data)
        for seed, augmented in ((0, False), (0, True), (0, True), (1, True))
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    # The pixels that the crop left in are the image's own, the others are black; 4 pixels at
    # most are lost on a side.
    inside = one[..., 2:] == 9
    np.testing.assert_array_equal(one, np.where(inside, plain, 0))
    assert inside[:, 4:28, 4:28].all()
    lost = (~inside[..., 0]).sum((1, 2))
    assert lost.max() <= 32 * 32 - 28 * 28
    # 300 fair draws of 9 · 9 places.
    assert len(np.unique(lost)) > 10


def test_digits_are_scored_as_they_are():
    data = load("digits", examples=200)
    plain, augmented = (scoring_batches(data, 5, 0, choice) for choice in (False, True))
    np.testing.assert_array_equal(plain[0][0], augmented[0][0])


def test_resized_images_are_those_of_a_loop_and_normalising_commutes():
    data = coloured(1, 10)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 3), np.uint8)
    grown = np.asarray(resized(jnp.asarray(images), (8, 9)))
    expected = np.zeros((2, 8, 9, 3))
    for row in range(8):
        for column in range(9):
            # Pixels are squares: the middle of pixel r of 8 is at (r + 1/2)/2 - 1/2 of 4.
            down, right = (row + 0.5) / 2 - 0.5, (column + 0.5) / 3 - 0.5
            for y in range(int(np.floor(down)), int(np.floor(down)) + 2):
                for x in range(int(np.floor(right)), int(np.floor(right)) + 2):
                    share = (1 - abs(down - y)) * (1 - abs(right - x))
                    nearest = images[:, np.clip(y, 0, 3), np.clip(x, 0, 2)]
                    expected[:, row, column] += share * nearest
    # Numbers up to 255 in float32.
    np.testing.assert_allclose(grown, expected, atol=1e-4)
    before = resized(data.normalise(jnp.asarray(images)), (8, 9))
    np.testing.assert_allclose(before, data.normalise(jnp.asarray(grown)), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((1, 4, 4, 3), (0, 4), r"size must be .* got \(0, 4\)"),
        ((1, 4, 4, 3), (4, 4, 3), r"size must be .* got \(4, 4, 3\)"),
        ((4, 4, 3), (4, 4), r"images must be .* got shape \(4, 4, 3\)"),
    ],
)
def test_sizes_that_are_none_are_named(shape, size, message):
    with pytest.raises(ValueError, match=message):
        resized(jnp.zeros(shape, jnp.uint8), size)
