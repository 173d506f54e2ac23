"""Training kept weights as if they were all there is, a vector a leaf, or a whole network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS = 6


def kept_only(params, masks):
    """The kept weights, a vector a leaf."""
    return jax.tree.map(lambda p, m: p[np.asarray(m)], params, masks)


def spread(vectors, masks):
    """The network of these kept weights: all else is zero."""

    def one(vector, mask):
        mask = np.asarray(mask)
        return jnp.zeros(mask.shape, vector.dtype).at[np.nonzero(mask)].set(vector)

    return jax.tree.map(one, vectors, masks)


def trained(tx, params, loss, steps=STEPS, extras=lambda loss, value, slope: {}):
    """Train, and return the params after each step."""

    def step(carry, _):
        params, state = carry
        value, slope = jax.value_and_grad(loss)(params)
        updates, state = tx.update(slope, state, params, **extras(loss, value, slope))
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = (params, tx.init(params))
    (_, state), path = jax.jit(lambda s: jax.lax.scan(step, s, None, steps))(start)
    return path, state


def second_gradient(loss, value, slope):
    return {"grad_fn": lambda params, i: jax.grad(loss)(params)}
