"""NAS-Bench-201's networks and their score in plain PyTorch, with a graph for each network.

Absolute kernels, ones, backward, and the sum of |θ · gradient|; zero-cost-nas and NASLib compute it
so in double precision.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, relu

from experiments.models.nas201 import EDGES, PLACES

Norm = Callable[[Tensor], Tensor]


def no_norm(x: Tensor) -> Tensor:
    """Return x: no norm."""
    return x


def batch_norm(x: Tensor) -> Tensor:
    """Normalise by the statistics of the batch."""
    return torch.nn.functional.batch_norm(x, None, None, training=True)


def as_torch(params: Any, dtype: Any = torch.double) -> Any:
    """Copy params as absolute values, kernels with PyTorch's axes (…, out, in, height, width)."""
    if isinstance(params, dict):
        return {name: as_torch(part, dtype) for name, part in params.items()}
    leaf = np.asarray(params)
    order = [*range(leaf.ndim - 4), *(leaf.ndim - k for k in (1, 2, 4, 3))]
    moved = leaf.transpose(order) if leaf.ndim > 2 else leaf.T
    return torch.from_numpy(np.ascontiguousarray(moved)).abs().to(dtype)


def score(cell: tuple[int, ...], params: Any, side: int = 32, norm: Norm = no_norm) -> float:
    """Build the graph of one network and give log10 of its score.

    Args:
      cell: the operation of each edge.
      params: of `as_torch`.
      side: height and width of the image of ones.
      norm: what follows every convolution.

    Returns:
      The score; −inf where it is 0.
    """
    used: list[Tensor] = []

    def take(kernel: Tensor) -> Tensor:
        used.append(kernel.detach().clone().requires_grad_())
        return used[-1]

    ones = torch.ones(1, 3, side, side, dtype=params["stem"].dtype)
    x = norm(conv2d(ones, take(params["stem"]), None, 1, 1))
    for stage in range(sum(name.startswith("stage") for name in params)):
        if stage:
            x = _reduced({n: take(k) for n, k in params[f"reduce{stage}"].items()}, x, norm)
        kernels = params[f"stage{stage}"]
        for place in range(len(kernels["one"])):
            x = _through(cell, {n: k[place] for n, k in kernels.items()}, x, norm, take)
    weight = take(params["classifier"]["kernel"])
    (relu(norm(x)).mean((2, 3)) @ weight.T).sum().backward()
    slopes = [(kernel, kernel.grad) for kernel in used]
    total = sum(float((k.detach() * slope).abs().sum()) for k, slope in slopes if slope is not None)
    return math.log10(total) if total else -math.inf


def _through(cell: Any, kernels: Any, x: Tensor, norm: Norm, take: Any) -> Tensor:
    names = {place: name for name, place in PLACES.items()}
    nodes = [x, *(torch.zeros_like(x) for _ in range(3))]
    for edge, (operation, (start, end)) in enumerate(zip(cell, EDGES, strict=True)):
        here = nodes[start]
        if operation == 1:
            nodes[end] = nodes[end] + here
        elif operation == 4:
            nodes[end] = nodes[end] + avg_pool2d(here, 3, 1, 1, count_include_pad=False)
        elif operation:
            kernel = take(kernels[names[operation]][edge])
            found = conv2d(relu(here), kernel, None, 1, kernel.shape[-1] // 2)
            nodes[end] = nodes[end] + norm(found)
    return nodes[3]


def _reduced(kernels: Any, x: Tensor, norm: Norm) -> Tensor:
    y = norm(conv2d(relu(x), kernels["first"], None, 2, 1))
    y = norm(conv2d(relu(y), kernels["second"], None, 1, 1))
    return conv2d(avg_pool2d(x, 2), kernels["shortcut"]) + y
