"""Score and select until the density is reached, and say what happened on the way."""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax._types import Masks, Params, Pattern, Prunable, Saliency, Schedule, Scope
from synflow_jax.budget import budgets
from synflow_jax.choose import competing
from synflow_jax.errors import CollapseWarning, check_finite, check_rounds, is_traced
from synflow_jax.flow_saliency import FlowSaliency
from synflow_jax.info import PruneInfo
from synflow_jax.layout import laid_as
from synflow_jax.measure import count_kept
from synflow_jax.patterns import Runs, is_pattern, runs, unstructured
from synflow_jax.rounds import certified_loop, fixed_loop, host_loop
from synflow_jax.saliency import check_saliency
from synflow_jax.scaled import log2
from synflow_jax.schedule import Certified, certified, exponential, one_shot
from synflow_jax.scope import globally
from synflow_jax.sources import without_sources
from synflow_jax.sweep import sweep_dead
from synflow_jax.tree import Layers, as_function, is_prunable, pick
from synflow_jax.turn import Rows, first_masks, full_masks
from synflow_jax.verdict import report_run


def prune(
    params: Params,
    saliency: Saliency,
    rho: Any,
    rounds: int = 100,
    *,
    schedule: Schedule | Certified = exponential,
    scope: Scope = globally,
    nested: bool = False,
    sweep: bool = False,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
    prunable: Prunable = is_prunable,
    progress: bool = False,
) -> tuple[Masks, PruneInfo]:
    """Score and select, n times: keep the top ⌈N·d_k⌉ weights after round k.

    Args:
      params: any pytree of arrays; not modified.
      saliency: saliency(params, masks) -> scores with the treedef of params; `synflow_saliency`
        and its siblings build them, and so does any function of your own.
      rho: compression ratio ρ, prunable weights before over after, at least 1; or a dict of ratios
        by pattern, {"conv*": 10, "*": 100}: leaves that match one pattern compete together. As in
        `matching`, a pattern is a whole path with wildcards; "*" takes what no other matches.
      rounds: n; not used by the certified schedule.
      schedule: exponential, linear, one_shot, schedule(k, n, rho) -> density after round k, or
        certified(): as few rounds as leave the flow alive for certain.
      scope: globally, layerwise, erk, runs(4) for N:M, or scope(shapes, densities) -> counts.
      nested: pruned weights stay out, even where the saliency scores them again.
      sweep: after the last round, give the places of kept weights on no path from input to output
        to the best pruned ones on such paths, so that density and `effective_density` agree. For
        saliencies that measure flow and scope=globally, outside of jit and vmap; biases start no
        path.
      min_keep: how many weights each prunable leaf keeps at least, its best: a number, a share of
        the leaf below 1, or a dict of these by pattern. Counts stay as asked, except where a scope
        gives a layer fewer than that, or a traced ρ all of them.
      pattern: channels, blocks(4), slices(axis), or pattern(path, shape) -> shape of a unit: the
        weights of a unit stay or go together, by the sum of their scores. ρ, the counts in
        PruneInfo and min_keep are then of units, not of weights.
      prunable: (path, leaf) -> bool chooses what is pruned; the path is written as a/b/kernel;
        `matching` builds one from names.
      progress: say on stderr how far it is, once it takes more than two seconds; also from inside
        of jit. Without it the compiled program has no trace of it.

    Returns:
      masks, bool with the treedef of params, True = keep, and the PruneInfo. Exactly the asked
      number of weights stays; ties go to weights kept so far, then by flat index. After a sweep,
      the last kept and log2_flow are those of the masks returned.

    Raises:
      ValueError: rho, rounds or params are no such things, the dense network has no finite flow, or
        the certified schedule cannot reach rho.
      TypeError: an argument is of the wrong kind.

    Warns:
      CollapseWarning: fewer weights than layers are asked for, every score of a layer is 0, or the
        flow died on the way, or kept weights stay dead after the sweep.
      UncertifiedWarning: a round pruned as much flow as there was, and yet the flow lives.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import magnitude_saliency
      >>> masks, info = prune({"w": jnp.array([[1.0, -4.0]])}, magnitude_saliency(), 2.0, rounds=1)
      >>> masks["w"].tolist(), info.kept.tolist()
      ([[False, True]], [[1]])

    Source: Tanaka et al. 2020, section 6, algorithm 1.
    """
    check_rounds(rounds)
    check_saliency(saliency)
    layers, ratios = competing(params, prunable, rho, min_keep, pattern)
    if isinstance(scope, Runs):
        layers = layers._replace(runs=scope)
    _check_plan(schedule, saliency, scope, sweep, layers)
    check_finite(params)
    if isinstance(saliency, FlowSaliency):
        saliency = saliency.fitted(params)
    if isinstance(schedule, Certified):
        target = budgets(layers, ratios, 1, one_shot, scope)[0, 0]
        masks, info = _run_certified(params, saliency, layers, target, schedule, progress)
    else:
        counts = budgets(layers, ratios, rounds, schedule, scope)
        masks, info = run_rounds(params, saliency, layers, counts, nested, progress)
    if progress and not is_traced(info):
        jax.effects_barrier()  # all is said before the result is there
    return _swept(params, saliency, layers, masks, info) if sweep else (masks, info)


def _check_plan(schedule: Any, saliency: Any, scope: Any, sweep: bool, layers: Layers) -> None:
    if schedule is certified:
        raise TypeError("schedule must be certified(), with brackets: it is given its alpha there")
    if scope is runs:
        raise TypeError("scope must be runs(…), with brackets: it is given the length M there")
    if is_pattern(scope):
        raise TypeError(f"scope must say what competes, and {scope!r} is a pattern: pass it so")
    asked = [("schedule=certified()", isinstance(schedule, Certified)), ("sweep=True", sweep)]
    for name in [name for name, wanted in asked if wanted]:
        if not isinstance(saliency, FlowSaliency):
            raise TypeError(
                f"{name} needs a saliency that measures flow, as synflow_saliency builds it, got "
                f"a {type(saliency).__name__}"
            )
        if scope is not globally:
            raise ValueError(f"{name} needs scope=globally, got {scope!r}")
        if layers.groups or layers.floors:
            raise ValueError(f"{name} needs one number as rho, and no min_keep")
    if sweep and layers.blocks:
        raise ValueError("sweep=True gives single weights away: it needs pattern=unstructured")
    if layers.runs and not any(map(scope.cuts, layers.shapes)):
        raise ValueError(
            f"scope=runs({scope.length}, axis={scope.axis}) must divide that axis of some prunable "
            f"leaf, and their shapes are {list(layers.shapes)}"
        )
    if layers.runs and layers.floors:
        raise ValueError("scope=runs(…) says what every run keeps: it needs min_keep=0")


def run_rounds(
    params: Params,
    saliency: Any,
    layers: Layers,
    counts: jax.Array,
    nested: bool = False,
    progress: bool = False,
) -> tuple[Masks, PruneInfo]:
    """Run the rounds, in one compiled loop or (for saliencies with data) on the host."""
    start = first_masks(params, layers)
    if getattr(saliency, "on_host", False):
        chosen, rows = host_loop(params, saliency, layers, start, counts, nested, progress)
    else:
        held = as_function(saliency, "saliency")
        chosen, rows = fixed_loop(
            params, held, start, counts, layers=layers, nested=nested, progress=progress
        )
    masks = _laid_masks(params, layers, chosen)
    info = _info(layers, rows, jnp.int32(len(counts)))
    if not is_traced(info, masks):
        report_run(info, np.asarray(rows.idle)[0].tolist(), params, saliency)
    return masks, info


def _run_certified(
    params: Params,
    saliency: Any,
    layers: Layers,
    target: jax.Array,
    schedule: Certified,
    progress: bool,
) -> tuple[Masks, PruneInfo]:
    """Run certified rounds on params whose flow starts at the input alone."""
    start = first_masks(params, layers)
    held = as_function(saliency, "saliency")
    plain = without_sources(params, layers.chosen, saliency.inputs)
    chosen, rows, rounds = certified_loop(
        plain, held, start, target, layers=layers, schedule=schedule, progress=progress
    )
    masks = _laid_masks(params, layers, chosen)
    if is_traced(rows, masks):
        return masks, _info(layers, rows, rounds)
    info = _info(layers, _trimmed(rows, int(rounds)), rounds)
    report_run(info, np.asarray(rows.idle)[0].tolist(), plain, saliency, schedule, int(target))
    return masks, info


def _laid_masks(params: Params, layers: Layers, chosen: list[jax.Array]) -> Masks:
    """Put masks in a tree, each laid out across devices as its leaf is."""
    return jax.tree.map(laid_as, full_masks(params, layers, chosen), params)


def _info(layers: Layers, rows: Rows, rounds: jax.Array) -> PruneInfo:
    columns = rows._asdict()
    del columns["idle"]
    named = {"layers": layers.paths, "sizes": layers.sizes, "units": layers.units}
    return PruneInfo(rounds=rounds, **named, **columns)


def _trimmed(rows: Rows, rounds: int) -> Rows:
    short = jax.tree.map(lambda column: column[:rounds], rows)
    return short._replace(log2_flow=rows.log2_flow[: rounds + 1])


def _swept(
    params: Params, saliency: Any, layers: Layers, masks: Masks, info: PruneInfo
) -> tuple[Masks, PruneInfo]:
    """Give the places of dead weights away, and let the last measurements be of the result."""
    if is_traced(info, masks):
        raise TypeError("sweep=True looks at the masks: call it outside of jit and vmap")
    chosen, dead = sweep_dead(params, saliency, layers, pick(masks, layers.chosen))
    if dead:
        warnings.warn(
            f"{dead} kept weights lie on no path from input to output after the sweep: no pruned "
            "weight is left that connects two units on such paths; they stay, to keep the count",
            CollapseWarning,
            stacklevel=4,
        )
    masks = _laid_masks(params, layers, chosen)
    kept = info.kept.at[-1].set(count_kept(chosen))
    flow = log2(saliency.flow(params, masks)).astype(info.log2_flow.dtype)
    return masks, dataclasses.replace(info, kept=kept, log2_flow=info.log2_flow.at[-1].set(flow))
