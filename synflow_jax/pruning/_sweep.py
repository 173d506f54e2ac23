"""The final sweep: kept weights on no path are replaced by pruned ones that lie on one."""

import jax
import jax.numpy as jnp

from synflow_jax.measure import live_weights
from synflow_jax.plan import Layers
from synflow_jax.saliency import Saliency
from synflow_jax.selection import Leaves, count_dtype, count_kept, count_true, select, sum_counts
from synflow_jax.trees import Params, all_true, place

MOST = 100  # passes; each bans what it tried in vain, so few are needed


@jax.jit
def _refill(
    scores: Leaves, kept: Leaves, live: Leaves, banned: Leaves, count: jax.Array
) -> tuple[Leaves, jax.Array]:
    """Keep what is live, and fill the count up with the best candidates."""
    triples = zip(scores, live, banned, strict=True)
    open_ = [(score > 0) & ~alive & ~ban for score, alive, ban in triples]
    ranked = [
        jnp.where(alive, jnp.inf, jnp.where(hit, score, -jnp.inf)).astype(score.dtype)
        for score, alive, hit in zip(scores, live, open_, strict=True)
    ]
    found, lives = count_true(list(zip(open_, live, strict=True)))
    with jax.enable_x64(True):
        filled = jnp.minimum(count.astype(jnp.int64), lives + found)
    return select(ranked, kept, filled), found


def sweep_dead(
    params: Params, saliency: Saliency, layers: Layers, kept: Leaves
) -> tuple[Leaves, int]:
    """Replace dead weights, and count those for which there was no replacement.

    A weight is live where some path from input to output runs through it, as `effective_density`
    counts; biases start no path. A weight that was added and is not live even so (its input never
    wins a max-pool) is not tried again.

    Args:
      params: any pytree of arrays.
      saliency: measures the flow.
      layers: the prunable leaves.
      kept: their masks, not traced.

    Returns:
      Masks that keep as many weights, and how many of those are dead.
    """
    plain = saliency.from_input_alone(params, layers.prunable)
    count = sum_counts(count_kept(kept))
    with jax.enable_x64(True):
        wanted = jnp.asarray(count, count_dtype(count))
    banned = [jnp.zeros_like(mask) for mask in kept]
    now = kept
    for _ in range(MOST):
        masks = place(params, layers.prunable, now, all_true)
        live = live_weights(params, saliency, layers, masks)
        lives = sum_counts(count_kept(live))
        if lives in (0, count):  # 0: the network is dead, and no weight alone revives it
            break
        dead = zip(banned, now, live, strict=True)
        banned = [ban | (mask & ~alive) for ban, mask, alive in dead]
        scores = saliency.candidate_scores(plain, live, layers.prunable)
        now, found = _refill(scores, kept, live, banned, wanted)
        if not found:
            break
    if lives == count:
        return now, 0
    return _topped_up(now, kept, wanted), count - lives


@jax.jit
def _topped_up(now: Leaves, kept: Leaves, count: jax.Array) -> Leaves:
    """Fill the count up with weights that were kept before, in flat order."""
    return select([mask.astype(jnp.float32) for mask in now], kept, count)
