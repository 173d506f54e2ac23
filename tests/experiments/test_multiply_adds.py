"""Multiply-adds against published figures, hand counts and the gradient of a linear layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from experiments.models import MODELS
from experiments.models.multiply_adds import multiply_adds


@pytest.mark.parametrize(
    ("name", "classes", "size", "count"),
    [
        ("resnet18-imagenet", 1000, 224, 1_814_073_344),
        ("resnet50-imagenet", 1000, 224, 4_089_184_256),
        ("vgg16-imagenet", 1000, 224, 15_470_264_320),
        ("vgg19-imagenet", 1000, 224, 19_632_062_464),
        ("vgg16", 10, 32, 313_201_664),
        # 40.55 million as published, without weights on shortcuts, and two 1×1 convolutions.
        ("resnet20", 10, 32, 40_551_040 + 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64),
        ("vgg11-plain", 10, 32, 152_769_536),
        ("fc", 10, 28, 28 * 28 * 3 * 100 + 4 * 100 * 100 + 1000),
    ],
)
def test_the_counts_are_the_published_ones(name, classes, size, count):
    assert sum(multiply_adds(MODELS[name](classes), (size, size, 3)).values()) == count


def test_layers_are_counted_by_the_path_of_their_weights():
    assert multiply_adds(MODELS["conv"](10), (28, 28, 1)) == {
        "Conv_0/kernel": 28 * 28 * 9 * 32,
        "Conv_1/kernel": 28 * 28 * 9 * 32 * 32,
        "Dense_0/kernel": 28 * 28 * 32 * 10,
    }
    assert (
        multiply_adds(MODELS["resnet20"](10), (32, 32, 3))["Block_3/Conv_2/kernel"] == 16**2 * 512
    )


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv(6, (3, 2), strides=(2, 3), padding="VALID"),
        nn.Conv(6, (3, 3), feature_group_count=2, padding="VALID"),
        nn.Conv(4, (3, 3), feature_group_count=4, strides=2, padding="VALID"),
        nn.Conv(3, (2, 2), kernel_dilation=2, padding="VALID"),
        nn.Dense(5),  # at every pixel
    ],
    ids=["strided", "grouped", "depthwise", "dilated", "dense"],
)
def test_a_weight_counts_as_often_as_it_is_used(layer):
    x = jnp.ones((1, 9, 11, 4))
    start = jax.eval_shape(layer.init, jax.random.key(0), x)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), start)
    # On ones, the gradient of the summed output counts the uses of each weight.
    uses = jax.jit(jax.grad(lambda variables: jnp.sum(layer.apply(variables, x))))(zeros)
    assert multiply_adds(layer, x.shape[1:]) == {"kernel": int(uses["params"]["kernel"].sum())}


class Twice(nn.Module):
    """One layer, used two times."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(x.shape[-1])
        return layer(layer(x))


class Own(nn.Module):
    """A product with a kernel of its own."""

    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", nn.initializers.ones, (x.shape[-1], 2))


def test_a_shared_layer_counts_each_time():
    assert multiply_adds(Twice(), (7,)) == {"Dense_0/kernel": 98}


@pytest.mark.parametrize("model", [Own(), nn.ConvTranspose(3, (2, 2))])
def test_what_it_cannot_count_is_refused(model):
    with pytest.raises(ValueError, match=r"model must be of nn.Dense and nn.Conv.*kernel"):
        multiply_adds(model, (4, 4, 2))
