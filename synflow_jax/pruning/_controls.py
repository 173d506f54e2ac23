"""Controls for a fair comparison: other weights of the same layers, and other values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax.plan import find_layers
from synflow_jax.saliency import RandomSaliency
from synflow_jax.selection import count_true, select
from synflow_jax.trees import (
    Masks,
    Params,
    Prunable,
    check_bool,
    check_key,
    check_structure,
    converted,
    lay_out_as,
    permute_entries,
    pick,
    place,
)


@converted("masks")
def shuffle(key: Any, masks: Masks) -> Masks:
    """Redraw which weights of each layer are kept, as many as before.

    Args:
      key: a random key, such as jax.random.key(0).
      masks: bool tree, True = keep.

    Returns:
      masks of the same tree and the same count in every leaf.

    Raises:
      TypeError: key is no random key, or a leaf is not bool.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> mask = {"w": jnp.arange(100).reshape(10, 10) < 30}
      >>> shuffled = shuffle(jax.random.key(0), mask)
      >>> int(shuffled["w"].sum()), bool((shuffled["w"] == mask["w"]).all())
      (30, False)

    Source: Frankle et al. 2021 (arXiv 2009.08576), section 5.
    """
    check_key(key)
    check_bool(masks)
    leaves, treedef = jax.tree.flatten(masks)
    return treedef.unflatten(_shuffle(key, leaves))


@jax.jit
def _shuffle(key: Any, leaves: list[jax.Array]) -> list[jax.Array]:
    none = [jnp.zeros_like(leaf) for leaf in leaves]
    scores = RandomSaliency(key)(leaves, leaves)
    triples = zip(scores, none, leaves, strict=True)
    chosen = [select([s], [m], count_true([(leaf,)])[0])[0] for s, m, leaf in triples]
    return list(map(lay_out_as, chosen, leaves))


@converted("params")
def reinitialise(
    key: Any,
    params: Params,
    init: Callable[[Any], Params] | None = None,
    *,
    prunable: Prunable | None = None,
) -> Params:
    """Draw the prunable weights anew, so that masks no longer match the values they were found on.

    Args:
      key: a random key, such as jax.random.key(0).
      params: the dense params, any pytree of arrays; not modified.
      init: key -> params draws all from the network's own initialisation; without it, each leaf
        has its values permuted, which for independent draws is the same in distribution.
      prunable: (path, leaf) -> bool chooses what is drawn anew; all else stays. None chooses by
        name (`plan.is_prunable`), which may differ from what a method with a network pruned: pass
        `plan.kernels(params, apply_fn, shape)` to draw the same leaves.

    Returns:
      params with new values in the prunable leaves.

    Raises:
      TypeError: key is no random key.
      ValueError: init returns another tree than params.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> old = {"w": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3)}
      >>> new = reinitialise(jax.random.key(0), old)
      >>> sorted(new["w"].ravel().tolist()), bool((new["w"] == old["w"]).all())
      ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], False)

    Source: Frankle et al. 2021 (arXiv 2009.08576), section 5.
    """
    check_key(key)
    layers = find_layers(params, prunable)
    if init is not None:
        new = init(key)
        check_structure(params, new, "init(key)")
        drawn = pick(new, layers.prunable)
        for path, shape, leaf in zip(layers.paths, layers.shapes, drawn, strict=True):
            if tuple(leaf.shape) != shape:
                raise ValueError(
                    f"init(key) must have the shapes of params: {path!r} is {shape} in params "
                    f"and {tuple(leaf.shape)} in init(key)"
                )
        return place(params, layers.prunable, drawn, lambda leaf: leaf)
    leaves = pick(params, layers.prunable)
    drawn = [permute_entries(jax.random.fold_in(key, i), leaf) for i, leaf in enumerate(leaves)]
    return place(params, layers.prunable, drawn, lambda leaf: leaf)
