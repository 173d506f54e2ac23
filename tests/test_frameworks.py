"""One network in five frameworks: the same masks; and masks under each of JAX's transforms."""

import pathlib
from functools import partial

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding, PartitionSpec
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


class Small(nn.Module):
    """Two dense layers with dropout."""

    @nn.compact
    def __call__(self, x, train=False):
        """Return the logits."""
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(nn.Dense(16)(x)))
        return nn.Dense(CLASSES)(x)


class State(TrainState):
    """A TrainState that holds the masks a second time, for whoever looks for them there."""

    masks: dict


@pytest.fixture(scope="module")
def state():
    params, apply_fn = from_linen(Small(), Small().init(jax.random.key(0), jnp.ones((1, 6))))
    masks = sf.synflow(params, apply_fn, (6,), 8.0, rounds=3)
    with jax.numpy_dtype_promotion("standard"):
        tx = sf.keep_masks(optax.adamw(1e-2), masks)
        return State.create(apply_fn=Small().apply, params=params, tx=tx, masks=masks)


def step(state, batch, key=None, mean=lambda loss: loss):
    """Train for one step, with dropout where there is a key; `mean` goes over the devices."""
    x, labels = batch
    settings = {"train": True, "rngs": {"dropout": key}} if key is not None else {}

    def loss_fn(params):
        logits = state.apply_fn({"params": params}, x, **settings)
        return mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean())

    return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))


def holds_zeros(params, masks):
    """Whether what is pruned is zero, and some of the rest is not."""
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True))
    zero = all(not np.where(mask, 0.0, leaf).any() for leaf, mask in pairs)
    return zero and any(not np.asarray(mask).all() for _, mask in pairs)


def batch(examples=32):
    x = jax.random.normal(jax.random.key(1), (examples, 6))
    return x, jnp.arange(examples) % CLASSES


@pytest.mark.parametrize("wrapped", [jax.jit, nnx.jit], ids=["jit", "nnx.jit"])
def test_a_train_state_under_jit(state, wrapped):
    run, now = wrapped(step), state
    for i in range(3):
        now = run(now, batch(), jax.random.key(i))
    assert holds_zeros(now.params, state.masks)
    for masks in (now.masks, now.opt_state.masks):
        jax.tree.map(np.testing.assert_array_equal, masks, state.masks)


def test_three_seeds_at_once(state):
    keys = jax.random.split(jax.random.key(2), 3)
    apply_fn = from_linen(Small(), {"params": state.params})[1]

    def trained(key):
        params = Small().init(key, jnp.ones((1, 6)))["params"]
        masks = sf.synflow(params, apply_fn, (6,), 8.0, rounds=3)
        tx = sf.keep_masks(optax.adamw(1e-2), masks)
        mine = State.create(apply_fn=Small().apply, params=params, tx=tx, masks=masks)
        return step(step(mine, batch(), key), batch(), key).params, masks

    params, masks = jax.jit(jax.vmap(trained))(keys)
    assert holds_zeros(params, masks)
    for i, key in enumerate(keys):
        alone = sf.synflow(
            Small().init(key, jnp.ones((1, 6)))["params"], apply_fn, (6,), 8.0, rounds=3
        )
        jax.tree.map(lambda m, a, i=i: np.testing.assert_array_equal(m[i], a), masks, alone)


WHOLE, ROWS = PartitionSpec(), PartitionSpec("devices")


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((8,), ("devices",))


def test_every_device_finds_the_same_masks(state, mesh):
    """In a shard_map, each of eight devices prunes its own copy for itself."""
    params, apply_fn = from_linen(Small(), {"params": state.params})
    prune = lambda p: sf.synflow(p, apply_fn, (6,), 8.0, rounds=3)
    # Whole in, whole out: that the masks are the same on all devices is checked by their types.
    run = jax.shard_map(prune, mesh=mesh, in_specs=WHOLE, out_specs=WHOLE)
    for found, want in zip(*map(jax.tree.leaves, (jax.jit(run)(params), state.masks)), strict=True):
        assert len(found.addressable_shards) == 8
        assert all((np.asarray(s.data) == want).all() for s in found.addressable_shards)


def test_every_device_prunes_a_network_of_its_own(mesh):
    init = lambda key: Small().init(key, jnp.ones((1, 6)))["params"]
    keys = jax.random.split(jax.random.key(3), 8)
    params = jax.device_put(jax.vmap(init)(keys), NamedSharding(mesh, ROWS))
    apply_fn = from_linen(Small(), {"params": init(keys[0])})[1]
    prune = lambda p: sf.synflow(p, apply_fn, (6,), 8.0, rounds=3)
    run = jax.shard_map(jax.vmap(prune), mesh=mesh, in_specs=ROWS, out_specs=ROWS, check_vma=False)
    masks = jax.tree.map(np.asarray, jax.jit(run)(params))
    for i in (0, 7):
        alone = prune(init(keys[i]))
        jax.tree.map(lambda m, a, i=i: np.testing.assert_array_equal(m[i], a), masks, alone)


def test_data_parallel_training_by_shard_map(state, mesh):
    """Eight parts of a batch train as the whole batch does, and the zeros are on all devices."""
    mean = partial(jax.lax.pmean, axis_name="devices")

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(WHOLE, ROWS, WHOLE), out_specs=WHOLE)
    def run(state, batch, key):
        return step(state, batch, key, mean)

    now, alone = jax.device_put(state, NamedSharding(mesh, WHOLE)), state
    for _ in range(3):
        now = run(now, jax.device_put(batch(64), NamedSharding(mesh, ROWS)), None)
        alone = jax.jit(step)(alone, batch(64))
    assert holds_zeros(now.params, state.masks)
    for found, want in zip(*map(jax.tree.leaves, (now.params, alone.params)), strict=True):
        # Means over eight parts, in float32.
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
        parts = [np.asarray(shard.data) for shard in found.addressable_shards]
        assert len(parts) == 8
        assert all((part == parts[0]).all() for part in parts)


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
