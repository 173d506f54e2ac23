"""One network in five frameworks: the same masks; and masks under each of JAX's transforms."""

import pathlib

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_readme import run_blocks

import synflow_jax as sf
from synflow_jax.linen import from_linen
from synflow_jax.nnx import from_nnx

pytestmark = pytest.mark.usefixtures("flax_promotes")
PAGE = pathlib.Path(__file__).parent.parent / "docs" / "howto" / "frameworks.md"
SIDE, CHANNELS, CLASSES = 5, 6, 4
SHAPE = (SIDE, SIDE, 3)


def weights():
    """The weights of a convolution, a BatchNorm with statistics, and a dense layer."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape)
    positive = lambda *shape: rng.uniform(0.5, 2.0, shape)
    return {
        "conv": normal(3, 3, 3, CHANNELS),
        "conv_bias": normal(CHANNELS),
        "scale": positive(CHANNELS),
        "shift": normal(CHANNELS),
        "mean": 0.1 * positive(CHANNELS),
        "var": positive(CHANNELS),
        "dense": normal(CHANNELS, CLASSES),
        "dense_bias": normal(CLASSES),
    }


def plain(w):
    """Write the network out."""
    params = {name: jnp.asarray(w[name]) for name in w if name not in ("mean", "var")}

    def apply_fn(p, x):
        pad = ((1, 1), (1, 1))
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, p["conv"], (1, 1), pad, dimension_numbers=numbers)
        x = (x + p["conv_bias"] - w["mean"]) / np.sqrt(w["var"] + 1e-5) * p["scale"] + p["shift"]
        return jax.nn.relu(x).mean((1, 2)) @ p["dense"] + p["dense_bias"]

    return params, apply_fn, lambda t: (t["conv"], t["dense"])


class LinenNet(nn.Module):
    """The network in Linen."""

    @nn.compact
    def __call__(self, x, train):
        """Return the logits."""
        x = nn.Conv(CHANNELS, (3, 3), name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(CLASSES, name="dense")(x)


def in_linen(w):
    variables = {
        "params": {
            "conv": {"kernel": w["conv"], "bias": w["conv_bias"]},
            "norm": {"scale": w["scale"], "bias": w["shift"]},
            "dense": {"kernel": w["dense"], "bias": w["dense_bias"]},
        },
        "batch_stats": {"norm": {"mean": w["mean"], "var": w["var"]}},
    }
    variables = jax.tree.map(jnp.asarray, variables)
    pair = from_linen(LinenNet(), variables, train=False)
    return *pair, lambda t: (t["conv"]["kernel"], t["dense"]["kernel"])


class NnxNet(nnx.Module):
    """The network in NNX."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, CHANNELS, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(CHANNELS, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(CHANNELS, CLASSES, rngs=rngs)

    def __call__(self, x):
        """Return the logits."""
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        return self.dense(self.drop(x))


def in_nnx(w):
    model = NnxNet(nnx.Rngs(0))
    found = {
        "conv": model.conv.kernel,
        "conv_bias": model.conv.bias,
        "scale": model.norm.scale,
        "shift": model.norm.bias,
        "mean": model.norm.mean,
        "var": model.norm.var,
        "dense": model.dense.kernel,
        "dense_bias": model.dense.bias,
    }
    for name, variable in found.items():
        variable.set_value(jnp.asarray(w[name]))
    return *from_nnx(model), lambda t: (t["conv"]["kernel"], t["dense"]["kernel"])


class EquinoxNet(eqx.Module):
    """The network in Equinox: one example at a time, channels first."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    dense: eqx.nn.Linear

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(3, CHANNELS, 3, padding=1, key=key)
        self.norm = eqx.nn.BatchNorm(CHANNELS, "batch", mode="ema")
        self.drop = eqx.nn.Dropout(0.5)
        self.dense = eqx.nn.Linear(CHANNELS, CLASSES, key=key)

    def __call__(self, x, state):
        """Return the logits."""
        x, state = self.norm(self.conv(x), state)
        return self.dense(self.drop(jax.nn.relu(x).mean((1, 2)))), state


def in_equinox(w):
    model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0))
    new = [
        w["conv"].transpose(3, 2, 0, 1),
        w["conv_bias"][:, None, None],
        w["scale"],
        w["shift"],
        w["dense"].T,
        w["dense_bias"],
    ]
    where = lambda m: [
        m.conv.weight, m.conv.bias, m.norm.weight, m.norm.bias, m.dense.weight, m.dense.bias
    ]  # fmt: skip
    model = eqx.nn.inference_mode(eqx.tree_at(where, model, [jnp.asarray(v) for v in new]))
    stats = (jnp.asarray(w["mean"]), jnp.asarray(w["var"]))
    state = state.set(model.norm.ema_state_index, stats)
    state = state.set(model.norm.ema_first_time_index, jnp.array(False))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def apply_fn(params, x):
        model = eqx.combine(params, static)
        first = jnp.moveaxis(x, -1, 1)
        return jax.vmap(lambda one: model(one, state)[0], axis_name="batch")(first)

    return params, apply_fn, lambda t: (t.conv.weight.transpose(2, 3, 1, 0), t.dense.weight.T)


def in_haiku(w):
    def forward(x, is_training):
        x = hk.Conv2D(CHANNELS, 3, name="conv")(x)
        x = hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training)
        x = jax.nn.relu(x).mean((1, 2))
        x = hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x
        return hk.Linear(CLASSES, name="dense")(x)

    network = hk.transform_with_state(forward)
    params, state = network.init(jax.random.key(0), jnp.ones((1, *SHAPE)), True)
    params = {
        "conv": {"w": w["conv"], "b": w["conv_bias"]},
        "norm": {n: w[m].reshape(params["norm"][n].shape) for n, m in NORM.items()},
        "dense": {"w": w["dense"], "b": w["dense_bias"]},
    }
    for name in ("mean", "var"):
        held = state[f"norm/~/{name}_ema"]
        held["average"] = jnp.asarray(w[name]).reshape(held["average"].shape)
    apply_fn = lambda p, x: network.apply(p, state, None, x, False)[0]
    return jax.tree.map(jnp.asarray, params), apply_fn, lambda t: (t["conv"]["w"], t["dense"]["w"])


NORM = {"scale": "scale", "offset": "shift"}
FRAMEWORKS = {"linen": in_linen, "nnx": in_nnx, "equinox": in_equinox, "haiku": in_haiku}


def prunable(path, leaf):
    """Prune all but Haiku's offsets, whose axes are as many as the image's."""
    return sf.is_prunable(path, leaf) and not path.endswith("/offset")


def labelled():
    rng = np.random.default_rng(1)
    return [(jnp.asarray(rng.standard_normal((6, *SHAPE))), jnp.arange(6) % CLASSES)]


def masks_of(made):
    """Prune by flow, by loss and by size; bring kernels to one layout."""
    params, apply_fn, kernels = made
    methods = {
        "synflow": sf.synflow(params, apply_fn, SHAPE, 4.0, rounds=3, prunable=prunable),
        "snip": sf.snip(params, sf.cross_entropy(apply_fn), labelled(), 4.0, prunable=prunable),
        "magnitude": sf.magnitude(params, 4.0, prunable=prunable),
    }
    return {n: [np.array(kernel) for kernel in kernels(masks)] for n, masks in methods.items()}


@pytest.fixture(scope="module")
def expected():
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        return masks_of(plain(weights()))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_gives_the_masks_of_the_network_written_out(name, expected, x64):
    params, apply_fn, _ = made = FRAMEWORKS[name](weights())
    wanted, network, _ = plain(weights())
    x = labelled()[0][0]
    # The same sums in float64, in another order.
    np.testing.assert_allclose(apply_fn(params, x), network(wanted, x), rtol=1e-10, atol=1e-12)
    for method, kernels in masks_of(made).items():
        for found, want in zip(kernels, expected[method], strict=True):
            np.testing.assert_array_equal(found, want, err_msg=method)
        assert sum(int(kernel.sum()) for kernel in kernels) == 47  # ⌈186/4⌉


VOCABULARY, WIDTH = 9, 5
IDS = jax.ShapeDtypeStruct((4,), jnp.int32)


def reading(embed, dense):
    """Embed token ids, add them up, and give logits."""
    return lambda tokens: dense(jax.nn.relu(embed(tokens)).sum(1))


class LinenReader(nn.Module):
    """The reader in Linen."""

    @nn.compact
    def __call__(self, tokens):
        """Return the logits."""
        return reading(nn.Embed(VOCABULARY, WIDTH), nn.Dense(CLASSES))(tokens)


class NnxReader(nnx.Module):
    """The reader in NNX."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.dense = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, tokens):
        """Return the logits."""
        return reading(self.embed, self.dense)(tokens)


def linen_reader(table, kernel, bias):
    params = {"Embed_0": {"embedding": table}, "Dense_0": {"kernel": kernel, "bias": bias}}
    return *from_linen(LinenReader(), {"params": params}), lambda t: t["Dense_0"]["kernel"]


def nnx_reader(table, kernel, bias):
    params, apply_fn = from_nnx(NnxReader(nnx.Rngs(0)))
    pure = {"embed": {"embedding": table}, "dense": {"kernel": kernel, "bias": bias}}
    nnx.replace_by_pure_dict(params, pure)
    return params, apply_fn, lambda t: t["dense"]["kernel"]


def equinox_reader(table, kernel, bias):
    embed = eqx.nn.Embedding(weight=table)
    dense = eqx.nn.Linear(WIDTH, CLASSES, key=jax.random.key(0))
    dense = eqx.tree_at(lambda m: (m.weight, m.bias), dense, (kernel.T, bias))
    params, static = eqx.partition((embed, dense), eqx.is_inexact_array)

    def apply_fn(params, tokens):
        embed, dense = eqx.combine(params, static)
        return reading(jax.vmap(jax.vmap(embed)), jax.vmap(dense))(tokens)

    return params, apply_fn, lambda t: t[1].weight.T


def haiku_reader(table, kernel, bias):
    parts = lambda: (hk.Embed(VOCABULARY, WIDTH), hk.Linear(CLASSES))
    network = hk.without_apply_rng(hk.transform(lambda tokens: reading(*parts())(tokens)))
    params = {"embed": {"embeddings": table}, "linear": {"w": kernel, "b": bias}}
    return params, network.apply, lambda t: t["linear"]["w"]


READERS = [linen_reader, nnx_reader, equinox_reader, haiku_reader]


@pytest.mark.parametrize("reader", READERS)
def test_token_ids_in_every_framework(reader, x64):
    """Every token is of id 1: a kernel's score is its size times that row, by hand."""
    rng = np.random.default_rng(2)
    shapes = ((VOCABULARY, WIDTH), (WIDTH, CLASSES), (CLASSES,))
    table, kernel, bias = (jnp.asarray(rng.standard_normal(shape)) for shape in shapes)
    params, apply_fn, kernel_of = reader(table, kernel, bias)
    kernels_alone = lambda path, leaf: leaf.shape in (kernel.shape, kernel.T.shape)
    rest = {"rounds": 1, "prunable": kernels_alone}
    found = np.array(kernel_of(sf.synflow(params, apply_fn, IDS, 4.0, **rest)))
    scores = np.abs(np.asarray(kernel)) * np.abs(np.asarray(table[1]))[:, None]
    np.testing.assert_array_equal(found, scores >= np.sort(scores.ravel())[-5])


def test_equal_equinox_models_share_a_program():
    calls = []

    def evaluate(static, params, x):
        calls.append(1)
        return jax.vmap(eqx.combine(params, static))(x)

    counts = []
    for seed in range(2):
        model = eqx.nn.MLP(5, 2, 7, 1, key=jax.random.key(seed))
        params, static = eqx.partition(model, eqx.is_inexact_array)
        calls.clear()
        masks = sf.synflow(params, jax.tree_util.Partial(evaluate, static), (5,), 7.0, rounds=3)
        counts.append(len(calls))
        assert sum(int(layer.weight.sum()) for layer in masks.layers) == 7
    assert counts == [1, 0]


def holds_zeros(params, masks):
    """Whether what is pruned is zero, and some of the rest is not."""
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True))
    zero = all(not np.where(mask, 0.0, leaf).any() for leaf, mask in pairs)
    return zero and any(not np.asarray(mask).all() for _, mask in pairs)


def test_the_page_runs():
    scope = run_blocks(PAGE, 8)
    state = scope["state"]
    pairs = {
        "linen": (state.params, scope["masks"]),
        "back": (scope["trained"]["params"], state.opt_state.masks),
        "nnx": (nnx.state(scope["twin"], nnx.Param), scope["kept"]),
        "equinox": (scope["arrays"], scope["chosen"]),
        "haiku": (scope["tree"], scope["held"]),
        "shard_map": (scope["after"], scope["same"]),
    }
    for name, (params, masks) in pairs.items():
        assert holds_zeros(params, masks), name
    assert scope["logits"].shape == (4, 10)
    assert sum(int(mask.sum()) for mask in scope["sparse"].values()) == 150
    kernels = [t["kernel"] for name, t in scope["two_masks"].items() if name.startswith("Dense")]
    assert sum(int(kernel.sum()) for kernel in kernels) == 64  # ⌈(80 + 160 + 16)/4⌉
