"""Layers as in the paper's PyTorch models, and a convolution that is fast on a CPU.

Images are (batch, height, width, channels), kernels (height, width, in, out). Inside a loop or
under vmap, XLA's own CPU convolution is 10 to 500 times slower than the same sum as one matrix
product, so a CPU runs the product and every other backend the convolution.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def patch_conv(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **settings: Any,
) -> Array:
    """Convolve as a matrix product, y = patches(x) · kernel, like `lax.conv_general_dilated`.

    Args:
      lhs: images, (batch, height, width, in).
      rhs: kernel, (height, width, in, out).
      window_strides: (rows, columns).
      padding: zeros before and after, ((top, bottom), (left, right)).
      **settings: the remaining arguments of `lax.conv_general_dilated`; only `precision` may
        differ from its default.

    Returns:
      Images, (batch, rows, columns, out).

    Raises:
      ValueError: padding is given by name, or the convolution is dilated or grouped.
    """
    precision = settings.pop("precision", None)
    _check(padding, settings)
    patches = _patches(lhs, rhs.shape[:2], window_strides, padding)
    return jnp.matmul(patches, rhs.reshape(-1, rhs.shape[-1]), precision=precision)


def _check(padding: Sequence[tuple[int, int]], settings: dict[str, Any]) -> None:
    if isinstance(padding, str):
        raise ValueError(f"padding must be pairs of integers, got {padding!r}")
    plain = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "feature_group_count": 1}
    for name, default in plain.items():
        value = settings.get(name) or default
        if value != default:
            raise ValueError(f"patch_conv supports only {name}={default}, got {value}")


def _patches(
    images: Array, size: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> Array:
    """Return the pixels under the window of each output pixel as channels, height · width · in."""
    images = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    rows = [slice(i, images.shape[1] - size[0] + i + 1, strides[0]) for i in range(size[0])]
    columns = [slice(j, images.shape[2] - size[1] + j + 1, strides[1]) for j in range(size[1])]
    return jnp.concatenate([images[:, row, column] for row in rows for column in columns], axis=-1)


def quick_conv() -> Callable[..., Array]:
    """Return the convolution that is faster on this process's backend."""
    return patch_conv if jax.default_backend() == "cpu" else lax.conv_general_dilated


def conv(features: int, size: int = 3, stride: int = 1, **settings: Any) -> nn.Conv:
    """Build a square convolution with (size − 1) / 2 zeros on every side, at any stride."""
    settings = {"conv_general_dilated_cls": quick_conv} | settings
    return nn.Conv(features, (size, size), stride, padding=(size - 1) // 2, **settings)


def batch_norm(train: bool, **settings: Any) -> nn.BatchNorm:
    """Build BatchNorm with PyTorch's constants."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, **settings)


def flatten(images: Array) -> Array:
    """Flatten images channel first, the order of the PyTorch reference."""
    return images.transpose(0, 3, 1, 2).reshape(images.shape[0], -1)


dense = partial(nn.Dense, kernel_init=kaiming_fan_in)
