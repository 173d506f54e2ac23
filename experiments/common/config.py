"""What a comparison is asked to do, checked as it is made."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from experiments.common.data import DatasetName
from experiments.common.methods import CONTROLS, PAPERS, MethodName
from experiments.common.models import ModelName
from experiments.common.plan import Case
from experiments.common.train import Budget


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare pruning methods at initialisation on real data."""

    dataset: DatasetName = "digits"
    """Data set; all but digits are prepared TFDS data sets."""
    model: ModelName = "conv"
    """Network; vgg and resnet are those of CIFAR."""
    methods: tuple[MethodName, ...] = PAPERS + CONTROLS
    """Methods to compare, beside the dense network."""
    rho: tuple[float, ...] = ()
    """Compression ratios; none means half decades from 10^0.5 up to the maximal compression."""
    seeds: int = 3
    """How many initialisations."""
    epochs: int = 3
    """Epochs of training for every network."""
    batch_size: int = 32
    """Training examples a step; what is left of an epoch is dropped."""
    learning_rate: float = 0.05
    """Learning rate at the start of the cosine schedule."""
    weight_decay: float = 1e-4
    """L2 decay."""
    clip: float | None = 1.0
    """Norm to which longer gradients are cut; None, as in the paper, does not cut."""
    examples: int | None = None
    """Train on the first so many examples only."""
    seeds_at_once: int | None = None
    """Seeds trained under one vmap; by default one on a CPU and all elsewhere."""
    data_dir: Path | None = None
    """Where TFDS keeps its data; by default TFDS_DATA_DIR or ~/tensorflow_datasets."""
    out: Path | None = None
    """Folder of the results; by default results/compare/DATASET-MODEL."""

    def __post_init__(self) -> None:
        for name, good, allowed in self._rules():
            if not good:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")
        for rho in self.rho:
            if not 1 <= rho < math.inf:
                hint = f"; the density {rho:g} is rho {1 / rho:g}" if 0 < rho < 1 else ""
                raise ValueError(f"rho must be finite and at least 1, got {rho}{hint}")

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """Yield the arguments, whether each is allowed, and what is."""
        for name, kind in (("dataset", DatasetName), ("model", ModelName)):
            yield name, getattr(self, name) in get_args(kind), f"one of {get_args(kind)}"
        known = get_args(MethodName)
        good = bool(self.methods) and set(self.methods) <= set(known)
        yield "methods", good, f"one or more of {known}"
        for name in ("seeds", "epochs", "batch_size"):
            yield name, getattr(self, name) >= 1, "at least 1"
        for name in ("examples", "seeds_at_once"):
            value = getattr(self, name)
            yield name, value is None or value >= 1, "None or at least 1"
        yield "learning_rate", 0 < self.learning_rate < math.inf, "finite and above 0"
        yield "weight_decay", 0 <= self.weight_decay < math.inf, "finite and at least 0"
        yield "clip", self.clip is None or self.clip > 0, "None or above 0"

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or Path("results", "compare", f"{self.dataset}-{self.model}")

    @property
    def case(self) -> Case:
        """The network, the data set and what every network gets."""
        rates = self.learning_rate, self.weight_decay, self.clip
        return Case(
            self.model,
            self.dataset,
            Budget(self.epochs, self.batch_size, *rates),
            self.seeds,
            self.examples,
            seeds_at_once=self.seeds_at_once,
            data_dir=self.data_dir,
        )
