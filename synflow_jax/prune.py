"""The round loop: score, select, and again, until the density is reached."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from synflow_jax._types import Masks, Params, Prunable, Saliency, Schedule, Scope
from synflow_jax.budget import budgets
from synflow_jax.diagnostics import explain_flow
from synflow_jax.errors import (
    CollapseWarning,
    check_finite,
    check_rho,
    check_rounds,
    check_structure,
    is_traced,
)
from synflow_jax.info import PruneInfo
from synflow_jax.saliency import FlowSaliency
from synflow_jax.scaled import Scaled, log2
from synflow_jax.schedule import exponential
from synflow_jax.scope import globally
from synflow_jax.select import select
from synflow_jax.tree import (
    Function,
    Layers,
    all_true,
    as_function,
    find_layers,
    floating_dtype,
    is_floating,
    is_prunable,
    pick,
    place,
    widen,
)


def prune(
    params: Params,
    saliency: Saliency,
    rho: Any,
    rounds: int = 100,
    *,
    schedule: Schedule = exponential,
    scope: Scope = globally,
    nested: bool = False,
    prunable: Prunable = is_prunable,
) -> tuple[Masks, PruneInfo]:
    """Score and select, n times: keep the top ⌈N·d_k⌉ weights after round k.

    Args:
      params: any pytree of arrays; not modified.
      saliency: saliency(params, masks) -> scores with the treedef of params; `synflow_saliency`
        and its siblings build them, and so does any function of your own.
      rho: compression ratio ρ, prunable weights before over after, at least 1.
      rounds: n.
      schedule: exponential, linear, one_shot, or schedule(k, n, rho) -> density after round k.
      scope: globally, layerwise, erk, or scope(shapes, densities) -> counts.
      nested: pruned weights stay out, even where the saliency scores them again.
      prunable: (path, leaf) -> bool chooses what is pruned; the path is written as a/b/kernel.

    Returns:
      masks, bool with the treedef of params, True = keep, and the PruneInfo. Exactly the asked
      number of weights stays; ties go to weights kept so far, then by flat index.

    Raises:
      ValueError: rho, rounds or params are no such things, or the dense network has no finite flow.
      TypeError: an argument is of the wrong kind.

    Warns:
      CollapseWarning: fewer weights than layers are asked for, every score of a layer is 0, or the
        flow died on the way.

    Example:
      >>> import jax.numpy as jnp
      >>> from synflow_jax import magnitude_saliency
      >>> masks, info = prune({"w": jnp.array([[1.0, -4.0]])}, magnitude_saliency(), 2.0, rounds=1)
      >>> masks["w"].tolist(), info.kept.tolist()
      ([[False, True]], [[1]])

    Source: Tanaka et al. 2020, section 6, algorithm 1.
    """
    check_rho(rho)
    check_rounds(rounds)
    layers = find_layers(params, prunable)
    check_finite(params)
    counts = budgets(layers, rho, rounds, schedule, scope)
    return run_rounds(params, saliency, layers, counts, nested)


def run_rounds(
    params: Params, saliency: Any, layers: Layers, counts: jax.Array, nested: bool
) -> tuple[Masks, PruneInfo]:
    """Run the rounds, in one compiled loop or (for saliencies with data) on the host."""
    start = [all_true(leaf) for leaf in pick(params, layers.chosen)]
    if getattr(saliency, "on_host", False):
        chosen, rows = _host_loop(params, saliency, layers, start, counts, nested)
    else:
        held = as_function(saliency, "saliency")
        chosen, rows = _device_loop(params, held, start, counts, layers=layers, nested=nested)
    masks = _full(params, layers, chosen)
    *measured, idle = rows
    info = PruneInfo(layers.paths, layers.sizes, *measured)
    if not is_traced(info, masks):
        _report(info, idle[0].tolist(), params, saliency)
    return masks, info


def NO_FLOW():
    return Scaled(jnp.float32(jnp.nan), jnp.int32(0))


def _full(params: Params, layers: Layers, chosen: list[jax.Array]) -> Masks:
    return place(params, layers.chosen, chosen, all_true)


def _round(
    params: Params, saliency: Any, layers: Layers, nested: bool, chosen: Any, counts: Any
) -> tuple[list[jax.Array], tuple[jax.Array, ...]]:
    """Score once, select once, and take the measurements of the round."""
    masks = _full(params, layers, chosen)
    if isinstance(saliency, FlowSaliency):
        flow, tree = saliency.flow_and_scores(params, masks)
    else:
        flow, tree = NO_FLOW(), saliency(params, masks)
    scores = _checked_scores(tree, params, layers)
    return _select_and_measure(scores, chosen, counts, flow, nested)


def _select_and_measure(
    scores: list[jax.Array], chosen: list[jax.Array], counts: jax.Array, flow: Any, nested: bool
) -> tuple[list[jax.Array], tuple[jax.Array, ...]]:
    pairs = list(zip(scores, chosen, strict=True))
    ranked = [jnp.where(m, s, jnp.full_like(s, -jnp.inf)) for s, m in pairs] if nested else scores
    if counts.shape == (1,):
        new = select(ranked, chosen, counts[0])
    else:
        rows = enumerate(zip(ranked, chosen, strict=True))
        new = [select([score], [mask], counts[i])[0] for i, (score, mask) in rows]
    kept = jnp.stack([jnp.sum(mask, dtype=jnp.int32) for mask in new])
    finite = jnp.stack([jnp.all(jnp.isfinite(score)) for score in scores])
    triples = zip(scores, chosen, new, strict=True)
    whole = flow.mantissa.astype(scores[0].dtype)
    divisor = jnp.where(whole > 0, whole, jnp.ones_like(whole))
    lost = [jnp.where(was & ~now, s / divisor, jnp.zeros_like(s)) for s, was, now in triples]
    share = sum((jnp.sum(leaf) for leaf in lost), start=0 * whole)
    idle = jnp.stack([~jnp.any(score) for score in scores])
    return new, (kept, log2(flow), share, jnp.all(finite), idle)


def _checked_scores(tree: Any, params: Params, layers: Layers) -> list[jax.Array]:
    check_structure(params, tree, "what saliency returns")
    scores = pick(tree, layers.chosen)
    for path, shape, score in zip(layers.paths, layers.shapes, scores, strict=True):
        known = hasattr(score, "dtype") and is_floating(score)
        if not known or tuple(score.shape) != shape:
            found = f"{score.dtype}{score.shape}" if hasattr(score, "dtype") else type(score)
            raise TypeError(
                f"saliency must return a floating score a weight: {path!r} has shape {shape} "
                f"and its scores are {found}"
            )
    wide = floating_dtype(widen(scores))
    return [score.astype(wide) for score in scores]


@partial(jax.jit, static_argnames=("layers", "nested"))
def _device_loop(
    params: Params,
    held: Function,
    start: list[jax.Array],
    counts: jax.Array,
    *,
    layers: Layers,
    nested: bool,
) -> tuple[list[jax.Array], tuple[jax.Array, ...]]:
    saliency = held.fn

    def turn(chosen: list[jax.Array], count: jax.Array) -> tuple[list[jax.Array], Any]:
        return _round(params, saliency, layers, nested, chosen, count)

    # A scan is a fori_loop that stacks one row of measurements a round.
    chosen, (kept, log2_flow, share, finite, idle) = lax.scan(turn, start, counts)
    after = jnp.nan
    if isinstance(saliency, FlowSaliency):
        after = log2(saliency.flow(params, _full(params, layers, chosen)))
    log2_flow = jnp.append(log2_flow, jnp.asarray(after, log2_flow.dtype))
    return chosen, (kept, log2_flow, share, finite, idle)


_select_round = jax.jit(_select_and_measure, static_argnames=("nested",))


def _host_loop(
    params: Params,
    saliency: Saliency,
    layers: Layers,
    chosen: list[jax.Array],
    counts: jax.Array,
    nested: bool,
) -> tuple[list[jax.Array], tuple[jax.Array, ...]]:
    rows = []
    for count in counts:
        tree = saliency(params, _full(params, layers, chosen))
        scores = _checked_scores(tree, params, layers)
        chosen, row = _select_round(scores, chosen, count, NO_FLOW(), nested=nested)
        rows.append(row)
    kept, log2_flow, share, finite, idle = map(jnp.stack, zip(*rows, strict=True))
    return chosen, (kept, jnp.append(log2_flow, log2_flow[:1]), share, finite, idle)


def _report(info: PruneInfo, idle: list[bool], params: Params, saliency: Any) -> None:
    """Raise or warn where the numbers say that the masks mean nothing."""
    measured = isinstance(saliency, FlowSaliency)
    if measured and not bool(jnp.isfinite(info.log2_flow[0])):
        raise ValueError(explain_flow(saliency, params, jax.tree.map(all_true, params)))
    if not bool(jnp.all(info.finite)):
        first = int(jnp.argmin(info.finite)) + 1
        raise ValueError(f"saliency must return finite scores: round {first} had NaN or infinity")
    if measured or getattr(saliency, "on_host", False):
        _report_idle([path for path, none in zip(info.layers, idle, strict=True) if none], info)
    died = int(info.collapsed_at)
    if died:
        before = float(info.log2_flow[died - 1])
        low = before < float(jnp.finfo(info.log2_flow.dtype).minexp) + 32
        cause = f"; before, its log2 was {before:.0f}: it may be underflow, give float64 params"
        warnings.warn(
            f"the flow is 0 from round {died} of {len(info.share)} on: the network as pruned "
            f"computes a constant; use more rounds or a smaller rho{cause if low else ''}",
            CollapseWarning,
            stacklevel=5,
        )


def _report_idle(idle: list[str], info: PruneInfo) -> None:
    """A layer whose scores are all 0 goes first, and in flat-index order: no method chose so."""
    if len(idle) == len(info.layers):
        raise ValueError(
            "every score of the dense network is 0: the objective does not feel the prunable "
            "leaves. A head that is all zero, or a function that ignores its params?"
        )
    if idle:
        warnings.warn(
            f"all scores are 0 in {', '.join(idle)}, which therefore go first: is something on "
            "their path initialised to 0 (a norm's scale, a head)? Score them at another value, or "
            "leave them out by `prunable`",
            CollapseWarning,
            stacklevel=5,
        )
