"""Networks of hundreds of layers, as a loop and as a scan."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Each layer rounds each number once or twice at 6e-8, either way: a walk of 1000 steps.
RTOL = 3e-5


def kernels(*shape, seed=0, dtype=np.float32):
    """Kaiming normal kernels, stacked."""
    values = np.random.default_rng(seed).standard_normal(shape) * np.sqrt(2 / shape[-2])
    return jnp.asarray(values, dtype)


def looped(params, x):
    """A ReLU network as a Python loop."""
    for i in range(len(params)):
        x = jax.nn.relu(x @ params[f"layer{i}"]["kernel"])
    return x


def scanned(params, x):
    """The same network over stacked kernels [L, n, n]."""
    return lax.scan(lambda h, kernel: (jax.nn.relu(h @ kernel), None), x, params["kernel"])[0]
