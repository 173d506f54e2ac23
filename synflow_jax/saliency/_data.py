"""Saliencies of the training loss, SNIP and GraSP, which read data on the host.

Each batch goes through one jitted step, so that memory is that of one batch, and gradients are
summed: the objective is that of the sum of the batches' mean losses, as in the reference.
"""

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.plan import Kernels, Layers, find_layers
from synflow_jax.saliency._gradient import highest_precision, times_slope, zero_scores
from synflow_jax.saliency._losses import have_gradient
from synflow_jax.saliency._protocol import Pruned, Saliency
from synflow_jax.structure import Reading, read_loss
from synflow_jax.trees import (
    Function,
    LossFn,
    Masks,
    Params,
    Prunable,
    Scores,
    all_true,
    as_arrays,
    as_function,
    call_traced,
    is_floating,
    is_traced,
    is_weight,
    listed_names,
    masked,
    named_leaves,
    pick,
    place,
    widen,
)


class Batches:
    """The user's batches, which are read again in each round."""

    def __init__(self, source: Iterable[Any]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        return (_read(batch) for batch in self.source)

    @cached_property
    def shapes(self) -> Any:
        """Shapes and dtypes of the first batch, which is read once for them; None without one."""
        batch = next(iter(self), None)
        arrays = all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(batch))
        return jax.eval_shape(lambda: batch) if arrays else batch


def _read(batch: Any) -> Any:
    return as_arrays(batch, "batches", others=True)


@dataclass(frozen=True, eq=False)
class DataSaliency(Saliency):
    """A loss and batches, which SNIP and GraSP read one at a time."""

    loss_fn: Function
    batches: Batches
    on_host: ClassVar[bool] = True

    def gradients(self, start: list[jax.Array], params: Params, flags: tuple[bool, ...]) -> Any:
        """Sum ∂L/∂start over the batches: the gradient of the summed mean losses."""
        total = None
        for index, batch in enumerate(self.read()):
            value, gradient = _loss_gradient(self.loss_fn, start, params, batch, flags)
            _check_loss(value, index)
            total = gradient if total is None else jax.tree.map(jnp.add, total, gradient)
        return total

    def reading(self, params: Params) -> Reading | None:
        """Read from the trace of the loss on the first batch how it uses the leaves.

        A loss in which no leaf is contracted with the data tells nothing.
        """
        batch = self.batches.shapes
        if batch is None or not _can_be_traced(self.loss_fn, params, batch):
            return None
        found = read_loss(self.loss_fn, params, batch)
        return found if found.kernels else None

    def losses(self, pruned: Pruned) -> tuple[str, ...]:
        """Name the layers whose kept weights have no gradient of the loss on the first batch."""
        batch, layers = next(self.read()), pruned.layers
        kept = pick(pruned.masks, layers.prunable)

        def without_gradient(masks: Masks) -> set[str]:
            gradients = self.layer_gradients(pruned.params, masks, layers, batch)
            found = np.asarray(have_gradient(gradients, kept, layers.axes))
            return {name for name, has in zip(layers.names, found, strict=True) if not has}

        names = without_gradient(pruned.masks) - pruned.known
        if names:
            names -= without_gradient(jax.tree.map(all_true, pruned.params))
        listed = listed_names([name for name in layers.names if name in names])
        said = (
            f"on the first batch the loss has no gradient in {listed}, so that training cannot "
            f"change them ({pruned.remedy})"
        )
        return (said,) if names else ()

    @abc.abstractmethod
    def layer_gradients(
        self, params: Params, masks: Masks, layers: Layers, batch: Any
    ) -> list[jax.Array]:
        """Differentiate the loss of one batch by each layer, in the program that scores."""

    def read(self) -> Iterator[Any]:
        """Yield all batches, half precision widened; refuse batches that are used up."""
        empty = True
        for batch in self.batches:
            empty = False
            yield widen(batch)
        if empty:
            raise ValueError(
                "batches must hold at least one batch each time it is read, got none: pass "
                "list(batches) where a loader is used up after the first reading"
            )


def _can_be_traced(loss_fn: Function, params: Params, batch: Any) -> bool:
    """Whether the user's loss takes such a batch; one that fails is refused where it is scored."""
    try:
        with jax.default_matmul_precision("highest"):  # as in scoring, so that all share one trace
            jax.eval_shape(partial(call_traced, loss_fn), *jax.eval_shape(widen, (params, batch)))
    except Exception:  # the user's loss may raise anything
        return False
    return True


def _objective(loss_fn: Function, params: Params, batch: Any, flags: tuple[bool, ...]) -> Any:
    def loss(leaves: list[jax.Array]) -> jax.Array:
        state = place(params, flags, leaves, lambda leaf: leaf)
        try:
            value = call_traced(loss_fn, state, batch)
        except (TypeError, ValueError) as error:
            shapes = [tuple(jnp.shape(leaf)) for leaf in jax.tree.leaves(batch)]
            raise ValueError(
                f"loss_fn(params, batch) failed on a batch with arrays of shapes {shapes}; "
                "batches is a list of batches, as in [(x, labels)]. "
                f"It said {type(error).__name__}: {error}"
            ) from error
        if getattr(value, "shape", None) != () or not is_floating(value):
            array = hasattr(value, "shape") and hasattr(value, "dtype")
            found = f"{value.shape} of {value.dtype}" if array else f"a {type(value).__name__}"
            raise TypeError(
                f"loss_fn must return a floating scalar, the mean loss of a batch, got {found}"
            )
        return value

    return loss


@partial(jax.jit, static_argnames=("flags",))
@highest_precision
def _loss_gradient(loss_fn: Function, start: Any, params: Params, batch: Any, flags: Any) -> Any:
    return jax.value_and_grad(_objective(loss_fn, params, batch, flags))(start)


@partial(jax.jit, static_argnames=("flags",))
@highest_precision
def _hessian_product(
    loss_fn: Function, start: Any, params: Params, batch: Any, flags: Any, vector: Any
) -> Any:
    gradient = jax.grad(_objective(loss_fn, params, batch, flags))
    return jax.jvp(gradient, (start,), (vector,))[1]


def _check_loss(value: jax.Array, index: int) -> None:
    if not is_traced(value) and not bool(jnp.isfinite(value)):
        raise ValueError(f"loss_fn must be finite, got {float(value)} on batch {index} of batches")


def _check_batches(batches: Any) -> None:
    alone = hasattr(batches, "shape") or isinstance(batches, dict | str)
    if alone or not isinstance(batches, Iterable):
        raise TypeError(
            f"batches must be a list of batches, got {type(batches).__name__}: pass [batch]"
        )
    if isinstance(batches, Iterator) and iter(batches) is batches:
        raise TypeError(
            "batches must be read more than once (every round, and twice by GraSP), and an "
            f"iterator such as this {type(batches).__name__} is used up after the first: "
            "pass list(batches)"
        )


@dataclass(frozen=True, eq=False)
class SnipSaliency(DataSaliency):
    """|θ ⊙ Σ ∂L/∂(m ⊙ θ)|; a pruned weight may score again."""

    def scores(self, params: Params, masks: Masks) -> Scores:
        """Score every floating weight."""
        wide = widen(params)
        floating = tuple(is_weight(leaf) for leaf in jax.tree.leaves(wide))
        start = masked(wide, masks)
        gradients = self.gradients(pick(start, floating), start, floating)
        pairs = zip(pick(wide, floating), gradients, strict=True)
        scores = [jnp.abs(times_slope(*pair)) for pair in pairs]
        return place(wide, floating, scores, zero_scores)

    def layer_gradients(
        self, params: Params, masks: Masks, layers: Layers, batch: Any
    ) -> list[jax.Array]:
        """Differentiate by every floating leaf, and pick the layers."""
        start = masked(widen(params), masks)
        floating = tuple(is_weight(leaf) for leaf in jax.tree.leaves(start))
        found = _loss_gradient(self.loss_fn, pick(start, floating), start, batch, floating)[1]
        return pick(place(start, floating, found, lambda leaf: leaf), layers.prunable)


@dataclass(frozen=True, eq=False)
class GraspSaliency(DataSaliency):
    """θ ⊙ H g with g = ∇L over the prunable leaves; signed, and low is pruned."""

    prunable: Prunable | None

    def fitted(self, params: Params, prunable: tuple[bool, ...] = ()) -> "GraspSaliency":
        """Take the gradient over the leaves that are pruned."""
        if not any(prunable):
            return self
        paths = pick([path for path, _ in named_leaves(params)], prunable)
        return replace(self, prunable=Kernels(frozenset(paths)))

    def _flags(self, params: Params) -> tuple[bool, ...]:
        """Return, for each leaf, whether the gradient is taken over it."""
        reading = self.reading(params) if self.prunable is None else None
        return find_layers(params, self.prunable, reading).prunable

    def scores(self, params: Params, masks: Masks) -> Scores:
        """Score every prunable weight; two passes over the batches."""
        wide = widen(params)
        flags = self._flags(params)
        whole = masked(wide, masks)
        start, kept = pick(whole, flags), pick(masks, flags)
        # The direction ∇L: JAX's gradient by x + iy is ∂L/∂x − i·∂L/∂y, its conjugate.
        gradients = masked(jax.tree.map(jnp.conj, self.gradients(start, whole, flags)), kept)
        total = [jnp.zeros_like(leaf) for leaf in start]
        for batch in self.read():
            args = (self.loss_fn, start, whole, batch, flags, gradients)
            # One batch at a time, as in the first pass, where the loss is looked at.
            total = jax.block_until_ready(jax.tree.map(jnp.add, total, _hessian_product(*args)))
        scores = [times_slope(*pair) for pair in zip(start, total, strict=True)]
        return place(wide, flags, scores, zero_scores)

    def layer_gradients(
        self, params: Params, masks: Masks, layers: Layers, batch: Any
    ) -> list[jax.Array]:
        """Differentiate by the prunable leaves of the objective; others count as without one."""
        start = masked(widen(params), masks)
        flags = self._flags(params)
        found = _loss_gradient(self.loss_fn, pick(start, flags), start, batch, flags)[1]
        return pick(place(start, flags, found, jnp.zeros_like), layers.prunable)


def snip_saliency(loss_fn: LossFn, batches: Iterable[Any]) -> SnipSaliency:
    """Score each weight by the loss's sensitivity to it, S = |Σ_b θ ⊙ ∂L_b/∂(m ⊙ θ)|.

    Args:
      loss_fn: loss_fn(params, batch) -> scalar mean loss; `cross_entropy` builds one.
      batches: a list (or anything that can be read again) of batches; memory is that of one.

    Returns:
      saliency(params, masks) -> scores, the absolute value of the sum over batches.

    Raises:
      TypeError: batches is an iterator, which can be read only once.

    Example:
      >>> import jax.numpy as jnp
      >>> score = snip_saliency(lambda p, x: jnp.mean(x @ p["w"]), [jnp.ones((1, 2))])
      >>> weights = {"w": jnp.array([[1.0], [-2.0]])}
      >>> score(weights, {"w": jnp.array([[True], [True]])})["w"].tolist()
      [[1.0], [2.0]]

    Source: Lee, Ajanthan and Torr 2019 (arXiv 1810.02340), equations 4 to 6.
    """
    _check_batches(batches)
    return SnipSaliency(as_function(loss_fn, "loss_fn"), Batches(batches))


def grasp_saliency(
    loss_fn: LossFn, batches: Iterable[Any], prunable: Prunable | None = None
) -> GraspSaliency:
    """Score each weight by its effect on the gradient's norm, S = θ ⊙ H g.

    The gradient g of the loss, summed over the batches, and the Hessian H, a batch at a time, are
    over the prunable leaves only. High is kept.

    Args:
      loss_fn: loss_fn(params, batch) -> scalar mean loss; for classifiers the reference divides
        the logits by 200: cross_entropy(apply_fn, temperature=200.0).
      batches: a list (or anything that can be read again) of batches, each read twice and the
        same both times: a loader that reshuffles mixes g and H of different batches.
      prunable: which leaves the gradient is taken over.

    Returns:
      saliency(params, masks) -> signed scores; what is pruned scores 0.

    Raises:
      TypeError: batches is an iterator, which can be read only once.

    Example:
      >>> import jax.numpy as jnp
      >>> score = grasp_saliency(lambda p, x: jnp.sum(p["w"] ** 2), [0])
      >>> score({"w": jnp.array([[1.0, 3.0]])}, {"w": jnp.array([[True, True]])})["w"].tolist()
      [[4.0, 36.0]]

    Source: Wang, Zhang and Grosse 2020 (arXiv 2002.07376), equation 8; sign as in Tanaka et al.
    """
    _check_batches(batches)
    return GraspSaliency(as_function(loss_fn, "loss_fn"), Batches(batches), prunable)
