"""Draw VGG-16 before pruning, masked and compact.

    python -m benchmarks.picture          # some minutes, most of them compiling

For CIFAR-10, with BatchNorm, at initialisation, pruned by SynFlow in 100 rounds. Writes
docs/figures/vgg16_compact.png, or the file that --out names.
"""

import dataclasses
from pathlib import Path

from benchmarks.deep.deep_networks import NETWORKS
from benchmarks.shared.networks import draw, xla_convolution
from experiments.records.console import terminal
from experiments.records.machine import ROOT
from synflow_jax import synflow, visualize


@dataclasses.dataclass(frozen=True)
class Config:
    """Draw a pruned network."""

    network: str = "vgg16"
    """A network of benchmarks/deep/deep_networks.py."""
    rho: float = 100.0
    """Compression."""
    rounds: int = 100
    """Rounds of SynFlow."""
    out: Path = ROOT / "docs" / "figures" / "vgg16_compact.png"
    """The file: .png, .svg or .pdf."""


def main() -> None:
    """Prune and draw."""
    import tyro

    config = tyro.cli(Config, prog="python -m benchmarks.picture")
    network = NETWORKS[config.network]
    params, apply_fn = draw(network)
    with xla_convolution():
        masks = synflow(params, apply_fn, network.shape, config.rho, rounds=config.rounds)
        visualize(params, masks, apply_fn, network.shape, config.out)
    terminal().print("figure:", str(config.out))


if __name__ == "__main__":
    main()
