"""The protocol of saliencies: what a method must say, and what it may say beside it."""

import abc
from dataclasses import dataclass
from functools import partial
from inspect import isfunction
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from synflow_jax.plan import Layers, Plan, sum_units
from synflow_jax.scaled import Scaled
from synflow_jax.selection import Leaves
from synflow_jax.structure import Reading
from synflow_jax.trees import (
    Function,
    Masks,
    Params,
    ScoreFn,
    Scores,
    Shape,
    as_function,
    as_if_auto,
    check_structure,
    floating_dtype,
    is_floating,
    pick,
    widen,
)


@dataclass(frozen=True)
class Pruned:
    """A network and the masks that were found for it, none of them traced.

    Attributes:
      params: the dense ones.
      masks: found for them.
      layers: the prunable leaves.
      known: names of the layers without a weight or without flow, which are reported already.
      remedy: what the call could be asked for instead, so that less is cut.
    """

    params: Params
    masks: Masks
    layers: Layers
    known: frozenset[str]
    remedy: str


class Saliency(abc.ABC):
    """Scores of weights, higher = keep.

    A saliency of your own needs `scores`; one that measures flow, `flow_and_scores` as well.

    A plain function (params, masks) -> scores does wherever a saliency is expected; derive from
    this class to override a default. A saliency that holds arrays and runs inside of a compiled
    loop must be a pytree (`jax.tree_util.register_dataclass`). Everything else that it holds must
    be hashable.

    Attributes:
      on_host: rounds run in a Python loop, for saliencies that read data.
      measures_flow: `flow_and_scores` returns a flow of which the scores are shares: ΣS over any
        set of weights is at least the flow that is lost with it. The certified schedule needs it,
        and certifies the flow from all sources unless `from_input_alone` removes them.
      scores_pruned: `candidate_scores` is there. The final sweep needs it.
      power: the power of |θ| whose sums over paths are the scores, 0 where they are none: of larger
        or smaller weights than floats can add up, masks are refused.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from synflow_jax import prune
      >>> class Energy(Saliency):
      ...     def scores(self, params, masks):
      ...         return jax.tree.map(jnp.square, params)
      >>> prune({"w": jnp.array([[1.0, -4.0]])}, Energy(), 2.0, rounds=1)[0]["w"].tolist()
      [[False, True]]

      A saliency that measures flow, here S = θ² ⊙ ∂R/∂θ² of a chain, under the certified schedule:

      >>> from synflow_jax import certified
      >>> from synflow_jax.scaled import Scaled
      >>> class SquaredFlow(Saliency):
      ...     measures_flow = True
      ...     def flow_and_scores(self, params, masks):
      ...         squares = jax.tree.map(lambda p, m: jnp.where(m, p**2, 0), params, masks)
      ...         flow = lambda w: jnp.sum(jnp.ones((1, 1)) @ w["in"] @ w["out"])
      ...         value, slopes = jax.value_and_grad(flow)(squares)
      ...         return Scaled(value, jnp.int32(0)), jax.tree.map(jnp.multiply, squares, slopes)
      ...     def scores(self, params, masks):
      ...         return self.flow_and_scores(params, masks)[1]
      >>> chain = {"in": jnp.array([[1.0, -2.0]]), "out": jnp.array([[3.0], [0.5]])}
      >>> masks, info = prune(chain, SquaredFlow(), 2.0, schedule=certified())
      >>> masks["in"].tolist(), bool(info.certified)
      ([[True, False]], True)
    """

    on_host: ClassVar[bool] = False
    measures_flow: ClassVar[bool] = False
    scores_pruned: ClassVar[bool] = False
    power: int = 0

    @property
    def homogeneous(self) -> bool:
        """Whether scores mean as much for networks that are not homogeneous; by default they do."""
        return True

    @abc.abstractmethod
    def scores(self, params: Params, masks: Masks) -> Scores:
        """Score every weight of the network that the masks leave.

        Args:
          params: any pytree of arrays, dense.
          masks: bool tree with the treedef of params, True = keep.

        Returns:
          Floating arrays with the treedef and shapes of params; only prunable leaves are read.
        """

    def __call__(self, params: Params, masks: Masks) -> Scores:
        """Score every weight: `scores`, as a function."""
        return self.scores(params, masks)

    def fitted(self, params: Params, prunable: tuple[bool, ...] = ()) -> "Saliency":
        """Adapt to the params and to which leaves are pruned; by default nothing changes.

        Called once, before the rounds; `prunable` has one bool a leaf, in tree order.
        """
        del params, prunable
        return self

    def reading(self, params: Params) -> Reading | None:
        """Read from a trace how the network uses its leaves; None where no network is known.

        The kernels that it names are what is pruned by default.
        """
        del params
        return None

    def least_claim(
        self, params: Params, masks: Masks, flow: jax.Array, of_layers: jax.Array
    ) -> jax.Array:
        """Return the smallest flow of all that must not lose its last path: by default R.

        Certified rounds prune less than it.

        Args:
          params: as scored.
          masks: as scored.
          flow: R, in the unit of the scores.
          of_layers: the sum of the scores of each prunable layer.
        """
        del params, masks, of_layers
        return flow

    def flow(self, params: Params, masks: Masks) -> Scaled:
        """Return the flow of the masked network; NaN where the saliency measures none."""
        if self.measures_flow:
            return self.flow_and_scores(params, masks)[0]
        return Scaled(jnp.float32(jnp.nan), jnp.int32(0))

    def flow_and_scores(self, params: Params, masks: Masks) -> tuple[Scaled, Scores]:
        """Return the flow and the scores, score × 2^flow.exponent being the true score."""
        if self.measures_flow:
            raise TypeError(
                f"saliency must define flow_and_scores(params, masks), since it has "
                f"measures_flow = True: {type(self).__name__} does not"
            )
        return Scaled(jnp.float32(jnp.nan), jnp.int32(0)), self.scores(params, masks)

    def unit_scores(self, score: jax.Array, unit: Shape) -> jax.Array:
        """Score the units of a leaf from the scores of its weights; by default their sums."""
        return sum_units(score, unit)

    def from_input_alone(self, params: Params, prunable: tuple[bool, ...]) -> Params:
        """Return the params with sources (added leaves that are not prunable) set to 0.

        The certified schedule scores what is returned, so that all flow starts at the input; by
        default nothing is removed. `prunable` has one bool a leaf, in tree order.
        """
        del prunable
        return params

    def losses(self, pruned: "Pruned") -> tuple[str, ...]:
        """Describe what pruning cut, one phrase each; the check after a run reports them."""
        del pruned
        return ()

    def candidate_scores(self, params: Params, kept: Leaves, prunable: tuple[bool, ...]) -> Leaves:
        """Score every prunable weight by the flow through it if it were added to those kept."""
        raise NotImplementedError


@partial(jax.tree_util.register_dataclass, data_fields=["fn"], meta_fields=[])
@dataclass(frozen=True)
class FunctionSaliency(Saliency):
    """A plain function (params, masks) -> scores, as a saliency."""

    fn: Function

    def scores(self, params: Params, masks: Masks) -> Scores:
        """Score every weight."""
        return self.fn(params, masks)


def as_saliency(saliency: Saliency | ScoreFn) -> Saliency:
    """Wrap a plain function; refuse what scores nothing."""
    if isinstance(saliency, Saliency):
        return saliency
    # By where it was written: a function from exec has no module, and one of functools.wraps has
    # that of what it wraps.
    named = saliency.__globals__.get("__name__") if isfunction(saliency) else None
    ours = str(named).startswith("synflow_jax.")
    if isfunction(saliency) and ours and saliency.__name__.endswith("_saliency"):
        raise TypeError(f"saliency must be {saliency.__name__}(…), with brackets: they build it")
    is_class = isinstance(saliency, type) and issubclass(saliency, Saliency)
    if ours or is_class or not callable(saliency):
        raise TypeError(
            "saliency must be a function (params, masks) -> scores, such as magnitude_saliency() "
            f"builds, got {saliency!r}"
        )
    return FunctionSaliency(as_function(saliency, "saliency"))


def checked_scores(tree: Any, params: Params, layers: Layers) -> Leaves:
    """Check what a saliency returned, and bring the scores of the layers to one dtype."""
    check_structure(params, tree, "what saliency returns")
    scores = pick(tree, layers.prunable)
    leaves = pick(params, layers.prunable)
    for path, leaf, score in zip(layers.paths, leaves, scores, strict=True):
        known, shape = hasattr(score, "dtype") and is_floating(score), tuple(leaf.shape)
        if not known or tuple(score.shape) != shape:
            found = f"{score.dtype}{score.shape}" if hasattr(score, "dtype") else type(score)
            raise TypeError(
                f"saliency must return a floating score a weight: {path!r} has shape {shape} "
                f"and its scores are {found}"
            )
    scores = list(map(jnp.asarray, scores))  # NumPy's float64 is float32 here, unless x64 is on
    wide = floating_dtype(widen(scores))
    return [score.astype(wide) for score in scores]


def unit_scores(tree: Any, params: Params, plan: Plan, saliency: Saliency) -> Leaves:
    """Return the scores of all units, which the saliency makes of those of their weights."""
    scores = checked_scores(tree, params, plan.layers)
    if not plan.units:
        return scores
    pairs = zip(scores, plan.units, strict=True)
    return [
        as_if_auto(partial(saliency.unit_scores, unit=unit), score, replicated=True)
        for score, unit in pairs
    ]
