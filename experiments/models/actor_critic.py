"""The usual actor and critic of PPO: two separate tanh networks, of the policy and of the value.

Orthogonal kernels with a gain of √2 in hidden layers, 0.01 in the policy's head and 1 in the
value's, and biases of 0 (Huang et al. 2022, "The 37 implementation details of PPO").
"""

import math

import flax.linen as nn
from jax import Array

HIDDEN, POLICY, VALUE = math.sqrt(2), 0.01, 1.0  # gains


class ActorCritic(nn.Module):
    """Two hidden layers of `width` units for the logits of `actions`, and two for the value."""

    actions: int
    width: int = 64

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        """Map observations (batch, features) to logits (batch, actions) and values (batch,)."""
        logits = self._tower(x, "actor", self.actions, POLICY)
        return {"logits": logits, "value": self._tower(x, "critic", 1, VALUE)[..., 0]}

    def _tower(self, x: Array, name: str, outputs: int, gain: float) -> Array:
        for i in range(2):
            x = nn.tanh(self._layer(self.width, HIDDEN, f"{name}{i}")(x))
        return self._layer(outputs, gain, f"{name}_head")(x)

    def _layer(self, units: int, gain: float, name: str) -> nn.Dense:
        return nn.Dense(units, kernel_init=nn.initializers.orthogonal(gain), name=name)
