"""One chain of four square layers and a head: its layers unrolled, and stacked in three ways."""

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


STACKS = {"axis 0": (scanned, 0), "axis 1": (moved, 1), "by index": (indexed, 0)}


def weights(seed=0, dtype=jnp.float32):
    """The unrolled params, Gaussian."""
    rng = np.random.default_rng(seed)
    shapes = {f"layer{i}": (WIDTH, WIDTH) for i in range(LAYERS)} | {"top": (WIDTH, CLASSES)}
    return {name: jnp.asarray(rng.standard_normal(s), dtype) for name, s in shapes.items()}


def stack(tree, axis):
    """Stack the layers of an unrolled tree along an axis."""
    layers = [tree[f"layer{i}"] for i in range(LAYERS)]
    return {"s": jnp.stack(layers, axis), "top": tree["top"]}


def unstack(tree, axis):
    """Take the layers of a stacked tree apart, on the host."""
    rows = np.moveaxis(np.asarray(tree["s"]), axis, 0)
    return {f"layer{i}": row for i, row in enumerate(rows)} | {"top": np.asarray(tree["top"])}
