"""The contenders: this library, a plain PyTorch loop, JAX with a sort, and the floor.

`contend(name, device)` of a contender's module prepares a network. No module imports a framework
that it does not use, so that the time of a job in a new process has only the imports of its own.
torch_networks has the networks in PyTorch; torch_nas201 is a peer of benchmarks.search.
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
    """A network, and the functions that prune and measure it."""

    prune: Callable[[int], Any]  # prunes to RHO in so many rounds; returns when it is done
    on_host: Callable[[Any], dict[str, Any]]  # what prune returned, as NumPy masks by Flax path
    weights: int
    prunable: int
    any_rounds: bool = True  # False where another number of rounds is another program
    temporaries: Callable[[], int | None] = lambda: None  # bytes beside params and masks
    tune: Callable[[], object] = lambda: None  # chooses its settings, before steady rounds
    notes: Callable[[], dict[str, Any]] = dict  # what else belongs in its row


def contend(contender: str, name: str, device: str) -> Contender:
    """Prepare a contender for one network."""
    module = importlib.import_module(f"benchmarks.peers.{MODULES[contender]}")
    return module.contend(name, device)


def kept_after(turn: int, rounds: int, prunable: int) -> int:
    """Return the number of weights kept after round `turn` of the exponential schedule."""
    return math.ceil(prunable * RHO ** (-turn / rounds) * (1 - 1e-9))
