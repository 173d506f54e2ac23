"""A score of a network at initialisation, to rank architectures by."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.plan import find_layers
from synflow_jax.saliency import FlowSaliency, synflow_saliency
from synflow_jax.scaled import Scaled, log2
from synflow_jax.trees import (
    ApplyFn,
    Params,
    Prunable,
    all_true,
    check_finite,
    converted,
    floating_dtype,
    is_traced,
    named_leaves,
    pick,
)


@converted("params")
def flow_score(
    params: Params, apply_fn: ApplyFn, shape: Any, *, prunable: Prunable | None = None
) -> Any:
    """Score a network without training or data: log10 of Σ |θ ⊙ ∂R_SF/∂|θ||, over its kernels.

    In a chain of L layers without biases each layer carries all of the flow, and the sum is
    L·R_SF. All floating leaves carry flow; only the prunable ones are summed. The evaluation is
    overflow-free (`synflow_jax.scaled`), at any depth and width.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, with the norms of the network if it has any. As a
        `jax.tree_util.Partial` it can hold arrays that differ from call to call, such as a choice
        of operations, without compiling anew.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      prunable: (path, leaf) -> bool, the leaves that are summed.

    Returns:
      A floating scalar; −inf if no weight lies on a path from input to output.

    Raises:
      ValueError: params has NaN or no prunable leaf, or the score is not finite.
      TypeError: apply_fn is not a function, or shape is not a shape.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, -2.0]]), "v": jnp.array([[3.0], [0.5]])}
      >>> score = flow_score(weights, lambda p, x: x @ p["w"] @ p["v"], (1,))
      >>> round(float(10**score), 3)  # two layers, each with a flow of 4
      8.0

    Source: Abdelfattah et al. 2021 (arXiv 2101.08134), section 3.2; Tanaka et al. 2020, section 6.
    """
    check_finite(params)
    saliency = synflow_saliency(apply_fn, shape).fitted(params)
    flags = find_layers(params, prunable, saliency.reading(params)).prunable
    score, bad = _score(saliency, params, flags)
    if not is_traced(score) and not score < jnp.inf:
        paths = pick([path for path, _ in named_leaves(params)], flags)
        names = [path for path, is_bad in zip(paths, bad, strict=True) if is_bad]
        raise ValueError(
            f"the score must be finite, and it is {float(score)}. The network at |θ| on ones has "
            f"no finite slope by {', '.join(names)}: an operation such as exp or a square root of "
            "0? flow_mode(apply_fn) replaces what grows otherwise than flow does"
        )
    return score


@partial(jax.jit, static_argnames=("prunable",))
def _score(saliency: FlowSaliency, params: Params, prunable: tuple[bool, ...]) -> tuple[Any, Any]:
    """Return the score, and for each prunable leaf whether its part is not finite."""
    flow, scores = saliency.flow_and_scores(params, jax.tree.map(all_true, params))
    parts = [jnp.sum(jnp.abs(score)) for score in pick(scores, prunable)]
    wide = floating_dtype(parts)
    total = jnp.stack([part.astype(wide) for part in parts])
    score = log2(Scaled(jnp.sum(total), flow.exponent)) * math.log10(2)
    return score, ~jnp.isfinite(total)
