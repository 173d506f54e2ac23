"""SynFlow's saliency: scores by the flow through each weight, and the flow itself beside them."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from synflow_jax import objectives
from synflow_jax._types import ApplyFn, Masks, Params, Scores
from synflow_jax.errors import is_traced, largest
from synflow_jax.inputs import Inputs, read_shape
from synflow_jax.masks import masked
from synflow_jax.saliency import highest_precision, register, value_and_scores
from synflow_jax.scaled import Scaled, scaled, unit_exponent, unscale
from synflow_jax.tree import Function, as_function, is_floating, widen

EXTREME = 2.0**8  # a largest weight beyond this, or below its inverse, is no usual one


@partial(jax.jit, static_argnames=("inputs", "sizes"))
def _flow(params: Params, apply_fn: Function, inputs: Inputs, sizes: tuple[float, ...]) -> Scaled:
    # Jitted by itself so that one trace of the user's function serves gradient and value alike.
    return scaled(partial(objectives.flow, apply_fn=apply_fn, inputs=inputs), sizes)(params)


def prepared(params: Params, apply_fn: Function) -> Params:
    """Let a network in flow mode open what starts closed, before masks close what is pruned."""
    return getattr(apply_fn.fn, "prepare", lambda p: p)(params)


@register(data_fields=["apply_fn"], meta_fields=["inputs", "sizes"])
@dataclass(frozen=True)
class FlowSaliency:
    """SynFlow's saliency, |θ| ⊙ ∂R_SF/∂|m ⊙ θ|, with the flow itself on the side.

    No sum over paths overflows or underflows: flow and scores are computed as numbers times one
    power of two, 2^exponent, that all scores share.
    """

    apply_fn: Function
    inputs: Inputs
    sizes: tuple[float, ...] = ()  # of the leaves, in powers of two, where some are extreme

    def fitted(self, params: Params) -> "FlowSaliency":
        """Look at the params for weights of extreme size, which ask for more care."""
        leaves = jax.tree.leaves(params)
        found = largest([leaf for leaf in leaves if is_floating(leaf)])
        if is_traced(found):
            return self
        tops = [float(top) for top in found]
        if all(not top or 1 / EXTREME < top < EXTREME for top in tops):
            return self
        return replace(self, sizes=tuple(96.0 if is_floating(leaf) else 0.0 for leaf in leaves))

    def __call__(self, params: Params, masks: Masks) -> Scores:
        """Score every weight; what is pruned scores 0.

        Where R is beyond about 2^±100 (2^±996 in float64), scores are in units of a power of two
        near R, else they are S itself.
        """
        flow, scores = self.flow_and_scores(params, masks)
        exponent = unit_exponent(flow)
        return jax.tree.map(lambda score: unscale(score, exponent), scores)

    @highest_precision
    def flow(self, params: Params, masks: Masks) -> Scaled:
        """Return R_SF of the network as masked."""
        start = widen(masked(prepared(params, self.apply_fn), masks))
        return _flow(start, self.apply_fn, self.inputs, self.sizes)

    @highest_precision
    def flow_and_scores(self, params: Params, masks: Masks) -> tuple[Scaled, Scores]:
        """Return R_SF and, from the same gradient, the scores in units of 2^exponent."""
        # With |m ⊙ θ| as the factor, a pruned weight scores 0 whatever the slope of |·| at 0 is.
        # Masked first, then widened: what XLA finds the same in every round it holds in memory.
        start = objectives.absolute(widen(masked(prepared(params, self.apply_fn), masks)))
        rest = (self.apply_fn, self.inputs, self.sizes)
        return value_and_scores(lambda p: _flow(p, *rest), start, start)


def synflow_saliency(apply_fn: ApplyFn, shape: Any) -> FlowSaliency:
    """Score each weight by the flow through it, S = |θ| ⊙ ∂R_SF/∂|θ|, without data.

    Args:
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis, (32, 32, 3), or a pytree of
        jax.ShapeDtypeStruct, likewise without it.

    Returns:
      saliency(params, masks) -> scores, all non-negative for a network that has a flow.

    Raises:
      TypeError: shape is no shape.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, -2.0]]), "v": jnp.array([[3.0], [0.5]])}
      >>> score = synflow_saliency(lambda p, x: x @ p["w"] @ p["v"], (1,))
      >>> score(weights, {"w": jnp.ones((1, 2), bool), "v": jnp.ones((2, 1), bool)})["w"].tolist()
      [[3.0, 1.0]]

    Source: Tanaka et al. 2020, section 6, equations 4 and 5.
    """
    return FlowSaliency(as_function(apply_fn, "apply_fn"), read_shape(shape))
