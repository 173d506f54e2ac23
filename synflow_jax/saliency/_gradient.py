"""Saliencies without data: the gradient of an objective, magnitude, and random numbers.

A gradient saliency is ∂R(m ⊙ θ)/∂m = θ ⊙ ∂R/∂(m ⊙ θ). Scores have the treedef of the params and are
real; leaves that are neither floating nor complex score 0. Every saliency is a pytree whose
functions are static, so that two saliencies of equal parts share one compiled program.
Half-precision leaves are scored in float32, and every matrix product runs in the highest precision
that the device has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.saliency._protocol import Saliency
from synflow_jax.scaled import Scaled
from synflow_jax.trees import (
    Function,
    Masks,
    Params,
    Scores,
    Shape,
    as_function,
    check_key,
    is_weight,
    masked,
    pick,
    place,
    uniform_like,
    widen,
)


def highest_precision(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function run its matrix products in full precision, not a TPU's bfloat16."""

    @wraps(fn)
    def scored(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return fn(*args)

    return scored


def zero_scores(leaf: Any) -> jax.Array:
    """Return zeros, the scores of a leaf that is not floating."""
    return jnp.zeros(leaf.shape, jnp.float32)


def times_slope(theta: jax.Array, gradient: jax.Array) -> jax.Array:
    """Return θ ⊙ ∂R/∂θ, the derivative of R(m ⊙ θ) by a real mask m.

    JAX's gradient by θ = x + iy is ∂R/∂x − i·∂R/∂y, so that for complex leaves it is Re(θ ⊙ g).
    """
    product = theta * gradient
    return jnp.real(product) if jnp.iscomplexobj(product) else product


def value_and_scores(
    objective: Callable[[Params], Scaled], start: Params, factor: Params
) -> tuple[Scaled, Scores]:
    """Return R(start) and factor ⊙ ∂R/∂start, both in units of 2^exponent."""
    floating = tuple(is_weight(leaf) for leaf in jax.tree.leaves(start))

    def of_floating(leaves: list[jax.Array]) -> Scaled:
        return objective(place(start, floating, leaves, lambda leaf: leaf))

    # A Scaled is (mantissa, exponent): the mantissa is differentiated, the exponent passed through,
    # so that all scores are in the unit of R.
    found = jax.value_and_grad(of_floating, has_aux=True)(pick(start, floating))
    (mantissa, exponent), gradients = found
    pairs = zip(pick(factor, floating), gradients, strict=True)
    scores = [times_slope(*pair) for pair in pairs]
    return Scaled(mantissa, exponent), place(start, floating, scores, zero_scores)


@partial(jax.tree_util.register_dataclass, data_fields=["objective"], meta_fields=["absolute"])
@dataclass(frozen=True)
class GradientSaliency(Saliency):
    """θ ⊙ ∂R/∂(m ⊙ θ) of any objective."""

    objective: Function
    absolute: bool

    @highest_precision
    def scores(self, params: Params, masks: Masks) -> Scores:
        """Score every weight."""
        wide = widen(params)
        scores = value_and_scores(self._plain, masked(wide, masks), wide)[1]
        return jax.tree.map(jnp.abs, scores) if self.absolute else scores

    def _plain(self, params: Params) -> Scaled:
        return Scaled(self.objective(params), jnp.int32(0))


def gradient_saliency(
    objective: Callable[[Params], jax.Array], absolute: bool = False
) -> GradientSaliency:
    """Turn a scalar function of the params into a saliency, S = θ ⊙ ∂R/∂(m ⊙ θ).

    Args:
      objective: params -> scalar, differentiable.
      absolute: score by |S|, as SNIP does.

    Returns:
      saliency(params, masks) -> scores.

    Example:
      >>> import jax.numpy as jnp
      >>> score = gradient_saliency(lambda params: jnp.sum(params["w"] ** 3))
      >>> weights = {"w": jnp.array([[1.0, 2.0]])}
      >>> score(weights, {"w": jnp.array([[True, True]])})["w"].tolist()
      [[3.0, 24.0]]

    Source: Tanaka et al. 2020, section 4, equation 1.
    """
    return GradientSaliency(as_function(objective, "objective"), bool(absolute))


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class MagnitudeSaliency(Saliency):
    """|θ|, the ranking of the saliency θ² of ½‖θ‖², without its underflow."""

    def scores(self, params: Params, masks: Masks) -> Scores:
        """Score every weight, whatever the masks say."""
        del masks
        return jax.tree.map(lambda p: jnp.abs(p) if is_weight(p) else zero_scores(p), widen(params))


def magnitude_saliency() -> MagnitudeSaliency:
    """Score each weight by its magnitude |θ|.

    Returns:
      saliency(params, masks) -> scores.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.array([[1.0, -2.0]])}
      >>> magnitude_saliency()(weights, {"w": jnp.array([[True, True]])})["w"].tolist()
      [[1.0, 2.0]]

    Source: Tanaka et al. 2020, section 4 (magnitude as the saliency of ½‖θ‖²).
    """
    return MagnitudeSaliency()


@partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class RandomSaliency(Saliency):
    """Independent uniform scores, the same in every round."""

    key: Any

    def scores(self, params: Params, masks: Masks) -> Scores:
        """Score every weight, whatever the weights and masks are."""
        del masks
        leaves, treedef = jax.tree.flatten(params)
        keys = [jax.random.fold_in(self.key, i) for i in range(len(leaves))]
        return treedef.unflatten(list(map(uniform_like, keys, leaves)))

    def unit_scores(self, score: jax.Array, unit: Shape) -> jax.Array:
        """Return one draw a unit: a sum of many would favour larger units."""
        return jax.lax.slice(score, (0,) * score.ndim, score.shape, unit)


def random_saliency(key: Any) -> RandomSaliency:
    """Score each weight by a uniform random number: the only score that is no gradient.

    Args:
      key: a random key, such as jax.random.key(0).

    Returns:
      saliency(params, masks) -> scores in [0, 1).

    Raises:
      TypeError: key is no random key.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = {"w": jnp.ones((2, 3))}
      >>> random_saliency(jax.random.key(0))(weights, weights)["w"].shape
      (2, 3)
    """
    check_key(key)
    return RandomSaliency(key)
