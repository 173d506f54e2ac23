"""One chain of four square layers and a head: its layers unrolled, and stacked in four ways."""

import jax
import jax.numpy as jnp
import numpy as np

LAYERS, WIDTH, CLASSES = 4, 8, 3
SHAPE = (WIDTH,)


def unrolled(params, x):
    """Apply the layers, each a leaf of its own."""
    for i in range(LAYERS):
        x = jax.nn.relu(x @ params[f"layer{i}"])
    return x @ params["top"]


def scanned(params, x):
    """Scan over the layers, along axis 0 of one leaf."""
    return jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, params["s"])[0] @ params["top"]


def moved(params, x):
    """Scan over the layers, along axis 1 of one leaf, as MaxText does."""
    return scanned({**params, "s": jnp.moveaxis(params["s"], 1, 0)}, x)


def indexed(params, x):
    """Take one layer of a leaf after the other by its number."""
    for i in range(LAYERS):
        x = jax.nn.relu(x @ params["s"][i])
    return x @ params["top"]


def nested(params, x):
    """Scan over pairs of layers, and in each over its two."""

    def pair(h, two):
        return jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), h, two)[0], None

    return jax.lax.scan(pair, x, params["s"])[0] @ params["top"]


STACKS = {
    "axis 0": (scanned, 0),
    "axis 1": (moved, 1),
    "by index": (indexed, 0),
    "two loops": (nested, (0, 1)),
}


def names(axis):
    """The names of the layers of the stack."""
    if axis == (0, 1):
        return ["s[0,0]", "s[0,1]", "s[1,0]", "s[1,1]"]
    return [f"s[{i}]" for i in range(LAYERS)]


def weights(seed=0, dtype=jnp.float32):
    """The unrolled params, Gaussian."""
    rng = np.random.default_rng(seed)
    shapes = {f"layer{i}": (WIDTH, WIDTH) for i in range(LAYERS)} | {"top": (WIDTH, CLASSES)}
    return {name: jnp.asarray(rng.standard_normal(s), dtype) for name, s in shapes.items()}


def stack(tree, axis):
    """Stack the layers of an unrolled tree along an axis, or along axes 0 and 1."""
    layers = [tree[f"layer{i}"] for i in range(LAYERS)]
    if axis == (0, 1):
        return {"s": jnp.stack(layers).reshape(2, 2, *layers[0].shape), "top": tree["top"]}
    return {"s": jnp.stack(layers, axis), "top": tree["top"]}


def unstack(tree, axis):
    """Take the layers of a stacked tree apart, on the host."""
    leaf = np.asarray(tree["s"])
    rows = leaf.reshape(4, *leaf.shape[2:]) if axis == (0, 1) else np.moveaxis(leaf, axis, 0)
    return {f"layer{i}": row for i, row in enumerate(rows)} | {"top": np.asarray(tree["top"])}
