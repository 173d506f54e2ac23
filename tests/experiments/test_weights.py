"""How many weights each network has, and how they are drawn."""

from functools import cache
from itertools import pairwise
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax import lax

from experiments.models import MODELS, ModelName, layers

VGGS = {
    "vgg11": [64, 128, 256, 256, *[512] * 4],
    "vgg13": [64, 64, 128, 128, 256, 256, *[512] * 4],
    "vgg16": [64, 64, 128, 128, *[256] * 3, *[512] * 6],
    "vgg19": [64, 64, 128, 128, *[256] * 4, *[512] * 8],
}
HEADS = {
    "cifar": [512, 10],
    "tiny": [4 * 512, 1024, 1024, 200],
    "imagenet": [49 * 512, 4096, 4096, 1000],
}
# All weights of the CIFAR networks of 10 classes, and torchvision's for ImageNet, as published.
PUBLISHED = {
    "vgg11": 9_231_114,
    "vgg13": 9_416_010,
    "vgg16": 14_728_266,
    "vgg19": 20_040_522,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "resnet152": 58_156_618,
    "vgg16-imagenet": 138_357_544,
    "vgg19-imagenet": 143_667_240,
    "resnet18-imagenet": 11_689_512,
    "resnet50-imagenet": 25_557_032,
}
# Prunable weights as the paper's code counts them.
PAPER = {
    ("vgg11", 10): 9_222_848,
    ("vgg16", 10): 14_715_584,
    ("vgg16", 100): 14_761_664,
    ("vgg19", 10): 20_024_000,
    ("resnet20", 10): 270_896,
    ("resnet56", 10): 851_504,
    ("resnet18", 10): 11_164_352,
    ("resnet50-imagenet", 1000): 25_502_912,
    ("vgg19-imagenet", 1000): 143_652_544,
}


def data_of(name):
    """Which images the network is for: their size, and how many classes."""
    kind = name.partition("-")[2]
    return {"tiny": (64, 200), "imagenet": (224, 1000)}.get(kind, (32, 10))


@pytest.fixture(autouse=True)
def _xla_convolves(monkeypatch):
    """Trace quickly: a convolution by patches takes more operations."""
    monkeypatch.setattr(layers, "quick_conv", lambda: lax.conv_general_dilated)


@cache
def leaves(name, classes):
    ones = jax.ShapeDtypeStruct((1, data_of(name)[0], data_of(name)[0], 3), jnp.float32)
    shapes = jax.eval_shape(MODELS[name](classes).init, jax.random.key(0), ones)
    return traverse_util.flatten_dict(shapes["params"], sep="/")


def prunable(name, classes):
    return sum(x.size for path, x in leaves(name, classes).items() if path.endswith("kernel"))


def total(name):
    return sum(x.size for x in leaves(name, data_of(name)[1]).values())


def test_every_name_has_a_model():
    assert set(MODELS) == set(get_args(ModelName))


@pytest.mark.parametrize(("name", "classes"), PAPER)
def test_prunable_weights_are_those_of_the_paper(name, classes):
    assert prunable(name, classes) == PAPER[name, classes]


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_weights_are_the_published_ones(name):
    assert total(name) == PUBLISHED[name]


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("vgg")])
def test_vggs_have_the_weights_of_their_plan(name):
    depth, _, kind = name.partition("-")
    widths, head = VGGS[depth], HEADS[kind if kind in HEADS else "cifar"]
    weights = sum(9 * a * b for a, b in pairwise([3, *widths])) + sum(
        a * b for a, b in pairwise(head)
    )
    norms = 0 if kind in ("plain", "imagenet") else 2 * sum(widths)
    assert prunable(name, head[-1]) == weights
    assert total(name) == weights + sum(widths) + sum(head[1:]) + norms


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifar_resnets_grow_with_the_square_of_their_width(depth, width):
    name, n = f"{'wide-' * (width == 32)}resnet{depth}", (depth - 2) // 6
    # 3×3: 2n at w; one of w·2w and 2n − 1 at 2w; one of 2w·4w and 2n − 1 at 4w. 1×1: 2w² and 8w².
    square = 9 * (2 * n + 2 + 4 * (2 * n - 1) + 8 + 16 * (2 * n - 1)) + 2 + 8
    assert prunable(name, 10) == square * width**2 + (27 + 40) * width
    # Scale and bias of a norm a convolution: 2n + 1 of w, of 2w and of 4w channels.
    assert total(name) - prunable(name, 10) == 2 * (2 * n + 1) * 7 * width + 10


@pytest.mark.parametrize("classes", [10, 100])
def test_the_small_networks_have_the_layers_of_the_paper(classes):
    assert prunable("fc", classes) == 32**2 * 3 * 100 + 4 * 100**2 + 100 * classes
    assert prunable("conv", classes) == 27 * 32 + 9 * 32**2 + 32**2 * 32 * classes


def test_the_resnet_of_tiny_imagenet_is_that_of_cifar():
    tiny, cifar = leaves("resnet18-tiny", 200), leaves("resnet18", 200)
    assert {p: x.shape for p, x in tiny.items()} == {p: x.shape for p, x in cifar.items()}
    assert tiny["Conv_0/kernel"].shape == (3, 3, 3, 64)
    assert leaves("resnet18-imagenet", 1000)["Conv_0/kernel"].shape == (7, 7, 3, 64)


@cache
def drawn(name, paths):
    """Draw some leaves of a network; nothing else of it is compiled."""
    size, classes = data_of(name)
    model, ones = MODELS[name](classes), jnp.ones((1, size, size, 3))

    def some():
        found = model.init(jax.random.key(0), ones)["params"]
        flat = traverse_util.flatten_dict(found, sep="/")
        return {path: flat[path] for path in paths}

    return jax.jit(some)()


NORMAL = {
    ("fc", "Dense_0/kernel"): (2 / 3072) ** 0.5,
    ("conv", "Conv_1/kernel"): (2 / (9 * 32)) ** 0.5,
    ("vgg11", "Conv_1/kernel"): (2 / (9 * 64)) ** 0.5,
    ("vgg11-plain", "Conv_3/kernel"): (2 / (9 * 256)) ** 0.5,
    ("vgg11-plain", "Dense_0/kernel"): (2 / 512) ** 0.5,
    ("resnet20", "Block_8/Conv_1/kernel"): (2 / (9 * 64)) ** 0.5,
    ("resnet20", "Block_6/Conv_2/kernel"): (2 / 32) ** 0.5,
    ("wide-resnet20", "linear/kernel"): (2 / 128) ** 0.5,
    ("resnet18", "Block_4/Conv_0/kernel"): (2 / (9 * 256)) ** 0.5,
    ("resnet18", "Block_4/Conv_2/kernel"): (2 / 256) ** 0.5,
    ("resnet18-imagenet", "Conv_0/kernel"): (2 / (49 * 64)) ** 0.5,
    ("resnet50", "Bottleneck_3/Conv_0/kernel"): (2 / 128) ** 0.5,
    ("resnet50", "Bottleneck_0/Conv_2/kernel"): (2 / 256) ** 0.5,
    ("vgg11-tiny", "Conv_1/kernel"): (2 / (9 * 128)) ** 0.5,
    ("vgg11-tiny", "Dense_2/kernel"): 0.01,
    ("vgg16-imagenet", "Conv_2/kernel"): (2 / (9 * 128)) ** 0.5,
    ("vgg16-imagenet", "Dense_2/kernel"): 0.01,
}


@pytest.mark.parametrize("name", sorted({name for name, _ in NORMAL}))
def test_kernels_are_normal_with_the_deviation_of_the_paper(name):
    found = drawn(name, tuple(path for one, path in NORMAL if one == name))
    for path, kernel in found.items():
        values = np.asarray(kernel)
        # Of n draws, the deviation is known to 0.7/√n and the fourth moment, 3, to 5/√n.
        wide = 4 / values.size**0.5
        np.testing.assert_allclose(np.std(values), NORMAL[name, path], rtol=0.7 * wide)
        fourth = np.mean(values**4) / np.mean(values**2) ** 2
        np.testing.assert_allclose(fourth, 3, atol=5 * wide)


@pytest.mark.parametrize(("name", "fan_in"), [("resnet18", 512), ("resnet50", 2048)])
def test_the_last_layer_of_a_deep_resnet_is_uniform(name, fan_in):
    found = drawn(name, ("linear/kernel", "linear/bias"))
    bound = fan_in**-0.5
    for leaf in found.values():
        assert 0.7 * bound < float(jnp.abs(leaf).max()) <= bound
    # The deviation of 5,120 draws or more is known to 1 %.
    np.testing.assert_allclose(jnp.std(found["linear/kernel"]), bound / 3**0.5, rtol=0.03)


@pytest.mark.parametrize("name", ["fc", "conv", "vgg11", "vgg11-plain", "resnet20", "vgg11-tiny"])
def test_all_other_biases_start_at_0_and_scales_at_1(name):
    paths = [p for p in leaves(name, data_of(name)[1]) if not p.endswith("kernel")]
    for path, leaf in drawn(name, tuple(paths)).items():
        assert np.all(np.asarray(leaf) == float(path.endswith("scale"))), path
