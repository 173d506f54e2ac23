"""The networks that are timed, in Flax; benchmarks/peers/torch_networks.py has them in PyTorch.

They are timed with XLA's own convolutions, as users' networks have them; the floor also tries
matrix products.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.shared.networks import Network, draw
from experiments.models import MODELS
from experiments.models.fc import FC
from synflow_jax import flow_mode

LAYERS = 10  # of an MLP that is named by its number of weights


class Block(nn.Module):
    """Attention and an MLP, each behind a LayerNorm and beside a skip; Dosovitskiy et al. 2021."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map tokens (batch, length, width) to tokens."""
        width, y = x.shape[-1], nn.LayerNorm()(x)
        split = (*x.shape[:2], self.heads, width // self.heads)
        q, k, v = (nn.Dense(width, name=name)(y).reshape(split) for name in "qkv")
        y = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + nn.Dense(width, name="out")(y)
        y = nn.gelu(nn.Dense(4 * width, name="up")(nn.LayerNorm()(x)), approximate=False)
        return x + nn.Dense(width, name="down")(y)


class ViT(nn.Module):
    """ViT-B/16: patches as a linear layer, a class token, learned positions, 12 blocks of 768."""

    width: int = 768
    heads: int = 12
    depth: int = 12
    patch: int = 16

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:  # noqa: ARG002
        """Map images (batch, height, width, channels) to logits (batch, 1000)."""
        zeros, (rows, columns) = nn.initializers.zeros, (s // self.patch for s in x.shape[1:3])
        x = x.reshape(x.shape[0], rows, self.patch, columns, self.patch, x.shape[-1])
        x = x.swapaxes(2, 3).reshape(x.shape[0], rows * columns, -1)
        x = nn.Dense(self.width, name="patches")(x)
        cls = self.param("cls", zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, self.width)), x], 1)
        x = x + self.param("pos_embedding", zeros, (1, *x.shape[1:]))
        for i in range(self.depth):
            x = Block(self.heads, name=f"Block_{i}")(x)
        return nn.Dense(1000, name="head")(nn.LayerNorm()(x)[:, 0])


@dataclass(frozen=True)
class Timed(Network):
    """A network, the number of rounds of a turn, and whether it is pruned in flow mode."""

    turn: int = 20
    in_flow_mode: bool = False


def mlp(weights: float, dtype: Any = jnp.float32) -> tuple[Any, Any, tuple[int, ...]]:
    """Draw a plain MLP of ten square layers; return params, apply_fn and the shape of an input."""
    network = _square(weights)
    return (*draw(network, dtype=dtype), network.shape)


def _square(weights: float, turn: int = 20) -> Timed:
    width = math.isqrt(round(weights / LAYERS))
    return Timed(lambda: FC(width, width, LAYERS - 1), (1, 1, width), turn=turn)


IMAGE = (224, 224, 3)
NETWORKS = {
    "fc": Timed(lambda: MODELS["fc"](10), (28, 28, 1), turn=100),
    "vgg16": Timed(lambda: MODELS["vgg16"](10)),
    "resnet18": Timed(lambda: MODELS["resnet18"](10)),
    "resnet20": Timed(lambda: MODELS["resnet20"](10)),
    "resnet110": Timed(lambda: MODELS["resnet110"](10)),
    "resnet50": Timed(lambda: MODELS["resnet50-imagenet"](1000), IMAGE),
    "vit_b16": Timed(ViT, IMAGE, in_flow_mode=True),
    "mlp_1e9": _square(1e9, turn=10),
}
ON_CPU = ("fc", "vgg16", "resnet18", "resnet20", "resnet110")


@cache
def loaded(name: str, dtype: Any = jnp.float32) -> tuple[Any, Any, tuple[int, ...]]:
    """Draw a network, once in a process.

    Args:
      name: a key of NETWORKS.
      dtype: of all leaves.

    Returns:
      params, the plain apply_fn, and the shape of one example.
    """
    return (*draw(NETWORKS[name], dtype=dtype), NETWORKS[name].shape)


def as_pruned(name: str, apply_fn: Any) -> Any:
    """Return the network that SynFlow is given: as it is, or in flow mode."""
    return flow_mode(apply_fn) if NETWORKS[name].in_flow_mode else apply_fn
