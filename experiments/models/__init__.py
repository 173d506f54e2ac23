"""The paper's networks in Flax Linen, one file a family, called as `model(x, train=False)`.

Beside them are a decoder, the space of NAS-Bench-201 and a count of multiply-adds. Knows no data,
no training and no method of pruning.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn

from experiments.models.conv import Conv
from experiments.models.fc import FC
from experiments.models.resnet import cifar_resnet, resnet
from experiments.models.vgg import VGG
from experiments.models.vgg_imagenet import VGGImageNet

# fmt: off
ModelName = Literal[
    "fc", "conv",
    "vgg11", "vgg13", "vgg16", "vgg19",
    "vgg11-plain", "vgg13-plain", "vgg16-plain", "vgg19-plain",
    "resnet20", "resnet32", "resnet44", "resnet56", "resnet110",
    "wide-resnet20", "wide-resnet32", "wide-resnet44", "wide-resnet56", "wide-resnet110",
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "vgg11-tiny", "vgg16-tiny", "resnet18-tiny",
    "vgg16-imagenet", "vgg19-imagenet", "resnet18-imagenet", "resnet50-imagenet",
]
# fmt: on

MODELS: dict[ModelName, Callable[[int], nn.Module]] = {
    "fc": FC,
    "conv": Conv,
    "vgg11": partial(VGG, depth=11),
    "vgg13": partial(VGG, depth=13),
    "vgg16": partial(VGG, depth=16),
    "vgg19": partial(VGG, depth=19),
    "vgg11-plain": partial(VGG, depth=11, batch_norm=False),
    "vgg13-plain": partial(VGG, depth=13, batch_norm=False),
    "vgg16-plain": partial(VGG, depth=16, batch_norm=False),
    "vgg19-plain": partial(VGG, depth=19, batch_norm=False),
    "resnet20": partial(cifar_resnet, depth=20),
    "resnet32": partial(cifar_resnet, depth=32),
    "resnet44": partial(cifar_resnet, depth=44),
    "resnet56": partial(cifar_resnet, depth=56),
    "resnet110": partial(cifar_resnet, depth=110),
    "wide-resnet20": partial(cifar_resnet, depth=20, width=32),
    "wide-resnet32": partial(cifar_resnet, depth=32, width=32),
    "wide-resnet44": partial(cifar_resnet, depth=44, width=32),
    "wide-resnet56": partial(cifar_resnet, depth=56, width=32),
    "wide-resnet110": partial(cifar_resnet, depth=110, width=32),
    "resnet18": partial(resnet, depth=18),
    "resnet34": partial(resnet, depth=34),
    "resnet50": partial(resnet, depth=50),
    "resnet101": partial(resnet, depth=101),
    "resnet152": partial(resnet, depth=152),
    "vgg11-tiny": partial(VGGImageNet, depth=11, hidden=1024, batch_norm=True),
    "vgg16-tiny": partial(VGGImageNet, depth=16, hidden=1024, batch_norm=True),
    "resnet18-tiny": partial(resnet, depth=18),
    "vgg16-imagenet": partial(VGGImageNet, depth=16),
    "vgg19-imagenet": partial(VGGImageNet, depth=19),
    "resnet18-imagenet": partial(resnet, depth=18, imagenet=True),
    "resnet50-imagenet": partial(resnet, depth=50, imagenet=True),
}
