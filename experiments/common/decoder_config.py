"""What a comparison on the decoder is asked to do, checked as it is made."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from experiments.common.decoder_methods import MethodName
from experiments.common.language import Budget
from experiments.common.models.decoder import Decoder
from experiments.common.rows import Row
from experiments.common.sweep import Cell
from experiments.common.text import CHARACTERS, MODULES, NINTH
from synflow_jax import __version__

# Raise it when a change to the text, the model, training or scoring makes other rows.
RECIPE = 1
SMALL: Any = {"rho": (4.0,), "seeds": 1, "steps": 60, "batch_size": 4, "context": 16}
SMALL |= {"width": 8, "depth": 1}


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare pruning methods at initialisation on a small language model."""

    methods: tuple[MethodName, ...] = get_args(MethodName)
    """Methods to compare, beside the dense network."""
    rho: tuple[float, ...] = (4.0, 10.0, 30.0)
    """Compression ratios."""
    seeds: int = 3
    """How many initialisations; a seed also draws the order of the text and random masks."""
    steps: int = 800
    """Training steps for every network."""
    batch_size: int = 8
    """Windows of text a step."""
    context: int = 64
    """Characters that a prediction may look back on."""
    width: int = 64
    """Features of the residual stream; the MLP has three times as many."""
    depth: int = 2
    """Blocks of attention and MLP."""
    learning_rate: float = 1e-2
    """Learning rate after the warm-up."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    smoke: bool = False
    """Take seconds: 60 steps of a tiny decoder on a little text, in place of the settings above."""
    out: Path | None = None
    """Folder of the results; by default results/decoder, or results/decoder-smoke."""

    def __post_init__(self) -> None:
        for name, good, allowed in self._rules():
            if not good:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """Yield the arguments, whether each is allowed, and what is."""
        known = get_args(MethodName)
        good = bool(self.methods) and set(self.methods) <= set(known)
        yield "methods", good, f"one or more of {known}"
        good = bool(self.rho) and all(1 <= rho < math.inf for rho in self.rho)
        yield "rho", good, "one or more finite numbers of at least 1"
        for name in ("seeds", "steps", "batch_size", "context", "depth"):
            yield name, getattr(self, name) >= 1, "at least 1"
        yield "width", self.width >= 8 and self.width % 8 == 0, "a multiple of 8"
        yield "learning_rate", 0 < self.learning_rate < math.inf, "finite and above 0"
        yield "weight_decay", 0 <= self.weight_decay < math.inf, "finite and at least 0"

    @property
    def effective(self) -> "Config":
        """The settings that are run: those of a smoke test, where it is one."""
        return dataclasses.replace(self, **SMALL) if self.smoke else self

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or Path("results", "decoder-smoke" if self.smoke else "decoder")

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules whose documentation is the text."""
        return MODULES[:NINTH] if self.smoke else MODULES

    @property
    def budget(self) -> Budget:
        """What every network gets."""
        rates = self.learning_rate, self.weight_decay
        return Budget(self.steps, self.batch_size, self.context, *rates)

    @property
    def model(self) -> Decoder:
        """The network."""
        return Decoder(len(CHARACTERS), self.width, hidden=3 * self.width, depth=self.depth)

    @property
    def cells(self) -> list[Cell]:
        """Every method at every ρ, once."""
        ratios = sorted({Cell("", rho).log10_rho: rho for rho in self.rho}.values())
        return [Cell(method, rho) for method in dict.fromkeys(self.methods) for rho in ratios]

    def settings(self, cell: Cell, seed: int, digest: str) -> Row:
        """All that decides the result of one seed of a cell; digest is that of the text."""
        model = dataclasses.asdict(self.model)
        return {
            "version": __version__,
            "recipe": RECIPE,
            "text": digest,
            "method": cell.method,
            "log10_rho": cell.log10_rho,
            "seed": seed,
            "model": {k: v for k, v in model.items() if isinstance(v, int)},
            **dataclasses.asdict(self.budget),
        }
