"""What breaks homogeneity is found where the flow is no line in the size of a layer, not elsewhere.

For a layer used once, R at α times its kernel is a line through α = 0, 1, 2 unless an operation
behind it is not homogeneous. This is measured in float64, without the library's rules.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synflow_jax.structure import read_network
from synflow_jax.trees import read_shape

RNG = np.random.default_rng(0)


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def between(fn):
    """A network with a function between its two layers."""
    return lambda p, x: fn(x @ p["a"] + p["bias"]) @ p["b"]


def unbiased(fn):
    """The same without a bias: where the order of units decides, biases change it."""
    return lambda p, x: fn(x @ p["a"]) @ p["b"]


def after(fn):
    """A network with a function after its layers."""
    return lambda p, x: fn(jax.nn.relu(x @ p["a"] + p["bias"]) @ p["b"])


def skip(p, x):
    h = x @ p["a"] + p["bias"]
    return jax.nn.relu(h + jax.nn.relu(h @ p["b"]))


def pooled(p, x):
    h = jax.nn.relu(x @ p["a"])
    return h.max(-1, keepdims=True) + h @ p["b"]


def gated(p, x):
    h = jax.nn.relu(x @ p["a"])
    return h * (h @ p["b"])


def two_towers(p, x):
    return (x @ p["a"]) * (x @ p["b"])


def standardised(p, x):
    w = p["a"]
    w = (w - w.mean(0, keepdims=True)) / jnp.sqrt(w.var(0, keepdims=True) + 1e-6)
    return jax.nn.relu(x @ w) @ p["b"]


def normalised(p, x):
    return x @ (p["a"] / jnp.sqrt((p["a"] ** 2).sum())) @ p["b"]


def normed_by_its_statistics(p, x):
    h = (x @ p["a"]) / jnp.sqrt(jnp.abs(p["bias"]) + 1e-5)
    return jax.nn.relu(h) @ p["b"]


NETWORKS = {
    "linear": between(lambda h: h),
    "relu": between(jax.nn.relu),
    "leaky relu": between(jax.nn.leaky_relu),
    "elu": between(jax.nn.elu),
    "selu": between(jax.nn.selu),
    "celu": between(jax.nn.celu),
    "abs": between(jnp.abs),
    "nan to num": between(jnp.nan_to_num),
    "where": between(lambda h: jnp.where(h > 0, h, 0.0)),
    "skip": skip,
    "max over units": pooled,
    "two towers": two_towers,
    "statistics": normed_by_its_statistics,
    "relu6": between(jax.nn.relu6),
    "tanh": between(jnp.tanh),
    "sigmoid": between(jax.nn.sigmoid),
    "gelu": between(jax.nn.gelu),
    "silu": between(jax.nn.silu),
    "softplus": between(jax.nn.softplus),
    "square": between(jnp.square),
    "hard swish": between(jax.nn.hard_swish),
    "layer norm": between(layer_norm),
    "rms norm": between(lambda h: h / jnp.sqrt((h**2).mean(-1, keepdims=True))),
    "hard tanh": between(jax.nn.hard_tanh),
    "threshold": between(lambda h: jnp.where(h > 1, h, 0.0)),
    "threshold as a factor": between(lambda h: h * (h > 1.0).astype(h.dtype)),
    "learned threshold": lambda p, x: unbiased(lambda h: jnp.where(h > p["bias"], h, 0))(p, x),
    "largest unit": unbiased(lambda h: jnp.where(h >= h.max(-1, keepdims=True), h, 0.0)),
    "one-hot of the largest": unbiased(lambda h: h * jax.nn.one_hot(jnp.argmax(h, -1), 3)),
    "sort": unbiased(lambda h: jnp.sort(h, -1)),
    "cumsum": between(lambda h: jnp.cumsum(h, -1)),
    "relu as a clamp": between(lambda h: jax.lax.clamp(0.0, h, jnp.inf)),
    "range of the dtype": between(lambda h: jnp.clip(h, *_range(h.dtype))),
    "branch": between(lambda h: jax.lax.cond(h.sum() > 2, lambda h: 2 * h, lambda h: h, h)),
    "whole numbers": between(lambda h: (10 * h).astype(jnp.int32).astype(h.dtype)),
    "bins": between(lambda h: jnp.digitize(h, jnp.arange(1.0, 9.0)).astype(h.dtype) + 0 * h),
    "solve": between(lambda h: jnp.linalg.solve(jnp.eye(3) + jnp.diag(h[0]), h[0])[None]),
    "igamma": between(lambda h: jax.lax.igamma(jnp.ones_like(h), jnp.abs(h))),
    "softmax": after(jax.nn.softmax),
    "log softmax": after(jax.nn.log_softmax),
    "sigmoid head": after(jax.nn.sigmoid),
    "gate": gated,
    "weight standardisation": standardised,
    "spectral norm": normalised,
}


def _range(dtype):
    return jnp.finfo(dtype).min, jnp.finfo(dtype).max


def grows_in_a_line(network, params):
    """Whether R is a growing line in the size of each kernel, at |θ| on ones."""
    with jax.enable_x64(True):
        wide = {name: jnp.abs(jnp.asarray(np.asarray(w, np.float64))) for name, w in params.items()}

        def flow(name, size):
            return float(network({**wide, name: size * wide[name]}, jnp.ones((1, 4))).sum())

        gaps = []
        for name in ("a", "b"):
            small, middle, large = (flow(name, size) for size in (1.0, 2.0, 3.0))
            gaps.append(abs(small + large - 2 * middle) / (abs(middle) + 1e-300))
            ends = flow(name, 1e-12), small, middle
            gaps.append(abs(ends[0] + ends[2] - 2 * ends[1]) / (abs(ends[1]) + 1e-300))
            gaps.append(float(middle - small < 1e-9 * abs(middle)))
    return max(gaps) < 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_breaks_are_found_where_the_flow_is_no_line(name):
    network = NETWORKS[name]
    shapes = {"a": (4, 3), "b": (4, 3) if name == "two towers" else (3, 3), "bias": (1, 3)}
    params = {
        key: jnp.asarray(0.3 * RNG.standard_normal(s), jnp.float32) for key, s in shapes.items()
    }
    found = read_network(network, params, read_shape((4,))).breaks_of({"a", "b"})
    # A ReLU6 or a spectral norm is a line until it bends: weights ten times as large bend it.
    large = jax.tree.map(lambda w: 10 * w, params)
    assert bool(found) == (not all(grows_in_a_line(network, p) for p in (params, large)))
    assert all("test_breaks.py" in one.where for one in found)


def test_the_line_and_the_operation_are_named():
    params = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 3)), "bias": jnp.ones((1, 3))}
    (found,) = read_network(after(jax.nn.log_softmax), params, read_shape((4,))).breaks
    assert (found.breaks, found.operation) == ("elementwise", "log_softmax")
    assert found.paths == {"a", "b", "bias"}
    assert found.where.endswith("(after.<locals>.<lambda>)")


def test_the_standardisation_of_weights_is_told_from_that_of_signals():
    params = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 3)), "bias": jnp.ones((1, 3))}
    found = read_network(standardised, params, read_shape((4,))).breaks
    assert {one.breaks for one in found} == {"centring", "elementwise", "normaliser"}
    assert all(one.of_weights and one.paths == {"a"} for one in found)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x))
        return nn.elu(h + nn.Conv(4, (1, 1))(x))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(Block()(x), (2, 2), (2, 2))
        return nn.Dense(3)(Block()(x).mean((1, 2)))


def test_a_residual_network_has_no_break():
    model = Net()
    variables = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))

    def network(params, x):
        return model.apply({**variables, "params": params}, x)

    reading = read_network(network, variables["params"], read_shape((8, 8, 3)))
    assert reading.breaks == ()
    assert len(reading.kernels) == 5


def test_a_fourier_transform_is_a_break_of_every_leaf():
    def network(p, x):
        return jnp.fft.irfft(jnp.fft.rfft(x @ p["a"]) * 2.0, 3) @ p["b"]

    params = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 3))}
    found = read_network(network, params, read_shape((4,))).breaks
    assert {one.breaks for one in found} == {"transform"}


def test_outputs_that_the_flow_leaves_out_break_nothing():
    def network(p, x):
        logits = jax.nn.relu(x @ p["a"]) @ p["b"]
        return {"logits": logits, "label": jnp.argmax(jax.nn.softmax(logits), -1)}

    params = {"a": jnp.ones((4, 3)), "b": jnp.ones((3, 3))}
    assert read_network(network, params, read_shape((4,))).breaks == ()


@pytest.mark.parametrize(
    "fn", [lambda w: jnp.linalg.qr(w)[0], jax.scipy.linalg.expm, jnp.linalg.inv]
)
def test_an_operation_on_weights_without_a_rule_is_named(fn):
    params = {"w": jnp.eye(4)}
    found = read_network(lambda p, x: x @ fn(p["w"]), params, read_shape((4,))).breaks
    assert found and all(one.of_weights and one.paths == {"w"} for one in found)
