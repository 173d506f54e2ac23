"""From an NNX model to (params, apply_fn) and back, and masks that live in NNX."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import synflow_jax as sf
from synflow_jax.nnx import from_nnx, to_nnx
from synflow_jax.trees import named_leaves, path_string
from tests.support.nets import holds_zeros
from tests.support.nnx_nets import Net, arrays

pytestmark = pytest.mark.usefixtures("flax_promotes")
ONES = jnp.ones((4, 6))


class Mask(nnx.Variable):
    """What is kept."""


def plain(params, stats, x):
    """Net in evaluation mode, in NumPy's terms."""
    hidden = x @ params["first"]["kernel"] + params["first"]["bias"]
    scale = params["norm"]["scale"] / np.sqrt(stats["var"] + 1e-5)
    hidden = (hidden - stats["mean"]) * scale + params["norm"]["bias"]
    return np.maximum(hidden, 0) @ params["last"]["kernel"] + params["last"]["bias"]


def trained_net():
    """A net in training mode whose statistics are not those of the start."""
    model = Net()
    model(3 * jax.random.normal(jax.random.key(1), (16, 6)))
    return model


def everything(model):
    """All that a model holds, with keys as numbers."""
    return {
        path: np.array(
            jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v
        )
        for path, v in named_leaves(nnx.state(model))
    }


def test_the_function_is_the_network_in_evaluation_mode():
    model = trained_net()
    before = everything(model)
    params, apply_fn = from_nnx(model)
    x = np.random.default_rng(0).standard_normal((4, 6), np.float32)
    wanted = plain(arrays(params), arrays(nnx.state(model.norm, nnx.BatchStat)), x)
    # Two matrix products in float32.
    np.testing.assert_allclose(apply_fn(params, x), wanted, rtol=1e-5, atol=1e-6)
    again = jax.jit(lambda fn, p, x: fn(p, x))(apply_fn, params, x)
    np.testing.assert_allclose(again, wanted, rtol=1e-5, atol=1e-6)
    sf.synflow(params, apply_fn, (6,), 4.0, rounds=3)
    chex.assert_trees_all_equal(everything(model), before)
    assert int(model.calls[...]) == 1
    assert not model.drop.deterministic
    assert not model.norm.use_running_average


def test_paths_are_names_alone():
    params, _ = from_nnx(Net())
    names = [path_string(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    assert names[:2] == ["first/bias", "first/kernel"]
    assert [row.layer for row in sf.report(params, sf.magnitude(params, 2.0)).rows] == [
        "first/kernel",
        "last/kernel",
    ]


def test_training_and_evaluation_mode_give_the_same_masks():
    models = [Net(), Net()]
    models[1].eval()
    pairs = [from_nnx(model) for model in models]
    masks = [sf.synflow(*pair, (6,), 4.0, rounds=3) for pair in pairs]
    chex.assert_trees_all_equal(*masks)
    graphdef, params, rest = nnx.split(models[1], nnx.Param, ...)
    merged = lambda p, x: nnx.merge(graphdef, p, rest, copy=True)(x)
    by_hand = sf.synflow(params, merged, (6,), 4.0, rounds=3)
    chex.assert_trees_all_equal(masks[0], by_hand)


def test_training_the_model_changes_neither_params_nor_function():
    model = trained_net()
    params, apply_fn = from_nnx(model)
    wanted = np.array(apply_fn(params, ONES))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda m: jnp.sum(m(ONES) ** 2))(model))
    np.testing.assert_array_equal(apply_fn(params, ONES), wanted)
    assert (from_nnx(model)[1](from_nnx(model)[0], ONES) != wanted).any()


def test_equal_models_share_a_program_and_keep_their_own_statistics():
    class Counted(Net):
        pass

    flows, traced = [], []
    for factor in (1.0, 16.0):
        model = Counted(seed=0)
        model.norm.var[...] /= factor
        Counted.traces = 0
        saliency = sf.synflow_saliency(from_nnx(model)[1], (6,))
        flows.append(float(sf.prune(from_nnx(model)[0], saliency, 2.0, 3)[1].log2_flow[0]))
        traced.append(Counted.traces)
    assert traced == [1, 0]
    # A variance 16 times smaller makes the flow 4 times larger, but for the 1e-5 beside it.
    assert flows[1] - flows[0] == pytest.approx(2.0, abs=1e-3)


def test_masks_of_many_seeds_at_once():
    pairs = [from_nnx(Net(seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[params for params, _ in pairs])
    together = jax.vmap(lambda p: sf.synflow(p, pairs[0][1], (6,), 4.0, rounds=3))(stacked)
    for i, (params, apply_fn) in enumerate(pairs):
        one = sf.synflow(params, apply_fn, (6,), 4.0, rounds=3)
        chex.assert_trees_all_equal(jax.tree.map(lambda m, i=i: m[i], together), one)


def test_the_way_back():
    model = trained_net()
    before = everything(model)
    params, apply_fn = from_nnx(model)
    masks = sf.synflow(params, apply_fn, (6,), 4.0, rounds=3)
    pruned = sf.apply_masks(params, masks)
    sparse = to_nnx(model, pruned)
    assert not sparse.drop.deterministic
    sparse.eval()
    np.testing.assert_array_equal(sparse(ONES), apply_fn(pruned, ONES))
    assert int(sparse.calls[...]) == 2
    sparse.first.kernel[...] += 1.0
    chex.assert_trees_all_equal(pruned, sf.apply_masks(params, masks))
    chex.assert_trees_all_equal(everything(model), before)
    nnx.update(model, pruned)  # the other way: into the model itself
    chex.assert_trees_all_equal(arrays(nnx.state(model, nnx.Param)), arrays(pruned))


@nnx.jit
def step(model, optimizer, x):
    loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - 1.0) ** 2))(model)
    optimizer.update(model, grads)
    return loss


def test_masks_in_an_nnx_optimizer_under_jit():
    model = Net()
    masks = sf.synflow(*from_nnx(model), (6,), 4.0, rounds=3)
    optimizer = nnx.Optimizer(model, sf.keep_masks(optax.adamw(1e-2), masks), wrt=nnx.Param)
    first = from_nnx(model)[0]
    losses = [float(step(model, optimizer, ONES)) for _ in range(30)]
    assert losses[-1] < losses[0]
    params = nnx.state(model, nnx.Param)
    assert holds_zeros(params, masks)
    assert not holds_zeros(first, masks)
    assert int(jnp.count_nonzero(params["last"]["kernel"][...])) == int(
        masks["last"]["kernel"].sum()
    )


class Holding(nnx.Module):
    """A network and its masks, in a Variable that is no Param: no optimizer touches it."""

    def __init__(self, net, masks):
        self.net = net
        self.masks = Mask(nnx.to_pure_dict(masks))

    def __call__(self, x):
        """Run the network as masked."""
        graphdef, params, rest = nnx.split(self.net, nnx.Param, ...)
        pure = nnx.to_pure_dict(params)
        nnx.replace_by_pure_dict(params, sf.apply_masks(pure, self.masks.get_value()))
        return nnx.merge(graphdef, params, rest)(x)


def test_masks_as_variables_of_a_module():
    net = Net()
    net.eval()
    params, apply_fn = from_nnx(net)
    masks = sf.synflow(params, apply_fn, (6,), 4.0, rounds=3)
    model = Holding(net, masks)
    wanted = apply_fn(sf.apply_masks(params, masks), ONES)
    np.testing.assert_allclose(nnx.jit(lambda m, x: m(x))(model, ONES), wanted, rtol=1e-6)

    assert not nnx.state(model, nnx.Param).keys() & {"masks"}
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    for _ in range(3):
        step(model, optimizer, ONES)
    held = nnx.state(model, Mask)["masks"].get_value()
    chex.assert_trees_all_equal(held, nnx.to_pure_dict(masks))
    # Masked in the forward pass, pruned weights have no gradient: they stay what they were.
    frozen = jax.tree.map(
        lambda p, q, m: bool(jnp.where(m, True, p == q).all()),
        nnx.to_pure_dict(nnx.state(net, nnx.Param)),
        nnx.to_pure_dict(params),
        held,
    )
    assert jax.tree.all(frozen)


def test_a_whole_state_with_keys_and_counts():
    model = Net()
    model.eval()
    graphdef, state = nnx.split(model)
    masks = sf.synflow(state, lambda s, x: nnx.merge(graphdef, s)(x), (6,), 4.0)
    assert sf.report(state, masks).kept == 18


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(8, 16, rngs=rngs)
        self.down = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x, rngs):
        h = nnx.relu(self.up(x))
        return self.down(h * (1 + 0.01 * jax.random.uniform(rngs.noise(), h.shape)))


def test_rngs_of_the_call_draw_the_same_every_time():
    rngs = nnx.Rngs(noise=1)
    params, apply_fn = from_nnx(Noisy(nnx.Rngs(0)), rngs=rngs)
    x = jnp.ones((1, 8))
    np.testing.assert_array_equal(apply_fn(params, x), apply_fn(params, x))
    assert int(rngs.noise.count.get_value()) == 0
    masks = sf.synflow(params, apply_fn, (8,), 4)
    kernels = [masks[name]["kernel"].get_value() for name in ("up", "down")]
    assert sum(int(mask.sum()) for mask in kernels) == 48
