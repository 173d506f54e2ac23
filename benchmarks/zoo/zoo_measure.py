"""What is measured of one network."""

import math
import re
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.zoo.cases import Case, Network, draw, loss_of
from synflow_jax import (
    apply_masks,
    collapsed_layers,
    compact,
    flow_mode,
    layerwise,
    magnitude,
    matching,
    prune,
    synflow,
    synflow_saliency,
)
from synflow_jax.measure import conservation_gap
from synflow_jax.trees import named_leaves

RHO = 10
ROUNDS = 100
CHANNELS_RHO = 4
Row = dict[str, Any]


def measure(network: Network) -> Row:
    """Measure everything; each part that fails says why under its own name."""
    start = time.perf_counter()
    row: Row = {"glue": network.lines, "version": metadata.version(network.package)}
    case = attempt(row, "build", network.build)
    if case is None:
        return row
    leaves = named_leaves(case.params)
    row["weights"] = sum(leaf.size for _, leaf in leaves)
    row["leaves"] = len(leaves)
    found: dict[str, Any] = {}
    for mode, fn in (("plain", case.apply_fn), ("flow", flow_mode(case.apply_fn))):
        row[mode] = {}
        part = lambda row=row[mode], fn=fn: pruned(row, case, fn)
        found[mode] = attempt(row[mode], "failed", part, timed=True)
    flow = flow_mode(case.apply_fn)
    attempt(row, "gap", lambda: conservation(row, case, flow))
    result = found["flow"] or found["plain"]
    if result:
        attempt(row, "gradient", lambda: gradient(row, case, *result))
        attempt(row, "outputs", lambda: outputs(row, case, *result))
        attempt(row, "training", lambda: training(row, case, *result))
    attempt(row, "compaction", lambda: compaction(row, case))
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def attempt(row: Row, name: str, fn: Callable[[], Any], timed: bool = False) -> Any:
    """Call fn; note its error under this name, and its warnings.

    What is not timed is compiled with few optimisations: that is most of the time it takes.
    """
    jax.config.update("jax_disable_most_optimizations", not timed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return fn()
        except Exception as error:
            row[name] = without_paths(f"{type(error).__name__}: {error}").split("\n\n")[0][:600]
            return None
        finally:
            ours = [one for one in caught if "synflow_jax" in type(one.message).__module__]
            said = [f"{one.category.__name__}: {one.message}" for one in ours]
            said = [without_paths(line)[:400] for line in said]
            if said:
                row["warnings"] = list(dict.fromkeys([*row.get("warnings", []), *said]))


def without_paths(text: str) -> str:
    """Name files from the folder of their package on."""
    return re.sub(r"/\S*?/(?=(site-packages|benchmarks|synflow_jax)/)", "", text)


def pruned(row: Row, case: Case, fn: Any) -> Any:
    """Prune twice, by one function, and compare with the counts of the plan."""
    times = []
    masks = None
    for _ in range(2):
        start = time.perf_counter()
        masks = jax.block_until_ready(synflow(case.params, fn, case.shape, RHO, rounds=ROUNDS))
        times.append(round(time.perf_counter() - start, 3))
    row["first"], row["second"] = times
    saliency = synflow_saliency(fn, case.shape)
    same, info = prune(case.params, saliency, RHO, ROUNDS, nested=True)
    pruned = {re.sub(r"\[[\d,]+\]$", "", name) for name in info.layers}  # of stacks, path[i]
    pairs = [(p, mask) for p, mask in named_leaves(masks) if p in pruned]
    kept = sum(int(np.count_nonzero(mask)) for _, mask in pairs)
    row["prunable"] = sum(info.sizes)
    row["layers"] = len(info.layers)
    row["kept"], row["asked"] = kept, math.ceil(sum(info.sizes) / RHO)
    row["same again"] = jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), masks, same))
    row["not pruned"] = [
        path for path, leaf in named_leaves(case.params) if leaf.ndim > 1 and path not in pruned
    ]
    row["emptied"] = [path for path, mask in pairs if not np.any(mask)]
    row["collapsed at"] = int(info.collapsed_at)
    return masks, pruned


def conservation(row: Row, case: Case, network: Any) -> None:
    """Measure how far flow is from being conserved in flow mode."""
    gap = float(conservation_gap(case.params, network, case.shape))
    row["gap"] = gap if math.isfinite(gap) else None


def gradient(row: Row, case: Case, masks: Any, layers: Any) -> None:
    """Count the kept kernel weights that the gradient of the real network reaches at the start."""
    weights = apply_masks(case.params, masks)
    floating, rest = split_floating(weights)

    def loss(leaves: Any, x: Any) -> Any:
        return loss_of(case.apply_fn(rest(leaves), x))

    slope = jax.jit(jax.grad(loss))
    reached: Any = None
    for seed in range(3):
        grads = [np.asarray(g) != 0 for g in slope(floating, draw(seed, case.shape))]
        pairs = zip(reached or grads, grads, strict=True)
        reached = [one | other for one, other in pairs]
    paths = [path for path, leaf in named_leaves(weights) if is_float(leaf)]
    flags = dict(zip(paths, reached, strict=True))
    kept = {path: np.asarray(mask) for path, mask in named_leaves(masks) if path in layers}
    counts = {
        path: (int((mask & flags[path]).sum()), int(mask.sum())) for path, mask in kept.items()
    }
    hits, total = (sum(column) for column in zip(*counts.values(), strict=True))
    row["gradient"] = hits / max(1, total)
    row["without gradient"] = {
        path: f"{hit} of {total}" for path, (hit, total) in counts.items() if hit < total
    }


def is_float(leaf: Any) -> bool:
    """Whether gradients are taken with respect to it."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def split_floating(params: Any) -> Any:
    """Return the floating leaves, and a function that puts them back."""
    leaves, treedef = jax.tree.flatten(params)

    def back(floating: Any) -> Any:
        one = iter(floating)
        return treedef.unflatten([next(one) if is_float(leaf) else leaf for leaf in leaves])

    return [leaf for leaf in leaves if is_float(leaf)], back


def outputs(row: Row, case: Case, masks: Any, layers: Any) -> None:
    """Compute the share of the outputs that differ between inputs: of the whole, of the pruned."""
    del layers
    shares, apply_fn = [], jax.jit(case.apply_fn)
    for params in (case.params, apply_masks(case.params, masks)):
        made = [floating(apply_fn(params, draw(seed, case.shape))) for seed in range(4)]
        shares.append(float(np.mean(np.any([one != made[0] for one in made[1:]], axis=0))))
    row["outputs"] = shares


def floating(tree: Any) -> np.ndarray:
    """Join all floating outputs."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree) if is_float(leaf)])


def training(row: Row, case: Case, masks: Any, layers: Any) -> None:
    """Count pruned weights that are not 0 after training, and kept ones that did not move."""
    del layers
    after = case.train(masks)
    triples = list(zip(*map(jax.tree.leaves, (case.params, after, masks)), strict=True))
    row["pruned weights that are not 0"] = sum(
        int(np.count_nonzero(np.asarray(leaf)[~np.asarray(mask)])) for _, leaf, mask in triples
    )
    row["leaves that moved"] = sum(
        not np.array_equal(np.where(mask, a, 0), np.asarray(b)) for a, b, mask in triples
    )
    row["finite after training"] = all(np.isfinite(np.asarray(b)).all() for _, b, _ in triples)


def compaction(row: Row, case: Case) -> None:
    """Prune whole channels, remove them, and compare the outputs."""
    options: Any = {"prunable": matching(but=list(case.keep))} if case.keep else {}
    masks = magnitude(case.params, CHANNELS_RHO, pattern=case.pattern, scope=layerwise, **options)
    start = time.perf_counter()
    small = compact(case.params, masks, case.apply_fn, case.shape)
    seconds = time.perf_counter() - start
    x = draw(7, case.shape)
    want = floating(jax.jit(case.apply_fn)(apply_masks(case.params, masks), x))
    have = floating(small.apply_fn(small.params, x))
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(p)) for p in (case.params, small.params)]
    row["compact"] = {
        "gap": float(np.abs(have - want).max() / max(np.abs(want).max(), 1e-30)),
        "entries": sizes,
        "multiply-adds": list(small.multiply_adds),
        "lost": list(small.lost),
        "seconds": round(seconds, 1),
        "emptied": list(collapsed_layers(masks)),
    }
