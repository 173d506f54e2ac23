"""What a run of rounds leaves behind beside the masks: measurements, a row a round."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["kept", "log2_flow", "share", "finite"],
    meta_fields=["layers", "sizes"],
)
@dataclass(frozen=True)
class PruneInfo:
    """What happened in each of n rounds, on L prunable layers.

    Attributes:
      layers: path of each layer.
      sizes: weights of each layer before pruning.
      kept: int32[n, L], weights kept after each round.
      log2_flow: float[n + 1], log2 of R_SF before the first round and after each one, −inf where
        the flow is 0; NaN for saliencies that measure no flow.
      share: float[n], the part of the flow that the weights pruned in a round had carried, ΣS/R;
        below 1, the round cannot have cut the network. NaN for saliencies that measure no flow.
      finite: bool[n], whether every score of the round was finite.
    """

    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    kept: jax.Array
    log2_flow: jax.Array
    share: jax.Array
    finite: jax.Array

    @property
    def density(self) -> jax.Array:
        """float32[n, L], kept over all weights of each layer after each round."""
        sizes = jnp.broadcast_to(jnp.array(self.sizes, jnp.float32), self.kept.shape)
        return self.kept.astype(jnp.float32) / sizes

    @property
    def collapsed_at(self) -> jax.Array:
        """The first round, from 1, after which no flow is left; 0 where it lives."""
        dead = jnp.isneginf(self.log2_flow[..., 1:])
        return jnp.where(jnp.any(dead, axis=-1), jnp.argmax(dead, axis=-1) + 1, 0)
