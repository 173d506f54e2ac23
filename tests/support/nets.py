"""Small networks that the tests share, so that they share compiled functions, too."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import synflow_jax as sf

WIDTHS = (5, 7, 6, 4)
SIZE = sum(a * b for a, b in itertools.pairwise(WIDTHS))  # weights of the kernels
CONV_SHAPE = (6, 6, 2)
GROUPS = {"layer1/*": 6.0, "*": 2.0}  # a ratio of its own for one layer of the MLP
# Sums of a few hundred float32 products of either sign, each rounded at 6e-8.
RTOL = 2e-5
score = jax.jit(lambda saliency, params, masks: saliency(params, masks))


def mlp(params, x):
    """A ReLU network with biases; one layer after another."""
    for i in range(len(params)):
        layer = params[f"layer{i}"]
        x = x @ layer["kernel"] + layer["bias"][None, :]
        x = jax.nn.relu(x) if i + 1 < len(params) else x
    return x


def mlp_params(seed=0, widths=WIDTHS, dtype=jnp.float32, bias=0.1):
    """Gaussian weights and biases."""
    rng = np.random.default_rng(seed)
    layers = {}
    for i, (inside, out) in enumerate(itertools.pairwise(widths)):
        kernel = rng.standard_normal((inside, out)) / np.sqrt(inside)
        layers[f"layer{i}"] = {
            "bias": jnp.asarray(bias * rng.standard_normal(out), dtype),
            "kernel": jnp.asarray(kernel, dtype),
        }
    return layers


def conv(x, kernel, stride=1):
    """A 3×3 convolution as nine shifted products: XLA's own is slow inside CPU loops."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    shifted = [
        padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(shifted, -1) @ kernel.reshape(-1, kernel.shape[-1])


def batch_norm(x, norm):
    """BatchNorm with running statistics."""
    shape = (1,) * (x.ndim - 1) + (-1,)
    scale = norm["scale"] / jnp.sqrt(norm["var"] + 1e-5)
    shift = norm["bias"] - norm["mean"] * scale
    return x * scale.reshape(shape) + shift.reshape(shape)


def residual(params, x):
    """Stem, max-pool, a residual block with BatchNorm, mean over positions, linear head."""
    x = jax.nn.relu(conv(x, params["stem"]["kernel"]))
    window = (1, 2, 2, 1)
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
    inner = jax.nn.relu(batch_norm(conv(x, params["up"]["kernel"]), params["norm"]))
    x = jax.nn.relu(x + conv(inner, params["down"]["kernel"]))
    return jnp.mean(x, (1, 2)) @ params["head"]["kernel"]


def residual_params(seed=0, dtype=jnp.float32, width=4):
    """Gaussian kernels; a BatchNorm away from its start, with mean 0."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])), dtype)

    return {
        "stem": {"kernel": normal(3, 3, CONV_SHAPE[-1], width)},
        "up": {"kernel": normal(3, 3, width, width)},
        "norm": {
            "scale": jnp.asarray(np.abs(rng.standard_normal(width)) + 0.5, dtype),
            "bias": jnp.asarray(0.1 * rng.standard_normal(width), dtype),
            "mean": jnp.zeros(width, dtype),
            "var": jnp.asarray(rng.uniform(0.5, 2.0, width), dtype),
        },
        "down": {"kernel": normal(3, 3, width, width)},
        "head": {"kernel": normal(width, 3)},
    }


def pooled(params, x):
    """Two convolutions, a max-pool between them, and a head that sees every position."""
    x = jax.nn.relu(conv(x, params["one"]))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(conv(x, params["two"]))
    return x.reshape(1, -1) @ params["head"]


def pooled_params(seed=0):
    """Gaussian kernels."""
    rng = np.random.default_rng(seed)
    shapes = {"one": (3, 3, CONV_SHAPE[-1], 5), "two": (3, 3, 5, 4), "head": (36, 3)}
    return {n: jnp.asarray(rng.standard_normal(s), jnp.float32) for n, s in shapes.items()}


seeds = st.integers(0, 10_000)
MLP = sf.synflow_saliency(mlp, WIDTHS[:1])
RES = sf.synflow_saliency(residual, CONV_SHAPE)


def all_true(params):
    """Masks that keep every weight."""
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)


def squared_loss(params, batch):
    """A smooth scalar loss of the MLP."""
    x, y = batch
    return jnp.mean(jnp.square(jnp.tanh(mlp(params, x)) - y))


def batches(count=3, size=4, dtype=jnp.float32, seed=0):
    """Random inputs and targets for the MLP."""
    rng = np.random.default_rng(seed)
    pairs = [(rng.standard_normal((size, WIDTHS[0])), rng.uniform(-1, 1, (size, WIDTHS[-1])))]
    pairs += [
        (rng.standard_normal((size, WIDTHS[0])), rng.uniform(-1, 1, (size, WIDTHS[-1])))
        for _ in range(count - 1)
    ]
    return [(jnp.asarray(x, dtype), jnp.asarray(y, dtype)) for x, y in pairs]


def kept(masks):
    """Count what is kept of the kernels."""
    return sum(int(layer["kernel"].sum()) for layer in masks.values() if "kernel" in layer)


def random_masks(params, seed, density=0.7):
    rng = np.random.default_rng(seed)

    def draw(leaf):
        share = density if leaf.ndim >= 2 else 1.0
        return jnp.asarray(rng.uniform(size=leaf.shape) < share)

    return jax.tree.map(draw, params)


def equal(one, two):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, two))


def holds_zeros(params, masks):
    """Whether all pruned weights are 0, and there are some."""
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True))
    zero = all(not np.where(mask, 0.0, leaf).any() for leaf, mask in pairs)
    return zero and any(not np.asarray(mask).all() for _, mask in pairs)


def batches_like(params):
    """Make the shared batches in the dtype of the MLP's params."""
    return batches(dtype=params["layer0"]["kernel"].dtype)


def run_flow(fn, x, params=None, **settings):
    """Value of a function of x in flow mode, and the gradient of its sum."""
    flow = sf.flow_mode(lambda p, x: fn(x) if params is None else fn(p, x), **settings)

    @jax.jit
    def both(params, x):
        value, back = jax.vjp(lambda x: flow(params, x), x)
        return value, back(jnp.ones_like(value))[0]

    return both(params or {}, x)


def block(params, x):
    """A ResNet's block whose shortcut changes the shape."""
    h = x @ params["stem"]
    inner = jax.nn.relu(h @ params["up"]) @ params["down"]
    return jax.nn.relu(h @ params["shortcut"] + inner) @ params["head"]


def block_params():
    """Make 12 + 24 + 24 + 36 + 12 weights; those of the shortcut score least."""
    shapes = {"stem": (3, 4), "shortcut": (4, 6), "up": (4, 6), "down": (6, 6), "head": (6, 2)}
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    return params | {"shortcut": jnp.full((4, 6), 0.01)}
