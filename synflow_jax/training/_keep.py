"""Masks that hold in any Optax training loop."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from synflow_jax.trees import Masks, Params, check_bool, check_masks, is_floating, masked


class KeepMasksState(NamedTuple):
    """The masks, so that they travel with checkpoints and shardings, and the inner state."""

    masks: Masks
    inner_state: Any


def keep_masks(tx: Any, masks: Masks) -> optax.GradientTransformationExtraArgs:
    """Keep pruned weights at exactly zero, from the first step, whatever `tx` does.

    The inner transform sees gradients and params that are zero where a mask is False, so norms and
    moments are those of the pruned network; its updates are then replaced there by −θ, which sets
    dense params to zero in the first step and stops decay, momentum and noise afterwards. Extra
    arguments are masked, too: trees of the params' structure and shapes, and those that a function
    (a line search's loss, SAM's gradient) is called with or returns; so where params are one bare
    array, pass no batch of just its shape. Put it outermost:
    keep_masks(optax.chain(...), masks), keep_masks(optax.MultiSteps(...), masks). The first
    gradient is yours: start from apply_masks(params, masks) where it should be that of the pruned
    network. Masks and params must have one treedef, so put it outside of, not inside, optax.masked
    and optax.multi_transform; of optax.MultiSteps, `has_updated` is
    `tx.has_updated(state.inner_state)`.

    Args:
      tx: any Optax transform.
      masks: bool tree with the treedef of the params, True = keep.

    Returns:
      An Optax transform; its update needs params. Its state holds the masks.

    Raises:
      ValueError: masks does not fit the params (at init), or update was called without params.
      TypeError: tx is no Optax transform, or a mask is not bool.

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
        check_masks(params, masks)
        # A copy: a step that donates its state must not take the caller's masks with it.
        own = jax.tree.map(jnp.copy, masks)
        return KeepMasksState(own, inner.init(masked(params, own)))

    def update(
        updates: Any, state: KeepMasksState, params: Params | None = None, **extra: Any
    ) -> tuple[Any, KeepMasksState]:
        held, inner_state = gated_update(
            inner, updates, state.inner_state, params, state.masks, extra
        )
        return held, KeepMasksState(state.masks, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def as_transform(tx: Any) -> Any:
    """Refuse what is no Optax transform, and let the rest take extra arguments."""
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        raise TypeError(
            f"tx must be an Optax transform, such as optax.adam(1e-3), got {type(tx).__name__}"
        )
    if isinstance(tx, optax.MultiSteps):
        tx = tx.gradient_transformation()
    return optax.with_extra_args_support(tx)


def gated_update(
    inner: Any, updates: Any, inner_state: Any, params: Any, masks: Masks, extra: dict[str, Any]
) -> tuple[Any, Any]:
    """Update the network that the masks leave, and set the rest to zero."""
    if params is None:
        raise ValueError("update needs params: call tx.update(gradients, state, params)")
    theirs = {name: _of_network(value, params, masks) for name, value in extra.items()}
    changes, inner_state = inner.update(
        masked(updates, masks), inner_state, masked(params, masks), **theirs
    )
    return hold(changes, masks, params), inner_state


def hold(changes: Any, masks: Masks, params: Params) -> Any:
    """Replace changes by −θ where a mask is False."""
    return jax.tree.map(_hold, changes, masks, params)


def gated(tree: Any, params: Params, masks: Masks) -> Any:
    """Mask every part of a tree that has the structure and the shapes of the params."""
    outline = _outline(params)

    def fits(part: Any) -> bool:
        return _outline(part) == outline

    return jax.tree.map(lambda p: masked(p, masks) if fits(p) else p, tree, is_leaf=fits)


def _outline(tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [getattr(leaf, "shape", None) for leaf in leaves]


def _of_network(value: Any, params: Params, masks: Masks) -> Any:
    """Let an extra argument be of the pruned network: a gradient, or a function of the params."""
    if not callable(value):
        return gated(value, params, masks)
    fn: Callable[..., Any] = value

    @wraps(fn)  # Optax reads the names of a function's arguments
    def on_network(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = gated((args, kwargs), params, masks)
        return gated(fn(*args, **kwargs), params, masks)

    return on_network


def _hold(change: Any, mask: jax.Array, leaf: Any) -> Any:
    if not is_floating(leaf):
        return change
    wide = max(change.dtype, leaf.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
    return jnp.where(mask, change.astype(wide), -leaf.astype(wide))
