"""The summary of a pruning run: a table to read, and flat dicts of numbers for loggers."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from synflow_jax._table import Shown, new_table
from synflow_jax.pruning import PruneInfo
from synflow_jax.trees import is_traced


@dataclass(frozen=True)
class Summary(Shown):
    """The numbers of a `PruneInfo` on the host; prints as a table of layers."""

    info: PruneInfo

    @property
    def density(self) -> float:
        """Kept over all prunable weights, or units of a pattern, after the last round."""
        return float(self.info.kept[-1].sum() / max(sum(self.info.sizes), 1))

    def scalars(self, prefix: str = "prune/") -> dict[str, float]:
        """Return the result of the run as one flat dict of numbers, for a logger.

        Args:
          prefix: the beginning of every name.

        Returns:
          density, rho, rounds, log2_flow_before, log2_flow, largest_share, collapsed_layers, and
          density/PATH of each layer; numbers that were not measured are left out.
        """
        info, kept = self.info, self.info.kept[-1]
        found = {
            "density": self.density,
            "rho": 1 / self.density if self.density else math.inf,
            "rounds": float(info.rounds),
            "log2_flow_before": float(info.log2_flow[0]),
            "log2_flow": float(info.log2_flow[-1]),
            "largest_share": float(info.share.max()),
            "collapsed_layers": float((kept == 0).sum()),
        }
        return self._named(found, kept, prefix)

    def history(self, prefix: str = "prune/") -> list[dict[str, float]]:
        """Return one flat dict a round, such as csv.DictWriter or a logger takes.

        Args:
          prefix: the beginning of every name.

        Returns:
          For each round: round, density, log2_flow (after it), share, and density/PATH of each
          layer; numbers that were not measured are left out.
        """
        return [self._of_round(k, prefix) for k in range(len(self.info.share))]

    def _of_round(self, k: int, prefix: str) -> dict[str, float]:
        """Return the numbers of round k, from 0."""
        info, kept = self.info, self.info.kept[k]
        found = {
            "round": float(k + 1),
            "density": float(kept.sum() / max(sum(info.sizes), 1)),
            "log2_flow": float(info.log2_flow[k + 1]),
            "share": float(info.share[k]),
        }
        return self._named(found, kept, prefix)

    def _named(self, found: dict[str, float], kept: Any, prefix: str) -> dict[str, float]:
        """Add the densities of the layers, drop NaN (not measured), and prefix the names."""
        layers = zip(self.info.layers, kept / np.array(self.info.sizes), strict=True)
        found |= {f"density/{path}": float(density) for path, density in layers}
        return {prefix + name: value for name, value in found.items() if not math.isnan(value)}

    def _caption(self) -> str:
        """Write ρ and the number of rounds, and the flow if it was measured."""
        info, ends = self.info, self.scalars("")
        rounds = int(info.rounds)
        parts = [f"ρ = {ends['rho']:.4g} in {rounds} round{'s' * (rounds > 1)}"]
        if "log2_flow" in ends:
            before, after = ends["log2_flow_before"], ends["log2_flow"]
            parts.append(f"log2 flow {before:.2f} before, {after:.2f} after")
            worst = int(info.share.argmax()) + 1
            parts.append(f"at most {ends['largest_share']:.3g} of the flow a round (round {worst})")
        return " · ".join(parts)

    def __rich__(self) -> Any:
        """Build the rich table."""
        table = new_table(caption=self._caption(), min_width=60)
        table.add_column("layer", overflow="fold")
        for name in (self.info.units, "kept", "density", ""):
            table.add_column(name, justify="right")
        kept = self.info.kept[-1].tolist()
        for path, size, k in zip(self.info.layers, self.info.sizes, kept, strict=True):
            state = "" if k else "collapsed"
            table.add_row(*_cells(path, size, k), state, style="red" if state else None)
        table.add_section()
        table.add_row(*_cells("total", sum(self.info.sizes), sum(kept)), "", style="bold")
        return table


def summary(info: PruneInfo) -> Summary:
    """Summarise a pruning run: a table to print, and flat dicts of numbers for loggers.

    Args:
      info: the PruneInfo of one run; of vmapped runs pass one of them,
        jax.tree.map(lambda column: column[i], info).

    Returns:
      A Summary, which prints as a table of layers. `.scalars()` is the result as one flat dict,
      `.history()` one flat dict a round.

    Raises:
      TypeError: info is not a PruneInfo, or is traced.
      ValueError: info holds several runs.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import prune
      >>> from synflow_jax.saliency import magnitude_saliency
      >>> info = prune({"w": jnp.array([[1.0, -4.0]])}, magnitude_saliency(), 2.0, rounds=1)[1]
      >>> summary(info).scalars()["prune/density/w"]
      0.5
    """
    if not isinstance(info, PruneInfo):
        raise TypeError(
            f"info must be a PruneInfo, as prune returns it, got a {type(info).__name__}"
        )
    if is_traced(info):
        raise TypeError("info must be of known value: call summary outside of jit and vmap")
    if info.share.ndim != 1:
        raise ValueError(
            f"info must be of one run, got runs of shape {info.share.shape[:-1]}: take one by "
            "jax.tree.map(lambda column: column[i], info)"
        )
    return Summary(jax.tree.map(np.asarray, info))


def _cells(name: str, size: int, kept: int) -> list[str]:
    """Format the numbers of one layer."""
    return [name, f"{size:,}", f"{kept:,}", f"{kept / max(size, 1):.3%}"]
