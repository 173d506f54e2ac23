"""Gradual pruning: masks that shrink during training, in any Optax training loop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from synflow_jax.measure import each_layer
from synflow_jax.plan import Plan, check_ratios, cubic, globally, make_plan
from synflow_jax.pruning import Asked, fixed_loop, full_masks
from synflow_jax.saliency import magnitude_saliency
from synflow_jax.training._keep import as_transform, mask_parts, masked_update, zero_pruned
from synflow_jax.trees import (
    MOST_ROUNDS,
    CollapseWarning,
    Function,
    Masks,
    Params,
    Prunable,
    Schedule,
    Scope,
    all_true,
    check_int,
    is_traced,
    is_weight,
    lay_out_as,
    listed_names,
    pick,
    place,
    small_transfers,
    warn,
    without_gradient,
)


class GradualState(NamedTuple):
    """The state of `gradual_magnitude`.

    Attributes:
      masks: the masks so far.
      step: the number of updates so far.
      inner_state: the state of the inner transform.
    """

    masks: Masks
    step: jax.Array
    inner_state: Any


class _Settings(NamedTuple):
    """The arguments of `gradual_magnitude` but the transform."""

    rho: Any
    min_keep: Any
    begin: int
    end: int
    every: int
    schedule: Schedule
    scope: Scope
    prunable: Prunable | None
    stacked: Any


def gradual_magnitude(
    tx: Any,
    rho: Any,
    *,
    end: int,
    begin: int = 0,
    every: int = 100,
    schedule: Schedule = cubic,
    scope: Scope = globally,
    min_keep: Any = 0,
    prunable: Prunable | None = None,
    stacked: Any = (),
) -> optax.GradientTransformationExtraArgs:
    """Prune the smallest weights while training, from density 1 after `begin` to 1/ρ after `end`.

    A round of pruning follows updates begin + every, begin + 2·every, … and `end`. The round after
    update t sets the weights of least |θ| to zero, so that the density is that of the schedule at
    (t − begin)/(end − begin). Pruned weights stay exactly zero, as under `keep_masks`, and so do
    all parts of the inner state with the structure of the params (moments, averages). |θ| is taken
    after the update, in the dtype of the params; while a weight is NaN or infinite, no round
    prunes. Make it the outermost transform, or the one inside optax.MultiSteps, which calls it once
    per emitted update; around optax.MultiSteps it counts every micro-step. `state.masks` are the
    masks so far.

    Args:
      tx: any Optax transform.
      rho: compression ratio ρ at the end, prunable weights before over after, at least 1; or a
        dict of ratios by pattern.
      end: the update after which the density is 1/ρ; later updates prune nothing.
      begin: the update up to which no weight is pruned.
      every: the number of updates from one round of pruning to the next.
      schedule: cubic, exponential, linear, or schedule(k, n, rho) -> density after k updates of n.
      scope: globally, layerwise or erk; a pruned weight never returns.
      min_keep: the fewest weights that each layer keeps: a number, a share below 1, or a
        dict of these by pattern.
      prunable: (path, leaf) -> bool, the leaves to prune; `matching` builds one from names.
      stacked: leaves that hold several layers: what `measure.stacked_layers` returns, or a list of
        paths of leaves of shape [layers, …]; scope and min_keep then count each slice as a layer.

    Returns:
      An Optax transform; its update needs params. Its state is a GradualState.

    Raises:
      ValueError: rho, begin, end or every is out of range, no leaf is prunable (at init), or update
        is called without params.
      TypeError: an argument has the wrong type.

    Warns:
      CollapseWarning: rho keeps fewer weights than there are layers; or, where update is called
        outside of jit, the last round leaves a layer without a weight, or weights are not finite.
        Under jit no mask can be looked at: pass state.masks to `collapsed_layers` after update
        `end`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> params = {"w": jnp.array([[1.0, -3.0, 2.0, 4.0]])}
      >>> tx = gradual_magnitude(optax.sgd(0.5), rho=2, end=1)
      >>> updates, state = tx.update({"w": jnp.ones((1, 4))}, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [[0.0, -3.5, 0.0, 3.5]]

    Source: Zhu and Gupta 2017 (arXiv 1710.01878), section 3; they prune each layer by itself.
    """
    check_ratios(rho)
    _check_steps(begin, end, every)
    if not callable(schedule):
        raise TypeError(f"schedule must be a function such as cubic, got {schedule!r}")
    inner = as_transform(tx)
    settings = _Settings(rho, min_keep, begin, end, every, schedule, scope, prunable, stacked)

    def init(params: Params) -> GradualState:
        with small_transfers():
            _plan_and_counts(settings, params)  # refuses a bad plan before the first update
            masks = jax.tree.map(all_true, params)
            return GradualState(masks, jnp.zeros((), jnp.int32), inner.init(params))

    def update(
        updates: Any, state: GradualState, params: Params | None = None, **extra: Any
    ) -> tuple[Any, GradualState]:
        masks, before, inner_state = state
        held, inner_state = masked_update(inner, updates, inner_state, params, masks, extra)
        step: Any = optax.safe_increment(before)

        def pruned() -> tuple[Any, GradualState]:
            new = _smaller_masks(settings, params, held, masks, step)
            # No ranking of NaN is right: the masks stay, and later rounds catch up.
            fine = _all_finite(params, held)
            new = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, masks)
            state = GradualState(new, step, mask_parts(inner_state, params, new))
            return zero_pruned(held, new, params), state

        def kept() -> tuple[Any, GradualState]:
            return held, GradualState(masks, step, inner_state)

        due = (step > begin) & (step <= end) & ((step - begin) % every == 0) | (step == end)
        if is_traced(due):
            return lax.cond(due, pruned, kept)
        if not due:
            return kept()
        result = pruned()
        if not is_traced(held) and not _all_finite(params, held):
            warn(
                f"after update {step} weights are NaN or infinite, and gradual_magnitude pruned "
                "nothing: the gradients or the learning rate are at fault",
                CollapseWarning,
            )
        elif step == end:
            _warn_of_emptied(settings, params, result[1].masks)
        return result

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _smaller_masks(
    settings: _Settings, params: Params, changes: Any, masks: Masks, step: jax.Array
) -> Masks:
    """Prune the masks by the magnitudes of the weights after the update, one round."""
    plan, counts = _plan_and_counts(settings, params)
    flags = plan.prunable
    moved: Any = optax.apply_updates(pick(params, flags), pick(changes, flags))
    new = without_gradient(place(params, flags, moved, lambda leaf: leaf))
    now = (step - settings.begin - 1) // settings.every
    with jax.enable_x64(True):
        count = lax.dynamic_slice_in_dim(counts, now, 1)
    saliency = Function(magnitude_saliency())
    kept, _ = fixed_loop(
        new, saliency, pick(masks, flags), count, plan=plan, nested=True, progress=False
    )
    return jax.tree.map(lay_out_as, full_masks(params, plan, kept), params)


def _all_finite(params: Params, changes: Any) -> Any:
    """Whether all weights are finite after the update."""
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(changes), strict=True)
    moved: Any = [optax.apply_updates(*pair) for pair in pairs if is_weight(pair[0])]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in moved]).all()


def _warn_of_emptied(settings: _Settings, params: Params, masks: Masks) -> None:
    """Warn of layers without a weight; of fewer weights than layers the plan has warned."""
    if is_traced(masks):
        return
    plan, _ = _plan_and_counts(settings, params)
    found = each_layer(plan.layers, pick(masks, plan.prunable))
    kept = {name: int(mask.sum()) for name, mask in found}
    empty = [name for name, count in kept.items() if not count]
    if empty and sum(kept.values()) >= len(kept):
        warn(
            f"after update {settings.end}, the last one that prunes, no weight is left in "
            f"{listed_names(empty)}: {Asked(plan, scope=settings.scope).for_empty_layers()}",
            CollapseWarning,
        )


def _plan_and_counts(settings: _Settings, params: Params) -> tuple[Plan, jax.Array]:
    """Return the plan and the counts kept after each round, which never grow."""
    span = settings.end - settings.begin
    rounds = -(-span // settings.every)
    steps = np.minimum(np.arange(1, rounds + 1, dtype=np.float64) * settings.every, span)
    plan, counts = make_plan(
        params,
        settings.rho,
        rounds,
        schedule=lambda *rest: settings.schedule(steps, span, rest[-1]),
        scope=settings.scope,
        min_keep=settings.min_keep,
        prunable=settings.prunable,
        stacked=settings.stacked,
    )
    with jax.enable_x64(True):
        # erk rounds its shares anew in each round: the count of a layer could rise.
        return plan, lax.cummax(counts, reverse=True)


LAST = 2**31 - 1  # updates are counted in int32


def _check_steps(begin: Any, end: Any, every: Any) -> None:
    """Refuse numbers of updates that are not whole, are too small, or end before they begin."""
    for name, value, least in (("begin", begin, 0), ("every", every, 1), ("end", end, 1)):
        check_int(name, value, least)
    if end > LAST:
        raise ValueError(
            f"end must be at most 2^31 - 1, which the counter of updates holds, got {end}"
        )
    if -(-(end - begin) // every) > MOST_ROUNDS:
        raise ValueError(
            f"every must be so large that there are at most {MOST_ROUNDS:,} rounds from begin to "
            f"end, got every={every}, begin={begin} and end={end}"
        )
    if end <= begin:
        raise ValueError(f"end must be after begin, got begin={begin} and end={end}")
