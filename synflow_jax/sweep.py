"""The final sweep: kept weights without flow give their places to pruned ones on live paths."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from synflow_jax._types import Params
from synflow_jax.collapse import live_weights
from synflow_jax.cut import total
from synflow_jax.flow_saliency import FlowSaliency, prepared
from synflow_jax.measure import count_dtype, count_kept, in_all
from synflow_jax.packing import Leaves
from synflow_jax.select import select
from synflow_jax.sources import without_sources
from synflow_jax.tree import (
    Function,
    Layers,
    all_true,
    as_function,
    floating_dtype,
    place,
    widen,
)

MOST = 100


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=[])
@dataclass(frozen=True)
class Gated:
    """The masked network with a gate of 1 a weight, whose score is what the weight would carry.

    A weight of 0 has no slope under |·|, but its gate has: the network is run at θ ⊙ (g − 1 + m),
    which is m ⊙ θ, and g ⊙ ∂R/∂g = |θ| ⊙ ∂R/∂|m ⊙ θ|, pruned weights included.
    """

    apply_fn: Function

    def prepare(self, gated: Any) -> Any:
        """Open what starts closed, where the network is in flow mode."""
        params, masks, gates = gated
        return prepared(params, self.apply_fn), masks, gates

    def __call__(self, gated: Any, x: Any) -> Any:
        """Run the network at m ⊙ θ."""
        params, masks, gates = gated
        leaves, treedef = jax.tree.flatten(params)
        shut = [
            leaf if gate is None else leaf * (gate - (~mask).astype(gate.dtype))
            for leaf, mask, gate in zip(leaves, masks, gates, strict=True)
        ]
        return self.apply_fn(treedef.unflatten(shut), x)


@partial(jax.jit, static_argnames=("layers",))
def candidate_scores(
    params: Params, saliency: FlowSaliency, chosen: Leaves, *, layers: Layers
) -> Leaves:
    """Score every prunable weight by the flow through it were it added, |θ| ⊙ ∂R/∂|m ⊙ θ|."""
    wide = widen(params)
    masks = iter(chosen)
    pairs = list(zip(jax.tree.leaves(wide), layers.chosen, strict=True))
    gates = [jnp.ones_like(leaf) if hit else None for leaf, hit in pairs]
    given = [next(masks) if hit else None for hit in layers.chosen]
    gated = (wide, given, gates)
    sizes = saliency.sizes and (*saliency.sizes, *[0.0] * (2 * len(chosen)))
    fn = as_function(Gated(saliency.apply_fn), "gated")
    network = dataclasses.replace(saliency, apply_fn=fn, sizes=sizes)
    scores = network(gated, jax.tree.map(all_true, gated))
    found = jax.tree.leaves(scores[2])
    return [score.astype(floating_dtype(found)) for score in found]


@jax.jit
def _refill(
    scores: Leaves, kept: Leaves, live: Leaves, banned: Leaves, count: jax.Array
) -> tuple[Leaves, jax.Array]:
    """Keep what is live, and the best candidates in the places that are left."""
    triples = zip(scores, live, banned, strict=True)
    open_ = [(score > 0) & ~alive & ~ban for score, alive, ban in triples]
    ranked = [
        jnp.where(alive, jnp.inf, jnp.where(hit, score, -jnp.inf)).astype(score.dtype)
        for score, alive, hit in zip(scores, live, open_, strict=True)
    ]
    found, lives = total(list(zip(open_, live, strict=True)))
    with jax.enable_x64(True):
        filled = jnp.minimum(count.astype(jnp.int64), lives + found)
    return select(ranked, kept, filled), found


def sweep_dead(
    params: Params, saliency: FlowSaliency, layers: Layers, kept: Leaves
) -> tuple[Leaves, int]:
    """Replace dead weights, and count those for which there was no replacement.

    A weight is live where some path from input to output runs through it, as `effective_density`
    counts; biases start no path. What was added and is not live all the same (its input never wins
    a max-pool) is not tried again.

    Args:
      params: any pytree of arrays.
      saliency: measures the flow.
      layers: the prunable leaves.
      kept: their masks; of known value.

    Returns:
      Masks that keep as many weights, and how many of those are dead.
    """
    plain = without_sources(params, layers.chosen, saliency.inputs)
    count = in_all(count_kept(kept))
    with jax.enable_x64(True):
        wanted = jnp.asarray(count, count_dtype(count))
    banned = [jnp.zeros_like(mask) for mask in kept]
    now = kept
    for _ in range(MOST):
        masks = place(params, layers.chosen, now, all_true)
        live = live_weights(params, saliency, layers, masks)
        lives = in_all(count_kept(live))
        if lives in (0, count):  # 0: the network is dead, and no weight alone revives it
            break
        dead = zip(banned, now, live, strict=True)
        banned = [ban | (mask & ~alive) for ban, mask, alive in dead]
        scores = candidate_scores(plain, saliency, live, layers=layers)
        now, found = _refill(scores, kept, live, banned, wanted)
        if not found:
            break
    if lives == count:
        return now, 0
    return _topped_up(now, kept, wanted), count - lives


@jax.jit
def _topped_up(now: Leaves, kept: Leaves, count: jax.Array) -> Leaves:
    """Give places that nothing live could take back to weights that were kept, in flat order."""
    return select([mask.astype(jnp.float32) for mask in now], kept, count)
