"""Networks without their dead units: the same function on smaller arrays."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.compacted import NEAR, draw, masks_of, same, shapes


def test_a_chain_keeps_the_units_between_live_weights():
    def network(p, x):
        return jax.nn.relu(jax.nn.relu(x @ p["u"]) @ p["v"]) @ p["w"]

    params = draw(0, {"u": (2, 4), "v": (4, 3), "w": (3, 1)})
    masks = {
        "u": jnp.array([[1, 1, 0, 0], [0, 1, 0, 1]], bool),  # unit 2 has no input
        "v": jnp.array([[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]], bool),  # 3 leads nowhere
        "w": jnp.array([[1], [1], [0]], bool),  # and so does unit 2 of the second layer,
    }  # so that unit 1 of the first leads nowhere, and unit 1 of the second has no input
    small = same(params, masks, network, (2,))
    assert shapes(small) == {"u": (2, 1), "v": (1, 1), "w": (1, 1)}
    assert small.multiply_adds == (8 + 12 + 3, 2 + 1 + 1)
    assert small.params["u"][:, 0].tolist() == sf.apply_masks(params, masks)["u"][:, 0].tolist()
    back = small.expand(small.params)
    masks_back = jax.tree.leaves(small.expand(small.masks))
    assert all(mask.dtype == bool for mask in masks_back)
    np.testing.assert_allclose(
        network(back, jnp.ones((1, 2))), small.apply_fn(small.params, jnp.ones((1, 2))), **NEAR
    )
    assert jax.tree.map(jnp.shape, back) == jax.tree.map(jnp.shape, params)
    assert "leaf" in str(small) and "4 after" in str(small)


def random_network(seed):
    """Draw a graph of dense layers, sums, concatenations, splits and reshapes."""
    rng = np.random.default_rng(seed)
    params, plan, widths = {}, [], [6]
    for i in range(rng.integers(3, 7)):
        kind = rng.choice(["dense", "dense", "add", "concat", "split", "heads", "norm"])
        a, b = (int(k) for k in rng.integers(0, len(widths), 2))
        if kind == "add":
            b = int(rng.choice([k for k, width in enumerate(widths) if width == widths[a]]))
        if (kind == "split" and widths[a] % 2) or (kind == "heads" and widths[a] % 3):
            kind = "dense"
        if kind in ("dense", "norm"):
            out = int(rng.choice([4, 6, 9])) if kind == "dense" else widths[a]
            size = (widths[a], out) if kind == "dense" else (out,)
            params[f"w{i}"] = jnp.asarray(rng.standard_normal(size), jnp.float32)
            if rng.random() < 0.5:
                params[f"bias{i}"] = jnp.asarray(
                    rng.standard_normal(out) * rng.integers(0, 2), jnp.float32
                )
        else:
            out = {
                "add": widths[a],
                "concat": widths[a] + widths[b],
                "split": widths[a] // 2,
                "heads": widths[a],
            }[kind]
        plan.append((kind, a, b, i))
        widths.append(out)
    params["head"] = jnp.asarray(rng.standard_normal((widths[-1], 2)), jnp.float32)
    acts = [(jax.nn.relu, jnp.tanh, jax.nn.gelu)[k] for k in rng.integers(0, 3, len(plan))]

    def network(p, x):
        values = [x]
        for (kind, a, b, i), act in zip(plan, acts, strict=True):
            v = values[a]
            if kind == "dense":
                v = act(v @ p[f"w{i}"] + p.get(f"bias{i}", jnp.zeros(1))[None])
            elif kind == "norm":
                v = v * p[f"w{i}"][None] + p.get(f"bias{i}", jnp.zeros(1))[None]
            elif kind == "add":
                v = v + values[b]
            elif kind == "concat":
                v = jnp.concatenate([v, values[b]], -1)
            elif kind == "split":
                left, right = jnp.split(v, 2, -1)
                v = left * jax.nn.sigmoid(right)
            else:
                v = v.reshape(v.shape[0], 3, -1)
                v = (v * jnp.array([1.0, 2.0, 3.0])[None, :, None]).reshape(v.shape[0], -1)
            values.append(v)
        return values[-1] @ p["head"]

    return params, network


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_compute_the_same(seed):
    params, network = random_network(seed)
    masks = masks_of(seed, params, 0.12 + 0.05 * (seed % 4))
    small = same(params, masks, network, (6,))
    again = sf.compact(small.params, small.masks, small.apply_fn, (6,))
    assert jax.tree.map(jnp.shape, again.params) == jax.tree.map(jnp.shape, small.params)


def test_a_bias_that_may_move_holds_its_unit():
    """Unit 0 has no input: relu leaves its bias of 0 where it is, gelu moves it."""
    params = {"w": jnp.ones((2, 2)), "bias": jnp.zeros(2), "v": jnp.ones((2, 1))}
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks["w"] = masks["w"].at[:, 0].set(False)
    for act, kept in ((jax.nn.relu, 1), (jax.nn.gelu, 2)):
        network = lambda p, x, act=act: act(x @ p["w"] + p["bias"][None]) @ p["v"]
        assert same(params, masks, network, (2,)).params["v"].shape == (kept, 1)
    params["bias"] = params["bias"].at[0].set(0.5)  # a constant, which the head feels
    assert same(params, masks, network, (2,)).params["v"].shape == (2, 1)
    masks["v"] = masks["v"].at[0].set(False)  # and now it does not
    assert same(params, masks, network, (2,)).params["v"].shape == (1, 1)


def test_a_bias_that_moves_later_holds_its_unit():
    """Behind a head of 0 the bias has no gradient yet, and behind relu not on every input."""
    params = {**draw(13, {"u": (4, 6), "w": (6, 3), "v": (3, 2)}), "bias": jnp.zeros(6)}
    masks = masks_of(13, params, 1.1)
    masks["u"] = masks["u"].at[:, 1].set(False)
    masks["w"] = masks["w"].at[1, 1:].set(False)
    start = {**params, "v": jnp.zeros((3, 2))}
    linear = lambda p, x: (x @ p["u"] + p["bias"][None]) @ p["w"] @ p["v"]
    assert same(start, masks, linear, (4,)).params["u"].shape == (4, 6)
    network = lambda p, x: jax.nn.relu((x @ p["u"] + p["bias"][None]) @ p["w"]) @ p["v"]
    for seed in range(6):
        mine = {**params, "w": draw(seed, {"w": (6, 3)})["w"]}
        assert sf.compact(mine, masks, network, (4,)).params["u"].shape == (4, 6)


def test_a_function_of_whole_numbers_has_no_gradient():
    params = draw(14, {"u": (4, 6), "v": (6, 2)})
    masks = masks_of(14, params, 1.1)
    masks["v"] = masks["v"].at[1].set(False)
    network = lambda p, x: jnp.argmax(jax.nn.relu(x @ p["u"]) @ p["v"], -1)
    small = sf.compact(params, masks, network, (4,))
    x = jax.random.normal(jax.random.key(0), (9, 4))
    want = network(sf.apply_masks(params, masks), x)
    assert small.apply_fn(small.params, x).tolist() == want.tolist()
    assert small.params["u"].shape == (4, 5)


def test_what_the_function_does_not_use_stays_whole():
    """An auxiliary head of training: another function may need its rows, and says so."""
    params = draw(15, {"u": (4, 6), "v": (6, 2), "aux": (6, 3)})
    masks = masks_of(15, params, 1.1)
    masks["v"] = masks["v"].at[1].set(False)

    def network(p, x, head="v"):
        return jax.nn.relu(x @ p["u"]) @ p[head]

    small = same(params, masks, network, (4,))
    assert shapes(small) == {"u": (4, 5), "v": (5, 2), "aux": (6, 3)}
    both = small.wrap(lambda p, x: (network(p, x).sum(), network(p, x, "aux").sum()))
    with pytest.raises(ValueError, match="fn must treat units as"):
        both(small.params, jnp.ones((1, 4)))


def test_units_of_one_network_are_not_those_of_another():
    params = draw(8, {"u": (3, 4), "v": (4, 2)})
    masks = masks_of(8, params, 1.1)
    masks["v"] = masks["v"].at[1].set(False)
    small = sf.compact(params, masks, lambda p, x: x @ p["u"] @ p["v"], (3,))
    with pytest.raises(ValueError, match="fn must treat units as"):
        small.wrap(lambda p: jnp.sort(p["u"], axis=1))(small.params)
    with pytest.raises(ValueError, match=r"params must be the small params.*'u' is \(3, 4\)"):
        small.apply_fn(params, jnp.ones((1, 3)))
    other = small.wrap(lambda p, scale: {"norm": scale * jnp.abs(p["u"]).sum(0)})
    assert other(small.params, 2.0)["norm"].shape == (3,)


def test_of_flow_mode_it_is_the_network_that_is_made_smaller():
    params = draw(8, {"u": (3, 4), "v": (4, 2)})
    masks = masks_of(8, params, 1.1)
    masks["v"] = masks["v"].at[1].set(False)

    def network(p, x):
        return jnp.tanh(x @ p["u"]) @ p["v"]

    small = sf.compact(params, masks, sf.flow_mode(network), (3,))
    x = jax.random.normal(jax.random.key(0), (5, 3))
    want = network(sf.apply_masks(params, masks), x)
    np.testing.assert_allclose(small.apply_fn(small.params, x), want, **NEAR)
    assert small.params["v"].shape == (3, 2)


def test_counts_and_masks_survive():
    params = {
        **draw(9, {"u": (3, 6), "v": (6, 2)}),
        "count": jnp.int32(3),
        "key": jax.random.key(0),
    }
    masks = {
        **masks_of(9, draw(9, {"u": (3, 6), "v": (6, 2)}), 0.3),
        "count": jnp.array(True),
        "key": jnp.array(True),
    }
    small = sf.compact(params, masks, lambda p, x: x @ p["u"] @ p["v"], (3,))
    assert int(small.params["count"]) == 3 and small.params["key"].dtype == params["key"].dtype
    for name in ("u", "v"):
        rows = itertools.product(*[range(n) for n in small.params[name].shape])
        assert all(bool(small.masks[name][i]) == bool(small.params[name][i] != 0) for i in rows)
