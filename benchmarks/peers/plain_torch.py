"""SynFlow as a plain PyTorch loop: absolute weights, ones, backward, kthvalue.

The weights stay in the model; a round makes them positive, multiplies them by the masks and
differentiates the sum of the outputs. Scores equal to the threshold are pruned.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers import Contender, kept_after
from benchmarks.peers.torch_networks import NETWORKS, as_flax, draw, kernels
from experiments.records.machine import cores

DEVICES = {"cpu": "cpu", "gpu": "cuda"}


def threshold(scores: list[Tensor], kept: int) -> list[Tensor]:
    """Keep the scores above the largest one that is pruned."""
    flat = torch.cat([score.flatten() for score in scores])
    if kept >= flat.numel():
        return [torch.ones_like(score, dtype=torch.bool) for score in scores]
    cut = torch.kthvalue(flat, flat.numel() - kept).values
    return [score > cut for score in scores]


def one_round(
    weights: list[Tensor], masks: list[Tensor], run: Callable[[], Tensor], kept: int
) -> list[Tensor]:
    """Score |θ ⊙ ∂R/∂θ| and prune; run() computes the outputs of the weights, already positive."""
    with torch.no_grad():
        for weight, mask in zip(weights, masks, strict=True):
            weight.mul_(mask)
    run().sum().backward()
    slopes: list[Any] = [weight.grad for weight in weights]
    pairs = zip(weights, slopes, strict=True)
    return threshold([(weight.detach() * slope).abs() for weight, slope in pairs], kept)


def prune_in_torch(
    model: nn.Module, x: Tensor, rounds: int, forward: Any = None
) -> dict[str, Tensor]:
    """Prune to ρ = 100; return masks by Flax path, in PyTorch's layout."""
    found = kernels(model)
    weights, run = list(found.values()), partial(forward or model, x)
    own = [parameter.detach().clone() for parameter in model.parameters()]
    masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
    prunable = sum(weight.numel() for weight in weights)
    for turn in range(1, rounds + 1):
        _fill(model, [value.abs() for value in own])
        model.zero_grad()
        masks = one_round(weights, masks, run, kept_after(turn, rounds, prunable))
    _fill(model, own)
    if x.is_cuda:
        torch.cuda.synchronize()
    return dict(zip(found, masks, strict=True))


def _fill(model: nn.Module, values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)


def on_host(masks: dict[str, Tensor]) -> dict[str, Any]:
    """Copy masks to NumPy, with the axes of Flax."""
    return {path: as_flax(mask).cpu().numpy() for path, mask in masks.items()}


def fastest_threads(run: Callable[[], Any]) -> None:
    """Use one thread or all cores, whichever is faster: small layers are slower on many threads."""
    seconds = {}
    for threads in (1, cores()):
        torch.set_num_threads(threads)
        run()
        start = time.perf_counter()
        run()
        seconds[threads] = time.perf_counter() - start
    torch.set_num_threads(min(seconds, key=lambda threads: seconds[threads]))


def ready(name: str, device: str) -> tuple[nn.Module, Tensor]:
    """Build a network and its input of ones; use OMP_NUM_THREADS threads or all cores, TF32 off."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores())))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    build, shape = NETWORKS[name]
    place = DEVICES[device]
    return draw(build()).to(place), torch.ones(1, *shape, device=place)


def contend(name: str, device: str, compiled: bool = False) -> Contender:
    """Prune in eager mode, or with the forward and backward passes compiled."""
    model, x = ready(name, device)
    forward = torch.compile(model) if compiled else model
    weights = sum(parameter.numel() for parameter in model.parameters())

    def temporaries() -> int | None:
        if device == "cpu":
            return None
        torch.cuda.reset_peak_memory_stats()
        prune_in_torch(model, x, 1, forward)
        return torch.cuda.max_memory_allocated() - 4 * weights

    return Contender(
        lambda rounds: prune_in_torch(model, x, rounds, forward),
        on_host,
        weights,
        sum(kernel.numel() for kernel in kernels(model).values()),
        temporaries=temporaries,
        tune=lambda: fastest_threads(lambda: prune_in_torch(model, x, 2, forward)),
        notes=lambda: {"threads": torch.get_num_threads()},
    )
