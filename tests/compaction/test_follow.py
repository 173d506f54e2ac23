"""How compact follows operations: heads, lookups, reshapes, gates, groups, and what it cannot."""

import jax
import jax.numpy as jnp
import pytest

from tests.support.compacted import draw, masks_of, same, shapes


def test_whole_heads_go():
    def network(p, x):
        q, k, v = (jnp.einsum("btd,dhe->bthe", x, p[name]) for name in ("q", "k", "v"))
        weights = jax.nn.softmax(jnp.einsum("bthe,bshe->bhts", q, k) / 2.0, -1)
        mixed = jnp.einsum("bhts,bshe->bthe", weights, v)
        return mixed.reshape(*mixed.shape[:2], -1) @ p["out"]

    params = draw(3, {"q": (5, 3, 4), "k": (5, 3, 4), "v": (5, 3, 4), "out": (12, 5)})
    masks = masks_of(3, params, 0.9)
    masks["out"] = masks["out"].at[4:8].set(False)
    small = same(params, masks, network, (6, 5))
    assert shapes(small) == {"q": (5, 2, 4), "k": (5, 2, 4), "v": (5, 2, 4), "out": (8, 5)}
    masks["v"], masks["k"] = masks["v"].at[:, 0].set(False), masks["k"].at[:, 2, 1].set(False)
    # One head is left, and one of its four places has no key.
    assert shapes(same(params, masks, network, (6, 5))) == {
        "q": (5, 1, 3),
        "k": (5, 1, 3),
        "v": (5, 1, 4),
        "out": (4, 5),
    }


def test_rows_that_are_picked_for_each_position_stay():
    def network(p, x):
        picked = jnp.take_along_axis(p["table"], jnp.arange(6)[:, None] % 3, 1)
        return (jax.nn.relu(x @ p["u"]) * picked[:, 0][None]) @ p["v"]

    params = draw(16, {"u": (4, 6), "table": (6, 3), "v": (6, 2)})
    masks = masks_of(16, params, 1.1)
    masks["v"] = masks["v"].at[1].set(False)
    assert same(params, masks, network, (4,)).params["table"].shape == (6, 3)


def test_an_embedding_and_a_padded_shortcut():
    def network(p, x):
        ids = (x > 0).astype(jnp.int32)[:, 0]
        h = p["embedding"][ids] @ p["w"]
        wide = jnp.pad(h, ((0, 0), (2, 1)))  # a shortcut to a wider layer
        return jax.nn.relu(wide + h @ p["v"]) @ p["head"]

    params = draw(5, {"embedding": (2, 4), "w": (4, 5), "v": (5, 8), "head": (8, 2)})
    masks = masks_of(5, params, 0.5)
    masks["embedding"] = jnp.ones((2, 4), bool)
    masks["w"] = masks["w"].at[1].set(False)
    masks["head"] = masks["head"].at[jnp.array([0, 4])].set(False)
    masks["v"] = masks["v"].at[2].set(False)
    small = same(params, masks, network, (3,))
    assert small.params["embedding"].shape == (2, 3)
    assert small.params["head"].shape == (6, 2) and small.params["w"].shape[1] <= 4


def test_an_axis_that_a_reshape_splits_off_may_be_of_the_output():
    params = draw(12, {"u": (4, 12), "v": (6, 2)})
    masks = masks_of(12, params, 1.1)
    masks["v"] = masks["v"].at[3].set(False)
    network = lambda p, x: jax.nn.relu(x @ p["u"]).reshape(-1, 2, 6) @ p["v"]
    assert shapes(same(params, masks, network, (4,))) == {"u": (4, 10), "v": (5, 2)}


@pytest.mark.parametrize("explicit", [True, False])
def test_a_gate_of_one_unit_is_read_by_all(explicit):
    def network(p, x):
        gate = jax.nn.sigmoid(x @ p["gate"])
        if explicit:
            gate = jax.lax.broadcast_in_dim(gate, (len(x), 6), (0, 1))
        return (gate * (x @ p["u"])) @ p["v"]

    params = draw(10, {"gate": (4, 1), "u": (4, 6), "v": (6, 2)})
    masks = masks_of(10, params, 1.1)
    masks["v"] = masks["v"].at[2].set(False)
    small = same(params, masks, network, (4,))
    assert shapes(small) == {"gate": (4, 1), "u": (4, 5), "v": (5, 2)}


def test_a_depthwise_branch_of_which_nothing_is_left():
    def conv(x, kernel, groups=1):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
        )

    def network(p, x):
        branch = conv(jax.nn.relu(conv(x, p["u"])), p["depthwise"], groups=4)
        return branch.mean((1, 2)) @ p["v"] + x.mean((1, 2)) @ p["w"]

    params = draw(11, {"u": (3, 3, 2, 4), "depthwise": (3, 3, 1, 4), "v": (4, 3), "w": (2, 3)})
    masks = masks_of(11, params, 1.1)
    masks["v"] = jnp.zeros((4, 3), bool)
    small = same(params, masks, network, (5, 5, 2))
    assert small.params["depthwise"].shape == (3, 3, 1, 0)


@pytest.mark.parametrize("name", ["sort", "scan", "fft"])
def test_what_cannot_be_followed_stays_whole_and_is_named(name):
    def network(p, x):
        h = jax.nn.relu(x @ p["u"]) @ p["v"]
        if name == "sort":
            h = jnp.sort(h, -1)
        elif name == "fft":
            h = jnp.fft.fft(h).real
        else:
            h = jax.lax.scan(lambda c, _: (jnp.tanh(c), None), h, None, length=2)[0]
        return h @ p["w"]

    params = draw(6, {"u": (3, 5), "v": (5, 4), "w": (4, 2)})
    masks = masks_of(6, params, 0.9)
    masks["v"] = masks["v"].at[1].set(False)
    masks["w"] = masks["w"].at[2].set(False)
    small = same(params, masks, network, (3,))
    assert shapes(small) == {"u": (3, 4), "v": (4, 4), "w": (4, 2)}
    assert small.lost == (() if name == "sort" else (name,))
