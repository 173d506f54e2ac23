"""Do 2:4 masks fit PyTorch's semi-structured tensors, and are products with these faster?

    python -m benchmarks.two_four

Masks of `scope=runs(4)` at ρ = 2 are converted by `to_torch`. PyTorch packs the kept weights (two
values and two positions of every four) and unpacks them, which must give the same weights. On a
GPU, the product with the packed weights is timed beside the dense product, in float16.
"""

import json
import time
from typing import Any

import jax
import numpy as np
import torch

import synflow_jax as sf

WIDTHS = (4096, 4096, 1024)
BATCH = 1024
TURNS = 20


def network(params: Any, x: Any) -> Any:
    """Apply two dense layers, with a ReLU between them."""
    return jax.nn.relu(x @ params["first"]["kernel"]) @ params["last"]["kernel"]


def masks() -> dict[str, torch.Tensor]:
    """Prune to 2:4 and return the masks in PyTorch's layout, outputs by inputs."""
    keys = jax.random.split(jax.random.key(0), 2)
    shapes = zip(("first", "last"), WIDTHS[:-1], WIDTHS[1:], keys, strict=True)
    params = {name: {"kernel": jax.random.normal(k, (a, b)) / a**0.5} for name, a, b, k in shapes}
    found = sf.synflow(params, network, WIDTHS[:1], rho=2, scope=sf.runs(4))
    return {name: torch.tensor(np.asarray(m)) for name, m in sf.files.to_torch(found, str).items()}


def unpacked(weight: torch.Tensor) -> torch.Tensor:
    """Pack a weight as PyTorch does, and unpack it again."""
    from torch.sparse import _semi_structured_conversions as layout

    packed = layout.sparse_semi_structured_from_dense_cutlass(weight)
    return layout.sparse_semi_structured_to_dense_cutlass(*packed)


def timed(weight: torch.Tensor) -> dict[str, float]:
    """Time x @ wᵀ, dense and semi-structured, on a GPU; return the least seconds of several."""
    weight = weight.cuda()
    x = torch.randn(BATCH, weight.shape[1], dtype=torch.float16, device="cuda")
    forms = {"dense": weight, "2:4": torch.sparse.to_sparse_semi_structured(weight)}
    best = dict.fromkeys(forms, float("inf"))
    for _ in range(TURNS):
        for name, form in forms.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            torch.nn.functional.linear(x, form)
            torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - begin)
    return best


def main() -> None:
    """Check each layer; time it where there is a GPU."""
    for name, mask in masks().items():
        of_four = mask.reshape(len(mask), -1, 4).sum(-1)
        weight = torch.randn(mask.shape, dtype=torch.float16) * mask
        row: dict[str, Any] = {
            "layer": name,
            "shape": list(mask.shape),
            "of each four": [int(of_four.min()), int(of_four.max())],
            "unpacks to itself": bool((unpacked(weight) == weight).all()),
        }
        if torch.cuda.is_available():
            row |= timed(weight.contiguous())
        print(json.dumps(row))


if __name__ == "__main__":
    main()
