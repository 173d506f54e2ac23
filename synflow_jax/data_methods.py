"""The methods that read data, as the papers run them."""

from collections.abc import Iterable
from typing import Any

from synflow_jax._types import LossFn, Masks, Params, Pattern, Prunable, Schedule, Scope
from synflow_jax.data_saliency import grasp_saliency, snip_saliency
from synflow_jax.patterns import unstructured
from synflow_jax.prune import prune
from synflow_jax.schedule import exponential
from synflow_jax.scope import globally
from synflow_jax.tree import is_prunable


def snip(
    params: Params,
    loss_fn: LossFn,
    batches: Iterable[Any],
    rho: Any,
    *,
    rounds: int = 1,
    schedule: Schedule = exponential,
    scope: Scope = globally,
    nested: bool = False,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
    prunable: Prunable = is_prunable,
    progress: bool = False,
) -> Masks:
    """Keep the weights that the loss feels most, S = |Σ_b θ ⊙ ∂L_b/∂(m ⊙ θ)|.

    Args:
      params: any pytree of arrays; not modified.
      loss_fn: loss_fn(params, batch) -> scalar mean loss; `cross_entropy` builds one.
      batches: a list (or anything that can be read again) of batches.
      rho: compression ratio ρ, prunable weights before over after, or a dict of these by pattern.
      rounds: n; 1 in the paper.
      schedule: exponential, linear or one_shot.
      scope: globally, layerwise, erk, or runs(4) for N:M.
      nested: pruned weights stay out; else they may come back, as in the reference.
      min_keep: how many weights each prunable leaf keeps at least, a number, a share below 1, or a
        dict of these by pattern.
      pattern: channels, blocks(4) or another: which weights stay or go together; ρ is then of
        these units.
      prunable: (path, leaf) -> bool chooses what is pruned; `matching` builds one from names.
      progress: say on stderr how far it is, once it takes more than two seconds.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument makes no sense, or the loss is not finite.
      TypeError: an argument is of the wrong kind, such as an iterator for batches.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0], [-2.0]])}
      >>> snip(weights, lambda p, x: jnp.mean(x @ p["w"]), [jnp.ones((1, 2))], 2.0)["w"].tolist()
      [[False], [True]]

    Source: Lee, Ajanthan and Torr 2019 (arXiv 1810.02340).
    """
    plan = {"schedule": schedule, "scope": scope, "nested": nested, "progress": progress}
    choice = {"min_keep": min_keep, "pattern": pattern, "prunable": prunable}
    return prune(params, snip_saliency(loss_fn, batches), rho, rounds, **plan, **choice)[0]


def grasp(
    params: Params,
    loss_fn: LossFn,
    batches: Iterable[Any],
    rho: Any,
    *,
    rounds: int = 1,
    schedule: Schedule = exponential,
    scope: Scope = globally,
    nested: bool = False,
    min_keep: Any = 0,
    pattern: Pattern = unstructured,
    prunable: Prunable = is_prunable,
    progress: bool = False,
) -> Masks:
    """Keep the weights that hold up the gradient's norm, S = θ ⊙ H∇L over the prunable leaves.

    Args:
      params: any pytree of arrays; not modified.
      loss_fn: loss_fn(params, batch) -> scalar mean loss; the reference divides the logits by 200:
        cross_entropy(apply_fn, temperature=200.0).
      batches: a list (or anything that can be read again) of batches; memory is that of one.
      rho: compression ratio ρ, prunable weights before over after, or a dict of these by pattern.
      rounds: n; 1 in the paper.
      schedule: exponential, linear or one_shot.
      scope: globally, layerwise, erk, or runs(4) for N:M.
      nested: pruned weights stay out; else they may come back, as in the reference.
      min_keep: how many weights each prunable leaf keeps at least, a number, a share below 1, or a
        dict of these by pattern.
      pattern: channels, blocks(4) or another: which weights stay or go together; ρ is then of
        these units.
      prunable: (path, leaf) -> bool chooses what is pruned; `matching` builds one from names.
      progress: say on stderr how far it is, once it takes more than two seconds.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument makes no sense, or the loss is not finite.
      TypeError: an argument is of the wrong kind, such as an iterator for batches.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, 3.0]])}
      >>> grasp(weights, lambda p, x: jnp.sum(p["w"] ** 2), [0], 2.0)["w"].tolist()
      [[False, True]]

    Source: Wang, Zhang and Grosse 2020 (arXiv 2002.07376), as in Tanaka et al. 2020.
    """
    plan = {"schedule": schedule, "scope": scope, "nested": nested, "progress": progress}
    choice = {"min_keep": min_keep, "pattern": pattern, "prunable": prunable}
    saliency = grasp_saliency(loss_fn, batches, prunable)
    return prune(params, saliency, rho, rounds, **plan, **choice)[0]
