"""The methods as the papers run them; all the work is in `prune` and the saliencies."""

from typing import Any

import jax

from synflow_jax._types import ApplyFn, Masks, Params, Pattern, Prunable, Schedule, Scope
from synflow_jax.errors import check_masks
from synflow_jax.flow_saliency import synflow_saliency
from synflow_jax.measure import count_kept
from synflow_jax.patterns import unstructured
from synflow_jax.prune import prune, run_rounds
from synflow_jax.saliency import magnitude_saliency, random_saliency
from synflow_jax.schedule import Certified, exponential, one_shot
from synflow_jax.scope import globally
from synflow_jax.tree import find_layers, is_prunable, pick


def synflow(
    params: Params,
    apply_fn: ApplyFn,
    shape: Any,
    rho: Any,
    *,
    rounds: int = 100,
    schedule: Schedule | Certified = exponential,
    scope: Scope = globally,
    sweep: bool = False,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
    prunable: Prunable = is_prunable,
    progress: bool = False,
) -> Masks:
    """Find which weights to keep, before training and without data, S = |θ| ⊙ ∂R_SF/∂|θ|.

    Args:
      params: any pytree of arrays; not modified.
      apply_fn: apply_fn(params, x) -> y, the network in evaluation mode; pure, and made once: an
        equal function reuses the compiled program, a new lambda compiles anew.
      shape: one example without the batch axis, (32, 32, 3), or a pytree of
        jax.ShapeDtypeStruct, likewise without it.
      rho: compression ratio ρ, prunable weights before over after; 100 keeps 1 %. A dict of ratios
        by pattern, {"conv*": 10, "*": 100}, lets each group of leaves compete within itself.
      rounds: n, how often to score and prune; 100 in the paper.
      schedule: exponential, linear or one_shot; or certified(), which provably leaves flow.
      scope: globally, layerwise, erk, or runs(4) for N:M.
      sweep: give the places of kept weights without flow to pruned ones with it.
      min_keep: how many weights each prunable leaf keeps at least, a number, a share below 1, or a
        dict of these by pattern.
      pattern: channels, blocks(4) or another: which weights stay or go together; ρ is then of
        these units.
      prunable: (path, leaf) -> bool chooses what is pruned; `matching` builds one from names.
      progress: say on stderr how far it is, once it takes more than two seconds.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument makes no sense, the flow is 0 or not finite, or rho out of reach.
      TypeError: an argument is of the wrong kind.

    Warns:
      CollapseWarning: the flow died on the way, or rho leaves fewer weights than layers.
      UncertifiedWarning: some round pruned as much flow as there was; by luck it lives.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, -2.0]]), "v": jnp.array([[3.0], [0.5]])}
      >>> masks = synflow(weights, lambda p, x: x @ p["w"] @ p["v"], (1,), rho=2.0)
      >>> masks["w"].tolist(), masks["v"].tolist()
      ([[True, False]], [[True], [False]])

    Source: Tanaka et al. 2020 (arXiv 2006.05467), section 6, algorithm 1.
    """
    plan = {"schedule": schedule, "scope": scope, "sweep": sweep, "progress": progress}
    choice = {"min_keep": min_keep, "pattern": pattern, "prunable": prunable}
    # Nested: 0 outranks the negative scores that trained statistics can give.
    saliency = synflow_saliency(apply_fn, shape)
    return prune(params, saliency, rho, rounds, nested=True, **plan, **choice)[0]


def magnitude(
    params: Params,
    rho: Any,
    *,
    rounds: int = 1,
    schedule: Schedule = exponential,
    scope: Scope = globally,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
    prunable: Prunable = is_prunable,
) -> Masks:
    """Keep the weights of largest magnitude, S = |θ|.

    Args:
      params: any pytree of arrays; not modified.
      rho: compression ratio ρ, prunable weights before over after, or a dict of these by pattern.
      rounds: n; the result is that of one round whatever n is.
      schedule: exponential, linear or one_shot.
      scope: globally, layerwise, erk, or runs(4) for N:M.
      min_keep: how many weights each prunable leaf keeps at least, a number, a share below 1, or a
        dict of these by pattern.
      pattern: channels, blocks(4) or another: which weights stay or go together; ρ is then of
        these units.
      prunable: (path, leaf) -> bool chooses what is pruned; `matching` builds one from names.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument makes no sense.
      TypeError: an argument is of the wrong kind.

    Example:
      >>> import jax.numpy as jnp
      >>> magnitude({"w": jnp.array([[1.0, -4.0, 2.0]])}, 3.0)["w"].tolist()
      [[False, True, False]]

    Source: Tanaka et al. 2020, section 4.
    """
    rest = {
        "schedule": schedule,
        "scope": scope,
        "min_keep": min_keep,
        "pattern": pattern,
        "prunable": prunable,
    }
    return prune(params, magnitude_saliency(), rho, rounds, **rest)[0]


def random(
    key: Any,
    params: Params,
    rho: Any = None,
    *,
    densities: Scope | Masks | None = None,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
    prunable: Prunable = is_prunable,
) -> Masks:
    """Keep weights drawn at random.

    Args:
      key: a random key, such as jax.random.key(0).
      params: any pytree of arrays; only shapes matter.
      rho: compression ratio ρ, or a dict of these by pattern; not given where densities is a mask
        tree.
      densities: None draws from the whole network; `uniform` gives every layer the same density;
        `erk` the Erdős–Rényi-kernel one; any scope does; masks have their layer counts copied.
      min_keep: how many weights each prunable leaf keeps at least, a number, a share below 1, or a
        dict of these by pattern.
      pattern: channels, blocks(4) or another: which weights stay or go together; ρ is then of
        these units.
      prunable: (path, leaf) -> bool chooses what is pruned; `matching` builds one from names.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: rho is below 1, or is given beside masks.
      TypeError: key is no random key, or rho is missing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> masks = random(jax.random.key(0), {"w": jnp.ones((10, 10))}, 4.0)
      >>> int(masks["w"].sum())
      25

    Source: Tanaka et al. 2020, section 2; for ERK, Evci et al. 2020 (arXiv 1911.11134).
    """
    saliency = random_saliency(key)
    is_tree = jax.tree.structure(densities) == jax.tree.structure(params)
    if densities is None or (callable(densities) and not is_tree):
        if rho is None:
            raise TypeError("random needs rho, or a mask tree as densities")
        scope: Any = globally if densities is None else densities
        rest = {"scope": scope, "min_keep": min_keep, "pattern": pattern, "prunable": prunable}
        return prune(params, saliency, rho, 1, schedule=one_shot, **rest)[0]
    if isinstance(densities, float | int):
        raise TypeError(f"densities must be a scope or a mask tree, got {densities}: pass rho")
    if rho is not None or min_keep or pattern is not unstructured:
        raise ValueError(
            "rho must not be given where densities is a mask tree, nor min_keep or pattern: it has "
            "the counts"
        )
    check_masks(params, densities, "densities")
    layers = find_layers(params, prunable)
    kept = pick(densities, layers.chosen)
    return run_rounds(params, saliency, layers, count_kept(kept)[None])[0]
