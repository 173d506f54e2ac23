"""How many entries of a float32 mask change with the layout of the weights on eight CPU devices?

    python -m benchmarks.mesh_rounding

Runs 100 rounds of SynFlow on an MLP, for several draws of the weights and several ρ, on one device
and in three layouts over a mesh. Writes the rows to benchmarks/results/mesh_rounding.json.
"""

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import synflow_jax as sf
from experiments.records.files import replacing

WIDTHS = (64, 256, 128, 16)
RESULT = Path(__file__).parents[1] / "results" / "mesh_rounding.json"
LAYOUTS = {"columns": (None, "a"), "rows": ("a", None), "both": ("a", "b")}


def network(params: Any, x: Any) -> Any:
    """Apply a ReLU network without biases."""
    for kernel in params[:-1]:
        x = jax.nn.relu(x @ kernel)
    return x @ params[-1]


def draw(seed: int) -> list[np.ndarray]:
    """Draw Gaussian weights of unit gain."""
    rng = np.random.default_rng(seed)
    shapes = itertools.pairwise(WIDTHS)
    return [(rng.standard_normal(s) / np.sqrt(s[0])).astype(np.float32) for s in shapes]


def differing(one: Any, other: Any) -> int:
    """Count the entries in which two lists of masks differ."""
    return sum(int((np.asarray(a) != np.asarray(b)).sum()) for a, b in zip(one, other, strict=True))


def row(seed: int, rho: float, mesh: Any) -> dict[str, Any]:
    """Compare the masks of each layout with those of one device."""
    params = draw(seed)
    alone = sf.synflow(params, network, WIDTHS[:1], rho)
    found = {}
    for name, spec in LAYOUTS.items():
        spread = jax.device_put(params, NamedSharding(mesh, PartitionSpec(*spec)))
        found[name] = differing(alone, sf.synflow(spread, network, WIDTHS[:1], rho))
    kept = sum(int(mask.sum()) for mask in alone)
    return {"seed": seed, "rho": rho, "kept": kept, "places that differ": found}


def main() -> None:
    """Write one row for each draw of the weights and each ρ."""
    warnings.simplefilter("ignore", sf.CollapseWarning)
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    rows = [row(seed, rho, mesh) for seed in range(6) for rho in (3.0, 10.0, 100.0)]
    counts = [n for one in rows for n in one["places that differ"].values()]
    report = {
        "jax": jax.__version__,
        "weights": sum(i * o for i, o in itertools.pairwise(WIDTHS)),
        "masks": len(counts),
        "masks that differ": sum(n > 0 for n in counts),
        "most places": max(counts),
        "rows": rows,
    }
    print(json.dumps(report, indent=2))
    with replacing(RESULT) as path:
        path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
