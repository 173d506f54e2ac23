"""The networks that are timed, in PyTorch, with the names and the weights of those in Flax."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
UNPRUNABLE = ("bias", "cls", "pos_embedding")


def conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Build a square convolution with zeros on every side."""
    return nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, bias=bias)


def fc(inputs: int, outputs: int, width: int, depth: int) -> nn.Module:
    """Build a ReLU network of `depth` hidden layers."""
    sizes, net = [inputs, *[width] * depth, outputs], nn.Sequential(nn.Flatten())
    for i in range(depth + 1):
        net.add_module(f"Dense_{i}", nn.Linear(sizes[i], sizes[i + 1]))
        if i < depth:
            net.add_module(f"relu_{i}", nn.ReLU())
    return net


def vgg16() -> nn.Module:
    """Build VGG-16 for CIFAR, with BatchNorm and one linear layer."""
    net, inputs, count = nn.Sequential(), 3, 0
    for place, step in enumerate(PLAN):
        if isinstance(step, str):
            net.add_module(f"pool_{place}", nn.MaxPool2d(2))
            continue
        net.add_module(f"Conv_{count}", conv(inputs, step, bias=True))
        net.add_module(f"BatchNorm_{count}", nn.BatchNorm2d(step))
        net.add_module(f"relu_{count}", nn.ReLU())
        inputs, count = step, count + 1
    net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    net.add_module("Dense_0", nn.Linear(inputs, 10))
    return net


class Block(nn.Module):
    """Convolutions with BatchNorm beside a shortcut, which has its own where the shape changes."""

    def __init__(self, sizes: list[tuple[int, int, int, int]], projected: bool) -> None:
        super().__init__()
        self.depth, self.projected = len(sizes), projected
        short = [(sizes[0][0], sizes[-1][1], 1, max(size[3] for size in sizes))]
        for i, (inputs, outputs, size, stride) in enumerate(sizes + short * projected):
            self.add_module(f"Conv_{i}", conv(inputs, outputs, size, stride))
            self.add_module(f"BatchNorm_{i}", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, in, height, width) to (batch, out, height/stride, width/stride)."""
        y = x
        for i in range(self.depth):
            y = self._layer(i, F.relu(y) if i else y)
        return F.relu(y + (self._layer(self.depth, x) if self.projected else x))

    def _layer(self, i: int, x: Tensor) -> Tensor:
        return self.get_submodule(f"BatchNorm_{i}")(self.get_submodule(f"Conv_{i}")(x))


def cifar_resnet(blocks: int, widths: tuple[int, ...]) -> nn.Module:
    """Build a residual network of basic blocks behind a 3×3 convolution."""
    net, inputs = nn.Sequential(), widths[0]
    net.add_module("Conv_0", conv(3, inputs))
    net.extend([nn.BatchNorm2d(inputs), nn.ReLU()])
    for i in range(blocks * len(widths)):
        stage, place = divmod(i, blocks)
        width, stride = widths[stage], 2 if stage and not place else 1
        sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        net.add_module(f"Block_{i}", Block(sizes, inputs != width))
        inputs = width
    return _headed(net, inputs, 10)


def resnet50() -> nn.Module:
    """Build the ImageNet ResNet-50, whose stride is in the 3×3 convolutions."""
    net, inputs, count = nn.Sequential(), 64, 0
    net.add_module("Conv_0", conv(3, 64, 7, 2))
    net.extend([nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)])
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for place in range(blocks):
            stride = 2 if stage and not place else 1
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
            net.add_module(f"Bottleneck_{count}", Block(sizes, not place))
            inputs, count = 4 * width, count + 1
    return _headed(net, inputs, 1000)


def _headed(net: nn.Sequential, inputs: int, classes: int) -> nn.Module:
    net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    net.add_module("linear", nn.Linear(inputs, classes))
    return net


class Encoder(nn.Module):
    """Attention and an MLP, each behind a LayerNorm and beside a skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, sizes = heads, {"up": (width, 4 * width), "down": (4 * width, width)}
        for name in ("q", "k", "v", "out", "up", "down"):
            self.add_module(name, nn.Linear(*sizes.get(name, (width, width))))
        self.norms = nn.ModuleList([nn.LayerNorm(width, 1e-6) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, length, width) to tokens."""
        y = self.norms[0](x)
        parts = [self.get_submodule(name)(y).unflatten(-1, (self.heads, -1)) for name in "qkv"]
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts))
        x = x + self.get_submodule("out")(y.transpose(1, 2).flatten(2))
        y = F.gelu(self.get_submodule("up")(self.norms[1](x)))
        return x + self.get_submodule("down")(y)


class ViT(nn.Module):
    """ViT-B/16 for images of 224×224."""

    def __init__(self, width: int = 768, heads: int = 12, depth: int = 12, patch: int = 16) -> None:
        super().__init__()
        self.patch, self.patches = patch, nn.Linear(3 * patch**2, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embedding = nn.Parameter(torch.zeros(1, (224 // patch) ** 2 + 1, width))
        blocks = nn.Sequential()
        for i in range(depth):
            blocks.add_module(f"Block_{i}", Encoder(width, heads))
        self.blocks, self.norm = blocks, nn.LayerNorm(width, 1e-6)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, 1000)."""
        # A patch lies channel first here and last in Flax: its kernel has other rows.
        x = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.patches(x)], 1)
        x = self.blocks(x + self.pos_embedding)
        return self.head(self.norm(x)[:, 0])


SQUARE = 10_000
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "fc": (lambda: fc(784, 10, 100, 5), (1, 28, 28)),
    "vgg16": (vgg16, (3, 32, 32)),
    "resnet18": (lambda: cifar_resnet(2, (64, 128, 256, 512)), (3, 32, 32)),
    "resnet20": (lambda: cifar_resnet(3, (16, 32, 64)), (3, 32, 32)),
    "resnet110": (lambda: cifar_resnet(18, (16, 32, 64)), (3, 32, 32)),
    "resnet50": (resnet50, (3, 224, 224)),
    "vit_b16": (ViT, (3, 224, 224)),
    "mlp_1e9": (lambda: fc(SQUARE, SQUARE, SQUARE, 9), (SQUARE, 1, 1)),
}


def kernels(model: nn.Module) -> dict[str, Tensor]:
    """List the prunable weights by their Flax paths, in the order of Flax."""
    found = {}
    for name, weight in model.named_parameters():
        parts = name.replace("blocks.", "").split(".")
        if weight.ndim > 1 and parts[-1] not in UNPRUNABLE:
            found[(*parts[:-1], "kernel")] = weight
    return {"/".join(path): found[path] for path in sorted(found)}


def as_flax(weight: Any) -> Any:
    """Order the axes (out, in, …) as Flax does, (…, in, out)."""
    return weight.permute(*range(2, weight.ndim), 1, 0)


def draw(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw the weights that benchmarks.shared.networks.draw draws for the same network in Flax."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
        for weight in kernels(model).values():
            kernel = as_flax(weight)
            values = rng.standard_normal(tuple(kernel.shape), np.float32)
            values *= np.sqrt(2 / np.prod(kernel.shape[:-1])).astype(np.float32)
            kernel.copy_(torch.from_numpy(values))
    return model.eval()
