"""The share of the flow that each weight carries."""

from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax._types import ApplyFn, Masks, Params, Scores
from synflow_jax.diagnostics import prepare
from synflow_jax.scaled import log2

_flow_and_scores = jax.jit(lambda saliency, p, masks: saliency.flow_and_scores(p, masks))


def flow_shares(
    params: Params, apply_fn: ApplyFn, shape: Any, masks: Masks | None = None
) -> tuple[jax.Array, Scores]:
    """Measure log2 of the flow, and give every weight its share of it.

    That is S/R, and 0 where there is no flow.
    """
    masks, saliency = prepare(params, masks, apply_fn, shape)
    flow, scores = _flow_and_scores(saliency, params, masks)
    whole = jnp.where(flow.mantissa == 0, jnp.ones_like(flow.mantissa), flow.mantissa)
    return log2(flow), jax.tree.map(lambda score: score / whole.astype(score.dtype), scores)
