"""The measurements of one deep network: its flow and scores, its masks after rounds, seconds."""

import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import synflow_jax as sf
from benchmarks.deep.deep_networks import NETWORKS, DeepNetwork
from benchmarks.shared.networks import draw, plain_flow, xla_convolution
from synflow_jax.scaled import Scaled, scaled

Row = dict[str, Any]
LOG2_TO_10 = math.log10(2)


def log2_of(number: Scaled) -> float:
    """Take the logarithm on the host, where a large exponent costs no digits of the mantissa."""
    mantissa = float(number.mantissa)
    return math.log2(mantissa) + int(number.exponent) if mantissa > 0 else -math.inf


def measure_flow(network: DeepNetwork) -> Row:
    """Compute log2 R in every way, and compare the scores of float32 with those of float64."""
    found = {}
    for bits, dtype in ((32, np.float32), (64, np.float64)):
        with jax.enable_x64(bits == 64):
            found[bits] = _evaluate(network, dtype)
    row = {f"{name} {bits}": value for bits in found for name, value in found[bits][0].items()}
    row["log2 error"] = abs(row["scaled 32"] - row["scaled 64"])
    if not network.gradient:
        return row
    single, double = found[32][1], found[64][1]
    # A score that float32 loses to 0 counts as an error of 1.
    worst = [
        np.max(abs(a - b) / np.where(b > 0, b, 1)) for a, b in zip(single, double, strict=True)
    ]
    sums = np.array([np.sum(s, dtype=np.float64) for s in single if s.ndim > 1])
    names = [path.split("/")[0] for path in found[32][2]]
    row["score error"] = float(max(worst))
    row["finite"] = bool(all(np.isfinite(s).all() for s in single))
    row["share of layers"] = [float(sums.min()), float(sums.max())]
    cuts = [share for share, name in zip(sums, names, strict=True) if name in network.cuts]
    cuts = np.array(cuts if network.cuts else sums)
    row["cuts"], row["conservation error"] = len(cuts), float(abs(cuts - 1).max())
    return row


def _evaluate(
    network: DeepNetwork, dtype: Any
) -> tuple[dict[str, float], list[np.ndarray], list[str]]:
    """Compute log2 R, plain, scaled and by mean weights, the scores over R, and the layers."""
    params, apply_fn = draw(network, dtype=dtype)
    params = jax.tree.map(jnp.abs, params)
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    saliency = sf.synflow_saliency(apply_fn, network.shape)
    plain = float(jax.jit(partial(plain_flow, shape=network.shape))(params, apply_fn))
    logs = {"plain": math.log2(plain) if plain > 0 else -math.inf if plain == 0 else plain}
    if network.gradient:
        run = jax.jit(lambda s, p, m: s.flow_and_scores(p, m))
    else:
        run = jax.jit(lambda s, p, m: (s.flow(p, m), {}))
    flow, scores = run(saliency, params, masks)
    shares = [np.asarray(s) / np.asarray(flow.mantissa) for s in jax.tree.leaves(scores)]
    logs["scaled"] = log2_of(flow)
    constant = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.mean(leaf)), params)
    logs["mean field"] = log2_of(run(saliency, constant, masks)[0])
    pairs = jax.tree_util.tree_flatten_with_path(params)[0]
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, x in pairs if x.ndim > 1]
    return logs, shares, names


TURNS = 10
PLANS = {"1 round": (10.0, 1), "3 rounds": (10.0, 3), "10 rounds": (10.0, 10), "1e5": (1e5, 10)}


def last(count: int) -> Callable[[Any, int, Any], Any]:
    """Prune in the last `count` rounds only: all plans have ten, and so share one program."""
    return lambda k, n, rho: sf.exponential(np.maximum(k - n + count, 0), count, rho)


def measure_rounds(network: DeepNetwork) -> Row:
    """Compare the masks of float32 with those of float64, and the flow after every round."""
    warnings.simplefilter("ignore")
    found: dict[int, Any] = {}
    for bits, dtype in ((32, np.float32), (64, np.float64)):
        with jax.enable_x64(bits == 64):
            params, apply_fn = draw(network, dtype=dtype)
            saliency = sf.synflow_saliency(apply_fn, network.shape)
            found[bits] = {name: _prune(params, saliency, *PLANS[name]) for name in PLANS}
    row: Row = {}
    for name in PLANS:
        row[name] = _compare(*(found[bits][name] for bits in (32, 64)))
    return row


def _prune(params: Any, saliency: Any, rho: float, rounds: int) -> Any:
    masks, info = sf.prune(params, saliency, rho, TURNS, schedule=last(rounds))
    kept = [np.asarray(m) for m in jax.tree.leaves(masks) if m.ndim > 1]
    return kept, np.asarray(info.kept[-1]), np.asarray(info.log2_flow, np.float64)


def _compare(single: Any, double: Any) -> Row:
    both = sum(int((a & b).sum()) for a, b in zip(single[0], double[0], strict=True))
    either = sum(int((a | b).sum()) for a, b in zip(single[0], double[0], strict=True))
    counts = abs(single[1] - double[1]) / np.maximum(double[1], 1)
    alive = np.isfinite(double[2])
    gap = abs(single[2][alive] - double[2][alive]).max()
    return {
        "overlap": both / either,
        "differing": either - both,
        "count error": float(counts.max()),
        "log2 R": [_finite(values[-1]) for values in (single[2], double[2])],
        "least log2 R": float(double[2][alive].min()),
        "log2 R error": float(gap) if np.isfinite(gap) else None,
        "dead after": [int(np.isneginf(v).argmax()) if np.isneginf(v).any() else 0
                       for v in (single[2], double[2])],
        "nan": bool(np.isnan(single[2]).any() or np.isposinf(single[2]).any()),
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def measure_time(network: DeepNetwork) -> Row:
    """Time a value and gradient, plain and scaled: compiling and running, the least of several."""
    params, apply_fn = draw(network)
    params = jax.tree.map(jnp.abs, params)
    flow = partial(plain_flow, shape=network.shape)
    ways = {
        "plain": jax.value_and_grad(flow),
        "scaled": jax.value_and_grad(scaled(flow), has_aux=True),
    }
    compiled, row = {}, {}
    for name, fn in [*ways.items()] * 2:
        compiled[name], seconds = _compile(fn, params, apply_fn)
        if name not in row or sum(seconds) < row[name]["compile"]:
            parts = dict(zip(("trace", "lower", "xla"), seconds, strict=True))
            row[name] = {"compile": sum(seconds), **parts}
    for name, program in compiled.items():
        row[name] |= {"hlo": program.as_text().count(" = "), "run": math.inf}
    budget = time.perf_counter() + 20
    for turn in range(60):
        for name, program in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(params, apply_fn))
            row[name]["run"] = min(row[name]["run"], time.perf_counter() - start)
        if turn >= 8 and time.perf_counter() > budget:
            break
    ratios = {key: row["scaled"][key] / row["plain"][key] for key in ("compile", "run", "hlo")}
    return row | {"ratios": ratios}


def _compile(fn: Callable[..., Any], *args: Any) -> tuple[Any, list[float]]:
    jax.clear_caches()
    marks = [time.perf_counter()]
    traced = jax.jit(fn).trace(*args)
    marks.append(time.perf_counter())
    lowered = traced.lower()
    marks.append(time.perf_counter())
    compiled = lowered.compile()
    marks.append(time.perf_counter())
    return compiled, list(np.diff(marks))


MEASURES: dict[str, Callable[[DeepNetwork], Row]] = {
    "flow": measure_flow,
    "time": measure_time,
    "rounds": measure_rounds,
}


def _for_json(value: Any) -> Any:
    """Write infinity and NaN as strings: JSON has no such numbers."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def measure(name: str, kind: str) -> Row:
    """Make one row, of a network and a kind of measurement."""
    start = time.perf_counter()
    with xla_convolution():
        row = MEASURES[kind](NETWORKS[name])
    row = {key: _for_json(value) for key, value in row.items()}
    return {"network": name, "kind": kind, **row, "seconds": time.perf_counter() - start}
