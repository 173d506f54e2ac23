"""Entries that compaction takes for 0: whatever the input is, and in training, too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf


def normal(seed, *shape, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal(shape), dtype)


def without_input(params, name, unit):
    """Keep all but the weights that feed one unit."""
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    return {**masks, name: masks[name].at[:, unit].set(False)}


def gelu_chain(p, x):
    x = jax.nn.gelu(x @ p["u"] + p["bias"][None])
    for w in p["w"]:
        x = x @ w
    return x


def deep(dtype, size=1e-3):
    """Draw a deep network of small weights: 1e-3^24 is 0 in float32, 0.05^24 in float16."""
    layers = [dtype(size) * normal(k, 4, 4, dtype=dtype) for k in range(24)]
    return {"u": normal(99, 3, 4, dtype=dtype), "bias": jnp.zeros(4, dtype), "w": layers}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_a_gradient_below_the_smallest_number_is_one_all_the_same(dtype):
    params = deep(dtype)
    small = sf.compact(params, without_input(params, "u", 2), gelu_chain, (3,))
    assert small.params["bias"].shape == (4,)


def test_a_gradient_below_the_smallest_number_of_a_half_inside():
    def network(p, x):
        half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), p)
        return gelu_chain(half, x.astype(jnp.float16))

    params = deep(jnp.float32, 0.05)
    small = sf.compact(params, without_input(params, "u", 2), network, (3,))
    assert small.params["bias"].shape == (4,)


def halves(x):
    """Halve each row until its first entry is below 1: a loop that has no gradient."""
    return jax.lax.while_loop(lambda x: jnp.abs(x[0, 0]) > 1, lambda x: x / 2, x)


def test_where_there_is_no_gradient_every_kept_zero_may_move():
    params = {"u": normal(0, 3, 4), "bias": jnp.zeros(4), "w": normal(1, 4, 2)}
    masks = without_input(params, "u", 2)
    plain = lambda p, x: jax.nn.relu(x @ p["u"] + p["bias"][None]) @ p["w"]
    small = sf.compact(params, masks, plain, (3,))
    assert small.params["bias"].shape == (3,)
    small = sf.compact(params, masks, lambda p, x: halves(plain(p, x)), (3,))
    assert small.params["bias"].shape == (4,) and small.lost == ("while",)
    x = normal(2, 5, 3)
    want = halves(plain(sf.apply_masks(params, masks), x))
    np.testing.assert_allclose(small.apply_fn(small.params, x), want, rtol=1e-5, atol=1e-6)


def test_complex_outputs_have_no_gradient_to_look_at():
    network = lambda p, x: jnp.fft.fft(jax.nn.gelu(x @ p["u"] + p["bias"][None]) @ p["w"])
    params = {"u": normal(0, 3, 4), "bias": jnp.zeros(4), "w": normal(1, 4, 2)}
    small = sf.compact(params, without_input(params, "u", 2), network, (3,))
    assert small.params["bias"].shape == (4,)


def test_rows_that_whole_numbers_pick_may_all_move():
    """A table of zeros behind a one-hot: the probe sees one token, training sees the others."""

    def network(p, tokens):
        rows = jax.nn.one_hot(tokens, 5, dtype=jnp.float32)
        return rows @ p["table"] + rows @ p["u"] @ p["v"]

    params = {"table": jnp.zeros((5, 2)), "u": normal(0, 5, 4), "v": normal(1, 4, 2)}
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks["u"] = masks["u"].at[3].set(False)
    masks["v"] = masks["v"].at[1].set(False)
    small = sf.compact(params, masks, network, jax.ShapeDtypeStruct((6,), jnp.int32))
    assert small.params["table"].shape == (5, 2) and small.params["u"].shape == (5, 3)


def test_sums_of_small_whole_numbers_do_not_wrap_to_nothing():
    """Of 256 int8 entries that are 1 the sum is 0 in int8, and none of them is."""

    def network(p, x):
        signs = jnp.sign(x @ p["u"]).astype(jnp.int8)
        votes = signs.reshape(-1, 4, 256).sum(-1, dtype=jnp.int8)
        return votes.astype(jnp.float32) @ p["w"]

    params = {"u": normal(0, 3, 1024), "w": normal(1, 4, 2)}
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    small = sf.compact(params, masks, network, (3,))
    assert small.params["w"].shape == (4, 2)
    x = normal(2, 5, 3)
    np.testing.assert_allclose(small.apply_fn(small.params, x), network(params, x), rtol=1e-5)


def test_units_that_emit_a_constant_are_named():
    """Unit 2 has a bias and no input, 0 an input, 1 neither; the skip feeds unit 3."""
    params = {
        "u": normal(0, 3, 4),
        "bias": jnp.array([0.0, 0.0, 0.5, 0.5]),
        "skip": normal(1, 3, 4),
        "w": normal(2, 4, 2),
    }
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks["u"] = masks["u"].at[:, 1:].set(False)
    masks["skip"] = jnp.zeros((3, 4), bool).at[1, 3].set(True)

    def network(p, x):
        return jax.nn.relu(x @ p["u"] + p["bias"][None] + x @ p["skip"]) @ p["w"]

    small = sf.compact(params, masks, network, (3,))
    assert small.params["w"].shape == (3, 2)
    assert small.constant == {"bias": 1, "skip": 1, "u": 1, "w": 1}
    grad = jax.grad(lambda p: small.apply_fn(p, normal(3, 5, 3)).sum())(small.params)
    assert float(grad["bias"][1]) != 0  # it trains on, as in the masked network
    params["bias"] = params["bias"].at[2].set(0.0)
    assert sf.compact(params, masks, network, (3,)).constant == {}


@pytest.mark.parametrize(("gated", "found"), [(True, {}), (False, {"bias": 2, "u": 2, "v": 2})])
def test_a_constant_that_gates_what_varies_is_none(gated, found):
    """A channel without input, times one that has some, is no constant; its bias alone is."""

    def conv(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def network(p, x):
        h = jax.nn.silu(conv(x, p["u"]) + p["bias"][None, None, None])
        if gated:
            h = h * conv(x, p["gate"])
        return conv(h, p["v"]).mean((1, 2))

    sizes = {"u": (3, 3, 2, 4), "gate": (3, 3, 2, 4), "v": (3, 3, 4, 3)}
    params = {name: normal(k, *size) for k, (name, size) in enumerate(sizes.items())}
    params["bias"] = jnp.full(4, 0.5)
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks["u"] = masks["u"].at[..., 2:].set(False)
    assert sf.compact(params, masks, network, (4, 4, 2)).constant == found
