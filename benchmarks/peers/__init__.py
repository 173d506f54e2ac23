"""The contenders: this library, PyTorch as one writes it down, JAX with a sort, and the floor.

Each module but torch_networks has `contend(name, device)`, which makes a network ready to prune.
None imports a framework that it does not use: a job from a cold process pays for its own alone.
"""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

RHO = 100.0
MODULES = {
    "ours": "ours",
    "PyTorch": "plain_torch",
    "torch.compile": "compiled_torch",
    "naive JAX": "naive_jax",
    "floor": "floor",
}


@dataclass(frozen=True)
class Contender:
    """A network, and the ways to prune and to measure it."""

    prune: Callable[[int], Any]  # prunes to RHO in so many rounds; returns when it is done
    on_host: Callable[[Any], dict[str, Any]]  # what prune returned, as NumPy masks by Flax path
    weights: int
    prunable: int
    any_rounds: bool = True  # False where another number of rounds is another program
    temporaries: Callable[[], int | None] = lambda: None  # bytes beside params and masks
    tune: Callable[[], object] = lambda: None  # chooses its settings, before steady rounds
    notes: Callable[[], dict[str, Any]] = dict  # what else belongs in its row


def contend(contender: str, name: str, device: str) -> Contender:
    """Make a contender ready for one network."""
    module = importlib.import_module(f"benchmarks.peers.{MODULES[contender]}")
    return module.contend(name, device)


def kept_after(turn: int, rounds: int, prunable: int) -> int:
    """How many weights stay after a round, 1 to `rounds`, of the exponential schedule."""
    return math.ceil(prunable * RHO ** (-turn / rounds) * (1 - 1e-9))
