"""PruneInfo: what was measured in each round of a run."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def almost_one(dtype: Any) -> float:
    """Return the least share of the flow that rounding cannot tell from all of it, 1 − √eps."""
    # Shares of 1 are off by some 1e-6 in float32, more in deep networks.
    return 1 - float(jnp.finfo(dtype).eps) ** 0.5


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["kept", "log2_flow", "share", "finite", "rounds"],
    meta_fields=["layers", "sizes", "units"],
)
@dataclass(frozen=True)
class PruneInfo:
    """Measurements of each of n rounds, on L prunable layers.

    Attributes:
      layers: path of each layer; path[i] of layer i of a leaf that holds several.
      sizes: weights of each layer before pruning; units, where a pattern joins weights.
      kept: int32[n, L], of these, kept after each round; int64 where a layer has 2^31 or more.
      log2_flow: float[n + 1], log2 of R_SF before the first round and after each one, −inf where
        the flow is 0; NaN for saliencies that measure no flow.
      share: float[n], the share of the flow that the weights pruned in a round carried, ΣS/R;
        below 1, the round cannot have cut the network. NaN for saliencies that measure no flow.
      finite: bool[n], whether every score that competed in the round was finite.
      rounds: int32, how many rounds ran. A certified schedule has n = rounds in eager use; under a
        trace n is its `most`, and the rows of rounds that did not run read as rounds that prune
        nothing: the last kept and log2_flow again, a share of 0.
      units: what is counted, "weights", or "units" where a pattern joins weights.
    """

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    kept: jax.Array
    log2_flow: jax.Array
    share: jax.Array
    finite: jax.Array
    rounds: jax.Array
    units: str = "weights"

    @property
    def density(self) -> jax.Array:
        """float32[n, L], kept over all weights of each layer after each round."""
        sizes = jnp.broadcast_to(jnp.array(self.sizes, jnp.float32), self.kept.shape)
        return self.kept.astype(jnp.float32) / sizes

    @property
    def collapsed_at(self) -> jax.Array:
        """The first round, from 1, after which no flow is left; 0 where some is left at the end."""
        dead = self.log2_flow[..., 1:] == -math.inf
        first = dead.argmax(axis=-1) + 1
        return first * dead.any(axis=-1).astype(first.dtype)

    @property
    def certified(self) -> jax.Array:
        """Whether every round pruned less flow than there was, so that the flow cannot have died.

        False for saliencies that measure no flow. Where biases start flow of their own, it is the
        flow with them; `schedule=certified()` leaves them out.
        """
        return (self.share < almost_one(self.share.dtype)).all(axis=-1)
