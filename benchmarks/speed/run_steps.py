"""The settings of `benchmarks.run`, its measurements in order, and which of them are done."""

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.shared.records import load
from experiments.records.machine import ROOT, has_torch, stamp

Rows = dict[tuple[str, str], dict[str, Any]]
CONTENDERS = {
    "cpu": ("ours", "PyTorch", "naive JAX", "floor"),
    "gpu": ("ours", "PyTorch", "torch.compile", "naive JAX", "floor"),
}
NETWORKS = {
    "cpu": ("fc", "vgg16", "resnet18", "resnet20", "resnet110"),
    "gpu": ("fc", "vgg16", "resnet18", "resnet20", "resnet110", "resnet50", "vit_b16", "mlp_1e9"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Time SynFlow beside its peers and the floor."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Where to compute."""
    networks: tuple[str, ...] = ()
    """Which networks; none means all of the device."""
    turns: int = 7
    """The largest number of turns of a contender."""
    cold: int = 1
    """Number of first calls and whole jobs of each contender, alternating."""
    minutes: float = 60.0
    """Start no measurement after so many minutes; the next run continues."""
    again: bool = False
    """Drop the rows of these networks and measure them again."""
    quick: bool = False
    """A smoke test of half a minute: the smallest network, two turns, jobs of ten rounds."""
    out: Path | None = None
    """Folder of the results: benchmarks/results, or results/benchmarks if quick."""

    def __post_init__(self) -> None:
        known = NETWORKS[self.device]
        if unknown := set(self.networks) - set(known):
            raise ValueError(f"networks must be among {known}, got {sorted(unknown)}")
        for name in ("turns", "cold", "minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def path(self) -> Path:
        """The file of rows."""
        default = ROOT / ("results/benchmarks" if self.quick else "benchmarks/results")
        return (self.out or default) / f"run_{self.device}.json"

    @property
    def rounds(self) -> int:
        """Rounds of a whole job."""
        return 10 if self.quick else 100

    @property
    def contenders(self) -> tuple[str, ...]:
        """The contenders, without those of PyTorch where it is not installed."""
        names = CONTENDERS[self.device]
        return names if has_torch() else tuple(name for name in names if "orch" not in name)


class Step(NamedTuple):
    """One measurement; steady rounds are of all contenders at once."""

    network: str
    kind: str
    contender: str = "all"


def plan(config: Config) -> list[Step]:
    """List the measurements, the contenders alternating."""
    chosen = config.networks or (("fc",) if config.quick else NETWORKS[config.device])
    cold = [name for name in config.contenders if name != "floor"] * config.cold
    found = []
    for network in chosen:
        found.append(Step(network, "steady"))
        found += [Step(network, kind, name) for kind in ("first", "whole") for name in cold]
    return found


def measured(step: Step, rows: Rows, config: Config) -> bool:
    """Return whether the rows have what a step would measure."""
    names = config.contenders if step.kind == "steady" else (step.contender,)
    found = [rows.get((step.network, name), {}) for name in names]
    wanted = 1 if step.kind == "steady" else config.cold
    enough = [row.get(step.kind, {}).get("turns", 0) >= wanted for row in found]
    return all(done or "failed" in row for done, row in zip(enough, found, strict=True))


def known(config: Config, steps: list[Step], where: dict[str, Any]) -> Rows:
    """Read the rows of earlier runs that stay: of other networks, or of the same source."""
    source, chosen = stamp()["source"], {step.network for step in steps}
    rows = load(config.path, where)
    kept = [
        row
        for row in rows
        if row["network"] not in chosen or (row.get("source") == source and not config.again)
    ]
    return {(row["network"], row["contender"]): row for row in kept}
