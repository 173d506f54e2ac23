"""Draw log10 of the dense flow against depth: CIFAR ResNets and MLPs, plain and scaled.

    python -m benchmarks.flow_depth     # some minutes on two cores

Writes docs/figures/flow_depth.png from benchmarks/results/flow_depth.json; points that are stored
there are not measured again.

Plain evaluation overflows at 10^38.5 in float32 and at 10^308 in float64; `log2_flow` does not.
"""

import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import synflow_jax as sf
from benchmarks.deep.deep_networks import ResidualMLP
from benchmarks.deep.measurements import LOG2_TO_10
from benchmarks.shared.networks import Network, draw, plain_flow, xla_convolution
from experiments.models.fc import FC
from experiments.models.resnet import cifar_resnet
from experiments.records.files import replacing

TARGET = Path(__file__).parents[2] / "docs" / "figures" / "flow_depth.png"
RESULTS = Path(__file__).parents[1] / "results" / "flow_depth.json"
RESNETS = (8, 14, 20, 32, 44, 56, 80, 110)
BLOCKS = (5, 10, 20, 30, 50, 80, 120, 160, 200, 250)
MLPS = (10, 20, 30, 40, 60, 100, 150, 200, 300, 400)
FAMILIES = {
    "residual MLP of width 64": [(2 * n + 2, lambda n=n: ResidualMLP(n), (64,)) for n in BLOCKS],
    "MLP of width 32": [(n, lambda n=n: FC(10, 32, n - 1), (8, 8, 1)) for n in MLPS],
    "CIFAR ResNet": [(n, partial(cifar_resnet, 10, n), (32, 32, 3)) for n in RESNETS],
}
DEPTHS = (10, 20, 50, 100, 200, 500)
COLORS = ("#D55E00", "#0072B2", "#009E73")


def measure(network: Network) -> tuple[float, float, float]:
    """Compute log10 R: plain in float32, plain in float64, scaled in float32."""
    found = []
    for bits, dtype in ((32, np.float32), (64, np.float64)):
        with jax.enable_x64(bits == 64):
            params, apply_fn = draw(network, dtype=dtype)
            positive = jax.tree.map(jnp.abs, params)
            flow = jax.jit(partial(plain_flow, shape=network.shape))(positive, apply_fn)
            found.append(math.log10(float(flow)) if float(flow) > 0 else math.nan)
            if bits == 32:
                logarithm = float(sf.log2_flow(params, apply_fn, network.shape))
    jax.clear_caches()
    return found[0], found[1], logarithm * LOG2_TO_10


def plot(found: dict[str, dict[str, list[float | None]]]) -> None:
    """Draw a line for each family, with points where plain evaluation is finite."""
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for color, (name, rows) in zip(COLORS, found.items(), strict=True):
            depth = [int(key) for key in rows]
            values = np.array([*rows.values()], float)  # None, where not finite, becomes NaN
            axes.plot(depth, values[:, 2], color=color, lw=1.6, label=f"{name}")
            axes.plot(depth, values[:, 1], "o", mfc="none", mec=color, ms=9)
            axes.plot(depth, values[:, 0], "x", color=color, ms=6, mew=1.6)
        axes.plot([], [], color="black", lw=1.6, label="log2_flow, float32")
        axes.plot([], [], "o", mfc="none", mec="black", ms=9, label="plain float64, while finite")
        axes.plot([], [], "x", color="black", ms=6, mew=1.6, label="plain float32, while finite")
        for bits, end in ((32, 38.53), (64, 308.25)):
            axes.axhline(end, color="black", lw=0.8, ls=":")
            axes.text(1.0, end, f"float{bits} ends ", transform=axes.get_yaxis_transform(),
                      ha="right", va="bottom", fontsize=8)  # fmt: skip
        axes.set(xlabel="layers", ylabel="log10 of the flow R at initialisation")
        axes.set(xscale="log", yscale="log", xlim=(7, 700))
        for axis, ticks in ((axes.xaxis, DEPTHS), (axes.yaxis, DEPTHS)):
            axis.set_ticks(ticks, map(str, ticks))
            axis.minorticks_off()
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="lower right", fontsize=9)
        with replacing(TARGET) as temporary:
            figure.savefig(temporary, dpi=130)


def main() -> None:
    """Measure and draw."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, members in FAMILIES.items():
        rows = found.setdefault(name, {})
        for depth, build, shape in members:
            if str(depth) in rows:
                continue
            with xla_convolution():
                values = measure(Network(build, shape))
            rows[str(depth)] = [v if math.isfinite(v) else None for v in values]
            print(name, depth, *values, flush=True)
            with replacing(RESULTS) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n")
    plot(found)


if __name__ == "__main__":
    main()
