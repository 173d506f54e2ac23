"""Crops of single images on the host, which bring photographs of any size to one size.

Images are uint8 (height, width, channels). Scaling is bilinear and averages over all the pixels
that a new pixel covers.

The reference also jitters the colours of ImageNet's training images. No figure of the paper trains
on them, and here colours are unchanged.
"""

import math

import numpy as np
from PIL import Image

MARGIN = 256 / 224  # the shorter side after scaling, over the side of the crop
AREA = 0.2, 1.0
RATIO = 3 / 4, 4 / 3
TRIES = 10


def central(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image so that the crop spans 224/256 of one side, and crop the centre.

    The crop spans at most that much of the other side. For a size of (224, 224) the shorter side
    becomes 256.

    Args:
      image: the image.
      size: height and width of the result.

    Returns:
      The centre, uint8 (*size, channels).
    """
    height, width, _ = image.shape
    scale = max(MARGIN * size[0] / height, MARGIN * size[1] / width)
    grown = round(height * scale), round(width * scale)
    top, left = ((a - b) // 2 for a, b in zip(grown, size, strict=True))
    return _scaled(image, grown)[top : top + size[0], left : left + size[1]]


def random_crop(
    image: np.ndarray, generator: np.random.Generator, size: tuple[int, int]
) -> np.ndarray:
    """Crop a random part of an image, scale it to a size, and flip it with probability 1/2.

    The part has 0.2 to 1 of the area, as in the reference, and a width of 3/4 to 4/3 of its height
    (log-uniform). After ten draws that do not fit, the whole image is taken.

    Args:
      image: the image.
      generator: decides the part and the flip.
      size: height and width of the result.

    Returns:
      The part, uint8 (*size, channels).
    """
    height, width, _ = image.shape
    scaled = _scaled(image[_part(height, width, generator)], size)
    return scaled[:, ::-1] if generator.random() < 0.5 else scaled


def _part(height: int, width: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """Draw the rows and columns of a part."""
    for _ in range(TRIES):
        area = height * width * generator.uniform(*AREA)
        ratio = math.exp(generator.uniform(*np.log(RATIO)))
        high, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < high <= height and 0 < wide <= width:
            top = int(generator.integers(height - high + 1))
            left = int(generator.integers(width - wide + 1))
            return slice(top, top + high), slice(left, left + wide)
    return slice(None), slice(None)


def _scaled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    scaled = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return scaled[..., None] if grey else scaled
