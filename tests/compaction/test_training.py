"""Compact networks in training: statistics, momentum, dropout, derivatives of one's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import synflow_jax as sf
from synflow_jax import linen
from tests.support.compacted import NEAR, draw, masks_of, same


class Net(nn.Module):
    """Convolution, BatchNorm, a residual sum, depthwise and pooling, flattened into a head."""

    @nn.compact
    def __call__(self, x, train=False):
        norm = lambda y: nn.BatchNorm(use_running_average=not train, momentum=0.5)(y)
        x = nn.relu(norm(nn.Conv(12, (3, 3))(x)))
        y = nn.relu(norm(nn.Conv(10, (3, 3))(x)))
        x = nn.relu(x + nn.Conv(12, (1, 1), use_bias=False)(y))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(12, (3, 3), feature_group_count=12)(x))
        return nn.Dense(4)(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def conv():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = Net().init(jax.random.key(0), jnp.ones((1, 6, 6, 2)))
        prunable = lambda path, leaf: path.startswith("params") and sf.plan.is_prunable(path, leaf)

        def network(v, x):
            return Net().apply(v, x)

        masks = sf.synflow(variables, network, (6, 6, 2), 25.0, rounds=20, prunable=prunable)
        yield variables, masks, network


def test_convolutions_with_their_statistics(conv, flax_promotes):
    variables, masks, network = conv
    small = same(variables, masks, network, (6, 6, 2))
    widths = {name: leaf.shape for name, leaf in small.params["params"]["Conv_0"].items()}
    assert widths["kernel"][:3] == (3, 3, 2) and widths["kernel"][3] < 12
    kept = widths["kernel"][3]
    assert small.params["batch_stats"]["BatchNorm_0"]["mean"].shape == (kept,)
    assert small.params["params"]["Conv_3"]["kernel"].shape == (3, 3, 1, kept)
    assert small.params["params"]["Dense_0"]["kernel"].shape == (9 * kept, 4)
    assert small.multiply_adds[1] < small.multiply_adds[0] / 2


def test_what_a_function_holds_is_cut_along(conv, flax_promotes):
    variables, masks, _ = conv
    params, apply_fn = linen.from_linen(Net(), variables)
    small = same(params, masks["params"], apply_fn, (6, 6, 2), batch=2)
    assert small.params["Conv_0"]["kernel"].shape[3] < 12


def test_training_follows_the_masked_network(conv, flax_promotes):
    """Three steps of momentum in training mode: the small run is the whole one, cut."""
    variables, masks, network = conv
    small = sf.compact(variables, masks, network, (6, 6, 2))
    x, labels = jax.random.normal(jax.random.key(1), (8, 6, 6, 2)), jnp.arange(8) % 4

    def loss(v, x, labels):
        logits, new = Net().apply(v, x, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

    def trained(loss, v, masks):
        v, tx = sf.apply_masks(v, masks), sf.keep_masks(optax.sgd(0.1, 0.9), masks)
        state = tx.init(v)
        step = jax.jit(jax.value_and_grad(loss, has_aux=True))
        for _ in range(3):
            (value, new), grads = step(v, x, labels)
            updates, state = tx.update(grads, state, v)
            v = {**optax.apply_updates(v, updates), **new}
        return value, v

    value, whole = trained(loss, variables, masks)
    mine, cut = trained(small.wrap(loss), small.params, small.masks)
    assert float(mine) == pytest.approx(float(value), rel=1e-5)  # rounding, three steps
    for a, b in zip(jax.tree.leaves(small.take(whole)), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@jax.custom_vjp
def turned_back(x):
    return x


turned_back.defvjp(lambda x: (x, None), lambda _, g: (-g,))


@jax.custom_vjp
def straight_through(x):
    return jnp.where(x > 0, jnp.ones_like(x), jnp.zeros_like(x))


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))


@pytest.mark.parametrize("act", [straight_through, turned_back, jax.nn.relu, jax.nn.silu])
def test_derivatives_of_ones_own_are_kept(act):
    network = lambda p, x: act(x @ p["w"]) @ p["v"]
    params = draw(4, {"w": (3, 8), "v": (8, 2)})
    masks = masks_of(4, params, 0.4)
    masks["v"] = masks["v"].at[2:5].set(False)
    assert same(params, masks, network, (3,)).params["w"].shape[1] <= 5
    # At 0 exactly, where relu's derivative is 0 by its own rule and ½ by that of max.
    small = sf.compact(params, masks, network, (3,))
    zero = jnp.zeros((1, 3))
    grad = jax.grad(lambda x: network(sf.apply_masks(params, masks), x).sum())(zero)
    mine = jax.grad(lambda x: small.apply_fn(small.params, x).sum())(zero)
    np.testing.assert_allclose(mine, grad, **NEAR)


def test_dropout_draws_for_what_stays_what_it_draws_for_the_whole():
    params = draw(17, {"u": (4, 6), "v": (6, 2)})
    masks = masks_of(17, params, 1.1)
    masks["v"] = masks["v"].at[1].set(False)

    def loss(p, x, key):
        h = jax.nn.relu(x @ p["u"])
        return (jnp.where(jax.random.bernoulli(key, 0.5, h.shape), 2 * h, 0.0) @ p["v"]).sum()

    small = sf.compact(params, masks, lambda p, x: jax.nn.relu(x @ p["u"]) @ p["v"], (4,))
    x, key = jax.random.normal(jax.random.key(0), (5, 4)), jax.random.key(1)
    assert small.params["u"].shape == (4, 5)
    grad = jax.grad(loss)(sf.apply_masks(params, masks), x, key)
    mine = jax.grad(small.wrap(loss))(small.params, x, key)
    for name in ("u", "v"):
        np.testing.assert_allclose(mine[name], small.take(grad)[name], **NEAR)
