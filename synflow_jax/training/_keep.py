"""Fixed masks in any Optax training loop: pruned weights are zero from the first step on."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from synflow_jax.trees import (
    Masks,
    Params,
    check_bool,
    check_like,
    check_masks,
    is_traced,
    is_weight,
    listed_names,
    masked,
    named_leaves,
    small_transfers,
)


class KeepMasksState(NamedTuple):
    """The state of `keep_masks`; masks are in it so that checkpoints and shardings include them."""

    masks: Masks
    inner_state: Any


def keep_masks(tx: Any, masks: Masks) -> optax.GradientTransformationExtraArgs:
    """Keep pruned weights at exactly zero, from the first step, whatever `tx` does.

    The inner transform gets gradients and params that are zero where a mask is False, so that norms
    and moments are those of the pruned network. Its updates are then replaced there by −θ: this
    sets dense params to zero in the first step, and undoes decay, momentum and noise in later ones.
    Extra arguments of update are masked too: trees with the structure and shapes of the params, and
    such trees among the arguments and results of a function (the loss of a line search, the
    gradient of SAM). If params are a single array, a batch of the same shape would therefore be
    masked as well.

    Make it the outermost transform: keep_masks(optax.chain(...), masks),
    keep_masks(optax.MultiSteps(...), masks). Masks and params must have the same treedef, so it
    goes around optax.masked and optax.multi_transform, not inside. For optax.MultiSteps,
    has_updated is tx.has_updated(state.inner_state). The first gradient is taken at the params you
    pass: start from apply_masks(params, masks) if it should be that of the pruned network.

    Args:
      tx: any Optax transform.
      masks: bool tree with the treedef of the params, True = keep.

    Returns:
      An Optax transform; its update needs params. Its state holds the masks.

    Raises:
      ValueError: masks does not fit the params (at init), as inside of optax.multi_transform; a
        pruned weight is NaN or infinite (at init, outside of jit); or update is called without
        params, or with gradients or params that do not fit the masks.
      TypeError: tx is not an Optax transform, or a mask is not bool.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> tx = keep_masks(optax.sgd(0.1), {"w": jnp.array([True, False])})
      >>> updates, state = tx.update({"w": jnp.array([5.0, 5.0])}, tx.init(params), params)
      >>> optax.apply_updates(params, updates)["w"].tolist()
      [0.5, 0.0]
    """
    check_bool(masks)
    inner = as_transform(tx)

    def init(params: Params) -> KeepMasksState:
        _check_outermost(params, masks)
        check_masks(params, masks)
        _check_pruned(params, masks)
        # A copy: a step that donates its state must not delete the caller's masks.
        with small_transfers():
            copied = jax.tree.map(jnp.copy, masks)
            return KeepMasksState(copied, inner.init(masked(params, copied)))

    def update(
        updates: Any, state: KeepMasksState, params: Params | None = None, **extra: Any
    ) -> tuple[Any, KeepMasksState]:
        held, inner_state = masked_update(
            inner, updates, state.inner_state, params, state.masks, extra
        )
        return held, KeepMasksState(state.masks, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _check_outermost(params: Params, masks: Masks) -> None:
    """Refuse params of which an outer transform shows a part, where masks are of all of them."""

    def is_taken_out(part: Any) -> bool:
        return isinstance(part, optax.MaskedNode)

    if jax.tree.structure(params) != jax.tree.structure(masks) and any(
        map(is_taken_out, jax.tree.leaves(params, is_leaf=is_taken_out))
    ):
        raise ValueError(
            "keep_masks must be the outermost transform, and optax.masked or optax.multi_transform "
            "is around it here, which shows it a part of the params: put keep_masks outermost: "
            "keep_masks(optax.multi_transform(...), masks)"
        )


def _check_pruned(params: Params, masks: Masks) -> None:
    """Refuse pruned weights that are NaN or infinite, which no update that is added brings to 0."""
    pairs = zip(named_leaves(params), jax.tree.leaves(masks), strict=True)
    weights = [(path, leaf, mask) for (path, leaf), mask in pairs if is_weight(leaf)]
    if is_traced([(leaf, mask) for _, leaf, mask in weights]):
        return
    flags = [jnp.all(mask | jnp.isfinite(leaf)) for _, leaf, mask in weights]
    found = zip(weights, jax.device_get(flags), strict=True)
    bad = [path for (path, _, _), fine in found if not fine]
    if bad:
        raise ValueError(
            f"params must be finite where they are pruned: NaN or infinity in {listed_names(bad)}; "
            "start from apply_masks(params, masks), which sets them to 0"
        )


def as_transform(tx: Any) -> Any:
    """Return an Optax transform that accepts extra arguments; refuse anything else."""
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise TypeError(
            f"tx must be an Optax transform, such as optax.adam(1e-3), got {type(tx).__name__}"
        )
    if isinstance(tx, optax.MultiSteps):
        tx = tx.gradient_transformation()
    return optax.with_extra_args_support(tx)


def masked_update(
    inner: Any, updates: Any, inner_state: Any, params: Any, masks: Masks, extra: dict[str, Any]
) -> tuple[Any, Any]:
    """Call the inner update on masked gradients, params and extras; set pruned weights to zero."""
    if params is None:
        raise ValueError("update needs params: call tx.update(gradients, state, params)")
    check_like(updates, masks, "updates", "the masks")
    check_like(params, masks, "params", "the masks")
    theirs = {name: _masked_extra(value, params, masks) for name, value in extra.items()}
    changes, inner_state = inner.update(
        masked(updates, masks), inner_state, masked(params, masks), **theirs
    )
    return zero_pruned(changes, masks, params), inner_state


def zero_pruned(changes: Any, masks: Masks, params: Params) -> Any:
    """Replace changes by −θ where a mask is False, so that the weight becomes exactly zero."""
    return jax.tree.map(_zero_pruned_leaf, changes, masks, params)


def mask_parts(tree: Any, params: Params, masks: Masks) -> Any:
    """Mask every part of a tree that has the structure and the shapes of the params."""
    outline = _structure_and_shapes(params)

    def fits(part: Any) -> bool:
        return _structure_and_shapes(part) == outline

    return jax.tree.map(lambda p: masked(p, masks) if fits(p) else p, tree, is_leaf=fits)


def _structure_and_shapes(tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [getattr(leaf, "shape", None) for leaf in leaves]


def _masked_extra(value: Any, params: Params, masks: Masks) -> Any:
    """Mask an extra argument: a tree, or a function in its arguments and results."""
    if not callable(value):
        return mask_parts(value, params, masks)
    fn: Callable[..., Any] = value

    @wraps(fn)  # Optax inspects the names of the arguments
    def on_network(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = mask_parts((args, kwargs), params, masks)
        return mask_parts(fn(*args, **kwargs), params, masks)

    return on_network


def _zero_pruned_leaf(change: Any, mask: jax.Array, leaf: Any) -> Any:
    if not is_weight(leaf):
        return change
    wide = jnp.promote_types(change.dtype, leaf.dtype)  # −θ must be exact
    return jnp.where(mask, change.astype(wide), -leaf.astype(wide))
