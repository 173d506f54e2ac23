"""ImageNet's VGG-19 at its initialisation, and the settings of the figures about it."""

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from experiments.cells.network import initialise
from experiments.models.vgg_imagenet import VGGImageNet
from experiments.records.rows import RESULTS, Row
from synflow_jax import __version__, linen, synflow_saliency

# Raise it when a change to the experiments changes rows: they are then made anew.
RECIPE = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a figure."""

    seed: int = 0
    """Seed of the initialisation, the random scores and the choice of images."""
    smoke: bool = False
    """Test run of seconds: a VGG-11 of 1/16 of the width on small images."""
    out: Path | None = None
    """Folder of the results; by default experiments/results, or results/smoke for a smoke run."""
    draw: bool = False
    """Draw the rows that are stored and check the claims on them; make none."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or (Path("results", "smoke") if self.smoke else RESULTS)

    @property
    def model(self) -> VGGImageNet:
        """The network."""
        if self.smoke:
            return VGGImageNet(10, depth=11, width=4, hidden=16)
        return VGGImageNet(1000, depth=19)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return (32, 32, 3) if self.smoke else (224, 224, 3)

    def settings(self, **cell: Any) -> Row:
        """Return everything that decides one row."""
        net = self.model
        name = f"vgg{net.depth}-imagenet{'-smoke' if self.smoke else ''}"
        common = {"version": __version__, "recipe": RECIPE, "model": name}
        return {**common, "shape": list(self.shape), "seed": self.seed, **cell}


@dataclasses.dataclass(frozen=True)
class Start:
    """A network at its initialisation; params are drawn at their first use."""

    config: Config

    @cached_property
    def params(self) -> Any:
        """The params at initialisation."""
        key = jax.random.key(self.config.seed)
        return initialise(self.config.model, self.config.shape, key)["params"]

    @property
    def apply_fn(self) -> Any:
        """The network in evaluation mode: params and images to logits."""
        return linen.from_linen(self.config.model, {"params": self.params}, train=False)[1]

    @property
    def saliency(self) -> Any:
        """SynFlow's saliency."""
        return synflow_saliency(self.apply_fn, self.config.shape)


def network_order(paths: Iterable[str]) -> list[str]:
    """Sort paths such as Conv_10/kernel in the network's order: convolutions first, by number."""

    def place(path: str) -> tuple[str, int]:
        kind, _, number = path.partition("/")[0].rpartition("_")
        return kind, int(number)

    return sorted(paths, key=place)
