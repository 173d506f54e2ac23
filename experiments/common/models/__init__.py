"""The paper's networks in Flax Linen, one file a family; all are called `model(x, train=False)`."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn

from experiments.common.models.conv import Conv
from experiments.common.models.fc import FC
from experiments.common.models.resnet import resnet18, resnet20
from experiments.common.models.vgg import VGG

ModelName = Literal["fc", "conv", "vgg11", "vgg16", "resnet20", "resnet18"]

MODELS: dict[ModelName, Callable[[int], nn.Module]] = {
    "fc": FC,
    "conv": Conv,
    "vgg11": partial(VGG, depth=11),
    "vgg16": partial(VGG, depth=16),
    "resnet20": resnet20,
    "resnet18": resnet18,
}
