"""prune: plan, run the rounds, and check the result."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.plan import (
    Certified,
    Plan,
    certified,
    exponential,
    globally,
    is_pattern,
    make_plan,
    one_shot,
    runs,
    unstructured,
)
from synflow_jax.pruning._homogeneous import warn_of_breaks
from synflow_jax.pruning._info import PruneInfo
from synflow_jax.pruning._losses import warn_of_losses
from synflow_jax.pruning._outcome import check_run
from synflow_jax.pruning._remedies import Asked
from synflow_jax.pruning._rounds import (
    Rows,
    certified_loop,
    first_masks,
    fixed_loop,
    full_masks,
    host_loop,
    unmeasured,
)
from synflow_jax.pruning._sweep import sweep_dead
from synflow_jax.saliency import Saliency, as_saliency
from synflow_jax.scaled import log2
from synflow_jax.selection import Leaves, count_layers
from synflow_jax.trees import (
    CollapseWarning,
    Masks,
    Params,
    Pattern,
    Prunable,
    Schedule,
    Scope,
    ScoreFn,
    as_function,
    check_finite,
    check_rounds,
    converted,
    is_traced,
    lay_out_as,
    named_leaves,
    pick,
    warn,
    without_gradient,
)


@converted("params")
def prune(
    params: Params,
    saliency: Saliency | ScoreFn,
    rho: Any,
    rounds: int = 100,
    *,
    schedule: Schedule | Certified = exponential,
    scope: Scope = globally,
    nested: bool = False,
    sweep: bool = False,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
    prunable: Prunable | None = None,
    stacked: Any = (),
    progress: bool = False,
) -> tuple[Masks, PruneInfo]:
    """Score and select, n times: keep the top ⌈N·d_k⌉ weights after round k.

    Args:
      params: any pytree of arrays; not modified.
      saliency: saliency(params, masks) -> scores with the treedef of params; `synflow_saliency`
        and its siblings build them; any function of your own does as well.
      rho: compression ratio ρ, prunable weights before over after, at least 1; or a dict of ratios
        by pattern, {"conv*": 10, "*": 100}: leaves that match one pattern compete together. As in
        `matching`, a pattern is a whole path with wildcards; "*" takes what no other matches.
      rounds: n; not used by the certified schedule.
      schedule: exponential, linear, one_shot, schedule(k, n, rho) -> density after round k, or
        certified(): rounds that provably leave flow, as few as that takes.
      scope: globally, layerwise, erk, runs(4) for N:M, or scope(shapes, densities) -> counts.
      nested: pruned weights stay pruned, even where the saliency scores them again.
      sweep: after the last round, replace kept weights that lie on no path from input to output
        by the best pruned ones that do, so that density and `effective_density` agree. It needs a
        saliency that measures flow and scope=globally, outside of jit and vmap; biases start no
        path.
      min_keep: how many weights each layer keeps at least (its best ones): a number, a share of
        the layer below 1, or a dict of these by pattern. The total stays as asked, except
        where a scope gives a layer fewer than its minimum, or a traced ρ gives all of them fewer.
      pattern: channels, blocks(4), slices(axis), or pattern(path, shape) -> shape of a unit: the
        weights of a unit stay or go together, by the sum of their scores. ρ, the counts in
        PruneInfo and min_keep are then of units, not of weights.
      prunable: (path, leaf) -> bool chooses what is pruned; the path is written as a/b/kernel;
        `matching` builds one from names. By default the kernels, which the trace of the network
        shows: floating leaves of two or more axes that are contracted with a signal, not looked up
        by whole numbers, not added, and no scale. Without a network (`magnitude`, `random`) names
        decide (`is_prunable`). `plan.kernels` makes one choice for several methods.
      stacked: leaves that hold several layers: what `measure.stacked_layers` returns, or a list of
        paths of leaves of shape [layers, …]. Each slice then counts as a layer: in scopes, floors,
        runs, patterns and PruneInfo. By default they are those that the trace of the network shows;
        without a network there are none.
      progress: print progress to stderr once it takes more than two seconds; also inside of jit.
        Without it, the compiled program contains nothing of it.

    Returns:
      masks, bool with the treedef of params, True = keep, and the PruneInfo. Exactly the asked
      number of weights stays; ties go to weights kept so far, then by flat index. After a sweep,
      the last kept and log2_flow are those of the masks returned.

    Raises:
      ValueError: rho, rounds or params are out of range, the dense network has no finite flow, or
        the certified schedule cannot reach rho.
      TypeError: an argument is of the wrong kind.

    Warns:
      CollapseWarning: fewer weights than layers are asked for, every score of a layer is 0, a
        round left no flow, or kept weights lie on no path even after the sweep; or the network as
        pruned has lost parts of the dense one (layers without a kept weight, branches, outputs or
        inputs without flow, all signal or gradients at its own values), or negative scores make
        them unreliable. Outside of jit and vmap only.
      UncertifiedWarning: a round pruned as much flow as there was, though some flow is left.
      FlowWarning: scores are shares of the flow of a network that is not homogeneous, such as one
        with LayerNorm or softmax, and is not in `flow_mode`.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax.saliency import magnitude_saliency
      >>> masks, info = prune({"w": jnp.array([[1.0, -4.0]])}, magnitude_saliency(), 2.0, rounds=1)
      >>> masks["w"].tolist(), info.kept.tolist()
      ([[False, True]], [[1]])

    Source: Tanaka et al. 2020, section 6, algorithm 1.
    """
    check_rounds(rounds)
    params = without_gradient(params)
    saliency = as_saliency(saliency)
    _check_kinds(schedule, scope)
    is_certified = isinstance(schedule, Certified)
    reading = saliency.reading(params)
    plan, counts = make_plan(
        params,
        rho,
        rounds,
        schedule=one_shot if isinstance(schedule, Certified) else schedule,
        scope=scope,
        min_keep=min_keep,
        pattern=pattern,
        prunable=prunable,
        reading=reading,
        stacked=stacked,
    )
    asked = Asked(plan, schedule, scope, sweep, rho)
    if is_certified:
        _check_fit("schedule=certified()", saliency, saliency.measures_flow, scope, plan, rho)
    if sweep:
        _check_fit("sweep=True", saliency, saliency.scores_pruned, scope, plan, rho)
        if plan.units:
            raise ValueError("sweep=True gives single weights away: it needs pattern=unstructured")
    check_finite(params, saliency.power, plan.prunable)
    saliency = saliency.fitted(params, plan.prunable)
    if isinstance(schedule, Certified):
        target = counts[0, 0]
        masks, info, rows = _run_certified(params, saliency, asked, target, schedule, progress)
    else:
        masks, info, rows = _run_rounds(params, saliency, asked, counts, nested, progress)
    if progress and not is_traced(info):
        jax.effects_barrier()  # all progress is printed before the result is returned
    if reading is not None and not saliency.homogeneous and not is_traced(info, masks):
        warn_of_breaks(reading, pick([path for path, _ in named_leaves(params)], plan.prunable))
    if sweep:
        masks, info = _sweep(params, saliency, plan, masks, info)
    if not is_traced(info, masks):
        warn_of_losses(info, rows, masks, params, saliency, asked)
    return masks, info


def _check_kinds(schedule: Any, scope: Any) -> None:
    """Refuse makers in the place of what they make, and patterns in the place of scopes."""
    if schedule is certified:
        raise TypeError("schedule must be certified(), with brackets: it is given its alpha there")
    if scope is runs:
        raise TypeError("scope must be runs(…), with brackets: it is given the length M there")
    if is_pattern(scope):
        raise TypeError(f"scope must say what competes, and {scope!r} is a pattern: pass it so")


def _check_fit(
    name: str, saliency: Saliency, able: bool, scope: Scope, plan: Plan, rho: Any
) -> None:
    """Refuse what the certified schedule and the sweep cannot work with."""
    if not able:
        raise TypeError(
            f"{name} needs a saliency that measures flow, as synflow_saliency builds it, got "
            f"a {type(saliency).__name__}; one of your own derives from Saliency and sets "
            f"{'scores_pruned' if name.startswith('sweep') else 'measures_flow'} = True"
        )
    if scope is not globally:
        raise ValueError(f"{name} needs scope=globally, got {scope!r}")
    if isinstance(rho, Mapping) or plan.floors:
        raise ValueError(f"{name} needs one number as rho, and no min_keep")


def run_copied(
    params: Params, saliency: Saliency, plan: Plan, counts: jax.Array
) -> tuple[Masks, PruneInfo]:
    """Run the rounds of a plan whose counts are copied from masks, and check the result."""
    asked = Asked(plan, schedule=None)
    masks, info, rows = _run_rounds(params, saliency, asked, counts, False, False)
    if not is_traced(info, masks):
        warn_of_losses(info, rows, masks, params, saliency, asked)
    return masks, info


def _run_rounds(
    params: Params,
    saliency: Saliency,
    asked: Asked,
    counts: jax.Array,
    nested: bool,
    progress: bool,
) -> tuple[Masks, PruneInfo, Rows]:
    """Run the rounds, in one compiled loop or (for saliencies that read data) on the host."""
    plan = asked.plan
    start = first_masks(params, plan)
    if saliency.on_host:
        kept, rows = host_loop(params, saliency, plan, start, counts, nested, progress)
    else:
        held = as_function(saliency, "saliency")
        kept, rows = fixed_loop(
            params, held, start, counts, plan=plan, nested=nested, progress=progress
        )
    rows = rows if saliency.measures_flow else unmeasured(rows)
    masks = _laid_masks(params, plan, kept)
    info = _info(plan, rows, jnp.int32(len(counts)))
    if not is_traced(info, masks):
        check_run(info, rows, params, saliency, asked)
    return masks, info, rows


def _run_certified(
    params: Params,
    saliency: Saliency,
    asked: Asked,
    target: jax.Array,
    schedule: Certified,
    progress: bool,
) -> tuple[Masks, PruneInfo, Rows]:
    """Run certified rounds on params whose flow starts at the input alone."""
    plan = asked.plan
    start = first_masks(params, plan)
    held = as_function(saliency, "saliency")
    plain = saliency.from_input_alone(params, plan.prunable)
    kept, rows, rounds = certified_loop(
        plain, held, start, target, plan=plan, schedule=schedule, progress=progress
    )
    masks = _laid_masks(params, plan, kept)
    if is_traced(rows, masks):
        return masks, _info(plan, rows, rounds), rows
    rows = _trimmed(rows, int(rounds))
    info = _info(plan, rows, rounds)
    check_run(info, rows, plain, saliency, asked, int(target))
    return masks, info, rows


def _laid_masks(params: Params, plan: Plan, kept: Leaves) -> Masks:
    """Build the mask tree, each mask laid out across devices as its leaf is."""
    return jax.tree.map(lay_out_as, full_masks(params, plan, kept), params)


def _info(plan: Plan, rows: Rows, rounds: jax.Array) -> PruneInfo:
    columns = rows._asdict()
    del columns["idle"], columns["negative"]
    named = {"layers": plan.paths, "sizes": plan.sizes, "units": plan.counted}
    return PruneInfo(rounds=rounds, **named, **columns)


def _trimmed(rows: Rows, rounds: int) -> Rows:
    """Drop the rows of rounds that did not run."""
    short = jax.tree.map(lambda column: column[:rounds], rows)
    return short._replace(log2_flow=rows.log2_flow[: rounds + 1])


def _sweep(
    params: Params, saliency: Saliency, plan: Plan, masks: Masks, info: PruneInfo
) -> tuple[Masks, PruneInfo]:
    """Replace dead weights, and measure the result in the place of the last round's."""
    if is_traced(info, masks):
        raise TypeError("sweep=True looks at the masks: call it outside of jit and vmap")
    kept, dead = sweep_dead(params, saliency, plan.layers, pick(masks, plan.prunable))
    if dead:
        warn(
            f"{dead} kept weights lie on no path from input to output after the sweep: no pruned "
            "weight is left that connects two units on such paths; they stay, to keep the count",
            CollapseWarning,
        )
    masks = _laid_masks(params, plan, kept)
    counts = info.kept.at[-1].set(count_layers(kept, plan.packing))
    flow = log2(saliency.flow(params, masks)).astype(info.log2_flow.dtype)
    return masks, dataclasses.replace(info, kept=counts, log2_flow=info.log2_flow.at[-1].set(flow))
