"""Random graphs with random masks: exact, to the end, and what the numbers themselves say."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import synflow_jax as sf

NHWC = ("NHWC", "HWIO", "NHWC")
KINDS = ("linear", "linear", "add", "concat", "gate", "norm", "cut", "move")


def leaky(x):
    return jnp.where(x > 0, x, 0.3 * x)


class Graph:
    """A random network, of maps and then of vectors, that knows which channels go together.

    `plan` has rows of (kind, nodes it reads, parameter, activation), `labels` the unit of each
    channel of each node, before they are joined in `parents`.
    """

    def __init__(self, seed, acts):
        self.rng = np.random.default_rng(seed)
        self.images = bool(self.rng.integers(2))
        self.shape = (4, 4, 2) if self.images else (5,)
        self.plan, self.parents, self.params, self.acts = [], [], {}, acts
        self.labels = [self.fresh(self.shape[-1])]
        self.sizes = [self.shape[:-1]]
        for _ in range(self.rng.integers(3, 6)):
            self.extend(str(self.rng.choice(KINDS)))
        if self.sizes[-1]:
            self.flatten(len(self.labels) - 1)
        self.linear(len(self.labels) - 1, 2)

    def fresh(self, count):
        first = len(self.parents)
        self.parents += range(first, first + count)
        return list(range(first, first + count))

    def find(self, label):
        while self.parents[label] != label:
            label = self.parents[label]
        return label

    def join(self, ones, others):
        for a, b in zip(ones, others, strict=True):
            self.parents[self.find(a)] = self.find(b)

    def node(self, kind, reads, labels, size, name=None):
        act = self.acts[self.rng.integers(len(self.acts))]
        self.plan.append((kind, reads, name, act))
        self.labels.append(labels)
        self.sizes.append(size)

    def leaf(self, *shape, zero=False):
        name = f"{len(self.params):02}"
        self.params[name] = jnp.asarray(self.rng.standard_normal(shape) * (not zero))
        return name

    def linear(self, a, out):
        size = (3, 3) if self.sizes[a] else ()
        weight = self.leaf(*size, len(self.labels[a]), out)
        self.leaf(out, zero=bool(self.rng.integers(2)))  # the next name: its bias
        self.node("linear", (a,), self.fresh(out), self.sizes[a], weight)

    def flatten(self, a):
        first = bool(self.rng.integers(2))
        places = int(np.prod(self.sizes[a]))
        labels = [x for x in self.labels[a] for _ in range(places)]
        self.node(
            "first" if first else "flat", (a,), labels if first else self.labels[a] * places, ()
        )

    def extend(self, kind):
        """Add a node that reads the last one, and another one where the kind needs two."""
        a, b = len(self.labels) - 1, int(self.rng.integers(len(self.labels)))
        mine, size = self.labels[a], self.sizes[a]
        if kind == "add" and (len(self.labels[b]), self.sizes[b]) == (len(mine), size):
            self.join(mine, self.labels[b])
            self.node("add", (a, b), mine, size)
        elif kind == "concat" and self.sizes[b] == size and len(mine) < 12:
            self.node("concat", (a, b), mine + self.labels[b], size)
        elif kind == "gate" and len(mine) % 2 == 0:
            half = len(mine) // 2
            self.join(mine[:half], mine[half:])
            self.node("gate", (a,), mine[:half], size)
        elif kind == "norm":
            grouped = bool(size) and bool(self.rng.integers(2))
            name = self.leaf(3, 3, 1, len(mine)) if grouped else self.leaf(len(mine))
            self.node("depthwise" if grouped else "norm", (a,), mine, size, name)
        elif kind == "cut" and len(mine) > 3:
            self.node("cut", (a,), mine[1:][::2], size)
        elif kind == "move" and size == (4, 4):
            self.node("pool", (a,), mine, (2, 2))
        elif kind == "move" and size:
            self.flatten(a)
        else:
            self.linear(a, int(self.rng.choice([4, 6])))

    def __call__(self, p, x, taps=None, seen=None):
        """Run; add taps to what linear layers read, and note in `seen` what that was."""
        values = [x]
        for place, (kind, reads, name, act) in enumerate(self.plan):
            v = values[reads[0]]
            if kind == "linear":
                v = v if taps is None else v + taps[place]
                if seen is not None:
                    seen[place] = v
                bias = p[f"{int(name) + 1:02}"]
                v = conv(v, p[name]) if v.ndim == 4 else v @ p[name]
                v = v + bias.reshape((1,) * (v.ndim - 1) + (-1,))
                v = act(v) if place + 1 < len(self.plan) else v
            elif kind == "add":
                v = act(v + values[reads[1]])
            elif kind == "concat":
                v = jnp.concatenate([v, values[reads[1]]], -1)
            elif kind == "gate":
                left, right = jnp.split(v, 2, -1)
                v = left * jnp.tanh(right)
            elif kind == "norm":
                v = v * p[name].reshape((1,) * (v.ndim - 1) + (-1,))
            elif kind == "depthwise":
                v = conv(v, p[name], groups=v.shape[-1])
            elif kind == "cut":
                v = v[..., 1::2]
            elif kind == "pool":
                v = lax.reduce_window(v, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            elif kind == "first":
                v = v.transpose(0, 3, 1, 2).reshape(v.shape[0], -1)
            else:
                v = v.reshape(v.shape[0], -1)
            values.append(v)
        return values[-1]

    def masks(self):
        """Draw masks: weights at some density, most biases and scales whole."""
        density = self.rng.uniform(0.08, 0.5)
        shares = {k: density if p.ndim > 1 else 0.8 for k, p in self.params.items()}
        return {
            k: jnp.asarray(self.rng.random(p.shape) < shares[k]) for k, p in self.params.items()
        }

    def needed(self, masks):
        """Find numerically where the input of a layer is not 0 and the output depends on it.

        Kept biases of 0 are drawn: training would move them wherever the output feels them.
        """
        params = {
            k: jnp.where(masks[k], jnp.where(p == 0, 0.7, p), 0) for k, p in self.params.items()
        }
        x = jnp.asarray(self.rng.standard_normal((16, *self.shape)))
        seen = {}
        jax.eval_shape(lambda: self(params, x, None, seen))
        zeros = {place: jnp.zeros(v.shape) for place, v in seen.items()}

        def run(taps):
            read = {}
            y = self(params, x, taps, read)
            return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), read

        slopes, read = jax.jit(jax.grad(run, has_aux=True))(zeros)
        found = {self.find(x) for x in (*self.labels[0], *self.labels[-1])}
        for place, (_, (a, *_), *_) in enumerate(self.plan):
            if place in read:
                felt = np.asarray((read[place] != 0) & (slopes[place] != 0))
                places = np.flatnonzero(felt.reshape(-1, felt.shape[-1]).any(0))
                found |= {self.find(self.labels[a][k]) for k in places}
        return found

    def expected(self, masks):
        """Return the shape that compaction must leave of each leaf."""
        found, shapes = self.needed(masks), {}
        for place, (kind, (a, *_), name, _) in enumerate(self.plan):
            inside, out = (
                sum(self.find(x) in found for x in self.labels[k]) for k in (a, place + 1)
            )
            if kind == "linear":
                shapes[name] = (*self.params[name].shape[:-2], inside, out)
                shapes[f"{int(name) + 1:02}"] = (out,)
            elif name:
                shapes[name] = (*self.params[name].shape[:-1], out)
        return shapes


def conv(x, kernel, groups=1):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups
    )


def check_same(shape, whole, params, masks):
    """Compare function and gradient with those of the masked network, in float64."""
    small = sf.compact(params, masks, whole, shape)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((3, *shape)))

    def run(network):
        def value(p):
            y = network(p, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.grad(value, has_aux=True))

    grad, want = run(whole)(sf.apply_masks(params, masks))
    mine, got = run(small.apply_fn)(small.params)
    # Sums of at most some hundred products in another order.
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)
    for name, cut in small.take(grad).items():
        np.testing.assert_allclose(mine[name], cut, rtol=1e-10, atol=1e-11)
    return small


def shapes(params):
    return {name: leaf.shape for name, leaf in params.items()}


def check(seed, acts):
    graph = Graph(seed, acts)
    masks = graph.masks()
    small = check_same(graph.shape, graph, graph.params, masks)
    again = check_same(graph.shape, small.apply_fn, small.params, small.masks)
    # What is left of a strided slice is picked by places, which frees rows that read the input.
    if not any(kind == "cut" for kind, *_ in graph.plan):
        assert shapes(again.params) == shapes(small.params)
    assert small.lost == ()
    return graph, masks, small


@given(st.integers(0, 100_000))
@settings(max_examples=5, deadline=None)
def test_what_is_left_is_what_the_output_feels(seed):
    """Of functions that are 0 at 0 alone, units stay where brute force finds them felt."""
    with jax.enable_x64(True):
        graph, masks, small = check(seed, (jnp.tanh, leaky))
        left, felt = shapes(small.params), graph.expected(masks)
        # Of a map, a channel is one unit: one that feeds only places that are not felt stays.
        pairs = [(a, b) for name in left for a, b in zip(left[name], felt[name], strict=True)]
        assert all(a >= b if graph.images else a == b for a, b in pairs)


@given(st.integers(0, 100_000))
@settings(max_examples=5, deadline=None)
def test_any_activation_computes_the_same(seed):
    with jax.enable_x64(True):
        check(seed, (jax.nn.relu, jax.nn.gelu, jnp.cos, jax.nn.softplus))
