"""The methods as their papers run them: settings alone; `prune` and the saliencies do the work."""

from collections.abc import Iterable
from typing import Any, Unpack

import jax

from synflow_jax.flow import Outputs
from synflow_jax.plan import (
    globally,
    one_shot,
    plan_copied,
    unstructured,
)
from synflow_jax.pruning import Choice, Options, check_options, prune, run_copied
from synflow_jax.saliency import (
    grasp_saliency,
    magnitude_saliency,
    random_saliency,
    snip_saliency,
    synflow_l2_saliency,
    synflow_saliency,
)
from synflow_jax.trees import (
    ApplyFn,
    LossFn,
    Masks,
    Params,
    Scope,
    check_masks,
    converted,
    without_gradient,
)


def synflow(
    params: Params,
    apply_fn: ApplyFn,
    shape: Any,
    rho: Any,
    *,
    rounds: int = 100,
    sweep: bool = False,
    outputs: Outputs | None = None,
    **options: Unpack[Options],
) -> Masks:
    """Find which weights to keep, before training and without data, S = |θ| ⊙ ∂R_SF/∂|θ|.

    Args:
      params: any pytree of arrays; not modified.
      apply_fn: apply_fn(params, x) -> y, the network in evaluation mode; pure, and made once: an
        equal function reuses the compiled program, a new lambda compiles anew.
      shape: one example without the batch axis, (32, 32, 3), or a pytree of
        jax.ShapeDtypeStruct, likewise without it.
      rho: compression ratio ρ, prunable weights before over after; 100 keeps 1 %. A dict of ratios
        by pattern, {"conv*": 10, "*": 100}, makes each group of leaves compete within itself.
      rounds: n, how often to score and prune; 100 in the paper.
      sweep: replace kept weights without flow by pruned ones that would have some.
      outputs: y -> the outputs whose flow counts, such as lambda y: y["logits"] for a model that
        returns caches or intermediates as well, or a dict of weights by path, such as
        {"logits": 2, "value": 1}; None counts every floating output.
      **options: schedule (certified() provably leaves flow), scope, min_keep, pattern, prunable,
        stacked and progress, as in `prune`.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument is out of range, the flow is 0 or not finite, or rho out of reach.
      TypeError: an argument is of the wrong kind.

    Warns:
      CollapseWarning: rho leaves fewer weights than layers, every score of a layer is 0, a round
        left no flow, or the check after the run, outside of jit and vmap, finds what the network as
        pruned has lost: layers without a kept weight, branches, outputs or inputs without flow, all
        signal or gradients at its own values. Also where scores are negative: they rank weights of
        flows that cancel.
      UncertifiedWarning: a round pruned as much flow as there was; what is left is not guaranteed.
      FlowWarning: apply_fn is not homogeneous (LayerNorm, softmax, GELU, …): pass
        flow_mode(apply_fn).

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, -2.0]]), "v": jnp.array([[3.0], [0.5]])}
      >>> masks = synflow(weights, lambda p, x: x @ p["w"] @ p["v"], (1,), rho=2.0)
      >>> masks["w"].tolist(), masks["v"].tolist()
      ([[True, False]], [[True], [False]])

    Source: Tanaka et al. 2020 (arXiv 2006.05467), section 6, algorithm 1.
    """
    check_options("synflow", options, Options)
    saliency = synflow_saliency(apply_fn, shape, outputs=outputs)
    # Nested: pruned weights rank last, below the negative scores that trained statistics can give.
    return prune(params, saliency, rho, rounds, nested=True, sweep=sweep, **options)[0]


def synflow_l2(
    params: Params,
    apply_fn: ApplyFn,
    shape: Any,
    rho: Any,
    *,
    rounds: int = 100,
    sweep: bool = False,
    outputs: Outputs | None = None,
    **options: Unpack[Options],
) -> Masks:
    """Find which weights to keep by the flow of squared weights, S = θ² ⊙ ∂R/∂θ², R = 1ᵀ∏θ²1.

    As `synflow`, with θ² in the place of |θ|: a weight's score is its share of the squared weights
    along all paths.

    Args:
      params: any pytree of arrays; not modified.
      apply_fn: apply_fn(params, x) -> y, the network in evaluation mode.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      rho: compression ratio ρ, prunable weights before over after, or a dict of these by pattern.
      rounds: n, how often to score and prune.
      sweep: replace kept weights without flow by pruned ones that would have some.
      outputs: y -> the outputs whose flow counts, such as lambda y: y["logits"] for a model that
        returns caches or intermediates as well, or a dict of weights by path, such as
        {"logits": 2, "value": 1}; None counts every floating output.
      **options: schedule (certified() provably leaves flow), scope, min_keep, pattern, prunable,
        stacked and progress, as in `prune`.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument is out of range, the flow is 0 or not finite, or rho out of reach.
      TypeError: an argument is of the wrong kind.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, -2.0]]), "v": jnp.array([[3.0], [0.5]])}
      >>> masks = synflow_l2(weights, lambda p, x: x @ p["w"] @ p["v"], (1,), rho=2.0)
      >>> masks["w"].tolist(), masks["v"].tolist()
      ([[True, False]], [[True], [False]])

    Source: Gebhart, Saxena and Schrater 2021 (arXiv 2102.11068); Patil and Dovrolis 2021 (arXiv
    2010.11354).
    """
    check_options("synflow_l2", options, Options)
    saliency = synflow_l2_saliency(apply_fn, shape, outputs=outputs)
    return prune(params, saliency, rho, rounds, nested=True, sweep=sweep, **options)[0]


def magnitude(params: Params, rho: Any, *, rounds: int = 1, **options: Unpack[Options]) -> Masks:
    """Keep the weights of largest magnitude, S = |θ|.

    Args:
      params: any pytree of arrays; not modified.
      rho: compression ratio ρ, prunable weights before over after, or a dict of these by pattern.
      rounds: n; the result is that of one round whatever n is.
      **options: schedule, scope, min_keep, pattern, prunable, stacked and progress, as in
        `prune`.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument is out of range.
      TypeError: an argument is of the wrong kind.

    Example:
      >>> import jax.numpy as jnp
      >>> magnitude({"w": jnp.array([[1.0, -4.0, 2.0]])}, 3.0)["w"].tolist()
      [[False, True, False]]

    Source: Tanaka et al. 2020, section 4.
    """
    check_options("magnitude", options, Options)
    return prune(params, magnitude_saliency(), rho, rounds, **options)[0]


@converted("params")
def random(
    key: Any,
    params: Params,
    rho: Any = None,
    *,
    densities: Scope | Masks | None = None,
    **choice: Unpack[Choice],
) -> Masks:
    """Keep weights drawn at random.

    Args:
      key: a random key, such as jax.random.key(0).
      params: any pytree of arrays; only shapes matter.
      rho: compression ratio ρ, or a dict of these by pattern; not given where densities is a mask
        tree.
      densities: None draws from the whole network; `uniform` gives every layer the same density;
        `erk` the Erdős–Rényi-kernel one; any scope does; of masks, the layer counts are copied.
      **choice: min_keep, pattern, prunable and stacked, as in `prune`. Without prunable, the leaves
        that masks as densities prune are pruned, whatever their names are.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: rho is below 1, or is given beside masks; or masks prune what prunable leaves out.
      TypeError: key is no random key, or rho is missing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> masks = random(jax.random.key(0), {"w": jnp.ones((10, 10))}, 4.0)
      >>> int(masks["w"].sum())
      25

    Source: Tanaka et al. 2020, section 2; for ERK, Evci et al. 2020 (arXiv 1911.11134).
    """
    check_options("random", choice, Choice)
    params = without_gradient(params)
    saliency = random_saliency(key)
    is_tree = jax.tree.structure(densities) == jax.tree.structure(params)
    if densities is None or (callable(densities) and not is_tree):
        if rho is None:
            raise TypeError("random needs rho, or a mask tree as densities")
        scope: Any = globally if densities is None else densities
        return prune(params, saliency, rho, 1, schedule=one_shot, scope=scope, **choice)[0]
    if isinstance(densities, float | int):
        raise TypeError(f"densities must be a scope or a mask tree, got {densities}: pass rho")
    patterned = choice.get("pattern", unstructured) is not unstructured
    if rho is not None or choice.get("min_keep", 0) or patterned:
        raise ValueError(
            "rho must not be given where densities is a mask tree, nor min_keep or pattern: it has "
            "the counts"
        )
    check_masks(params, densities, "densities")
    chosen = choice.get("prunable"), choice.get("stacked", ())
    plan, counts = plan_copied(params, densities, *chosen)
    return run_copied(params, saliency, plan, counts)[0]


def snip(
    params: Params,
    loss_fn: LossFn,
    batches: Iterable[Any],
    rho: Any,
    *,
    rounds: int = 1,
    nested: bool = False,
    **options: Unpack[Options],
) -> Masks:
    """Keep the weights that the loss is most sensitive to, S = |Σ_b θ ⊙ ∂L_b/∂(m ⊙ θ)|.

    Args:
      params: any pytree of arrays; not modified.
      loss_fn: loss_fn(params, batch) -> scalar mean loss; `cross_entropy` builds one.
      batches: a list (or anything that can be read again) of batches.
      rho: compression ratio ρ, prunable weights before over after, or a dict of these by pattern.
      rounds: n; 1 in the paper.
      nested: pruned weights stay pruned; else they may come back, as in the reference.
      **options: schedule, scope, min_keep, pattern, prunable, stacked and progress, as in
        `prune`.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument is out of range, or the loss is not finite.
      TypeError: an argument is of the wrong kind, such as an iterator for batches.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0], [-2.0]])}
      >>> snip(weights, lambda p, x: jnp.mean(x @ p["w"]), [jnp.ones((1, 2))], 2.0)["w"].tolist()
      [[False], [True]]

    Source: Lee, Ajanthan and Torr 2019 (arXiv 1810.02340).
    """
    check_options("snip", options, Options)
    saliency = snip_saliency(loss_fn, batches)
    return prune(params, saliency, rho, rounds, nested=nested, **options)[0]


def grasp(
    params: Params,
    loss_fn: LossFn,
    batches: Iterable[Any],
    rho: Any,
    *,
    rounds: int = 1,
    nested: bool = False,
    **options: Unpack[Options],
) -> Masks:
    """Keep the weights that hold up the gradient's norm, S = θ ⊙ H∇L over the prunable leaves.

    Args:
      params: any pytree of arrays; not modified.
      loss_fn: loss_fn(params, batch) -> scalar mean loss; the reference divides the logits by 200:
        cross_entropy(apply_fn, temperature=200.0).
      batches: a list (or anything that can be read again) of batches; memory is that of one.
      rho: compression ratio ρ, prunable weights before over after, or a dict of these by pattern.
      rounds: n; 1 in the paper.
      nested: pruned weights stay pruned; else they may come back, as in the reference.
      **options: schedule, scope, min_keep, pattern, prunable, stacked and progress, as in
        `prune`.

    Returns:
      masks, bool with the treedef of params, True = keep.

    Raises:
      ValueError: an argument is out of range, or the loss is not finite.
      TypeError: an argument is of the wrong kind, such as an iterator for batches.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, 3.0]])}
      >>> grasp(weights, lambda p, x: jnp.sum(p["w"] ** 2), [0], 2.0)["w"].tolist()
      [[False, True]]

    Source: Wang, Zhang and Grosse 2020 (arXiv 2002.07376), as in Tanaka et al. 2020.
    """
    check_options("grasp", options, Options)
    saliency = grasp_saliency(loss_fn, batches, options.get("prunable"))
    return prune(params, saliency, rho, rounds, nested=nested, **options)[0]
