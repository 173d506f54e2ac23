import numpy as np
import pytest

from experiments.data.crops import _part, central, random_crop


def noise(height, width, channels=3, seed=0):
    shape = height, width, channels
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def shares(old, new):
    """What each of `old` pixels gives to each of `new`: triangles as wide as the wider pixel."""
    middles = (np.arange(new)[:, None] + 0.5) * old / new - 0.5
    triangles = np.maximum(0, 1 - abs(np.arange(old) - middles) / max(1, old / new))
    return triangles / triangles.sum(1, keepdims=True)


def scaled(image, size):
    """The same scaling as two products, in float64."""
    rows, columns = (shares(old, new) for old, new in zip(image.shape[:2], size, strict=True))
    return np.einsum("rh,cw,hwk->rck", rows, columns, image.astype(float))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_centre_of_an_image_of_256_is_cut_out_of_it(channels):
    image = noise(256, 300, channels)
    np.testing.assert_array_equal(central(image, (224, 224)), image[16:240, 38:262])


@pytest.mark.parametrize(("height", "width"), [(40, 64), (90, 70), (16, 16)])
def test_other_images_are_scaled_before(height, width):
    # 28 of 32 pixels are 224 of 256.
    image = noise(height, width)
    shorter = 32 / min(height, width)
    grown = round(height * shorter), round(width * shorter)
    top, left = (grown[0] - 28) // 2, (grown[1] - 28) // 2
    expected = scaled(image, grown)[top : top + 28, left : left + 28]
    cut = central(image, (28, 28))
    assert cut.dtype == np.uint8
    # Both ways of scaling in turn are rounded to a whole number.
    np.testing.assert_allclose(cut, expected, atol=1.01)


def test_the_centre_covers_a_size_that_is_not_square():
    assert central(noise(50, 90), (14, 70)).shape == (14, 70, 3)
    assert central(noise(5, 90, 1), (70, 14)).shape == (70, 14, 1)


def test_a_random_crop_is_the_part_scaled_and_flipped_for_half():
    image, flipped = noise(60, 47), 0
    for seed in range(40):
        part = _part(60, 47, np.random.default_rng(seed))
        expected = scaled(image[part], (20, 24))
        crop = random_crop(image, np.random.default_rng(seed), (20, 24))
        as_it_is, mirrored = (np.abs(a - expected).max() for a in (crop, crop[:, ::-1]))
        assert min(as_it_is, mirrored) < 1.01 < max(as_it_is, mirrored)
        flipped += mirrored < as_it_is
    # Of 40 fair coins, 6 to 34 heads; fewer or more is one draw in a hundred thousand.
    assert 5 < flipped < 35


def test_parts_have_the_areas_and_shapes_that_are_asked_for_and_lie_everywhere():
    generator = np.random.default_rng(0)
    parts = [_part(300, 400, generator) for _ in range(2000)]
    top, left = np.array([[rows.start, columns.start] for rows, columns in parts]).T
    bottom, right = np.array([[rows.stop, columns.stop] for rows, columns in parts]).T
    assert top.min() == left.min() == 0
    assert bottom.max() == 300
    assert right.max() == 400
    high, wide = bottom - top, right - left
    areas, ratios = wide * high / 120_000, wide / high
    # Sides are whole numbers, of more than 130 each.
    assert 0.198 < areas.min() < 0.21
    assert 0.95 < areas.max() <= 1
    assert 0.745 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.345


def test_an_image_of_which_no_part_fits_is_taken_whole():
    image = noise(2, 400)
    crop = random_crop(image, np.random.default_rng(0), (8, 8))
    expected = scaled(image, (8, 8))
    assert min(np.abs(a - expected).max() for a in (crop, crop[:, ::-1])) < 1.01
