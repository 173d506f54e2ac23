"""Networks without their dead units: the same function on smaller arrays."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import synflow_jax as sf
from synflow_jax import linen

# A sum of a few dozen float32 products, in another order.
NEAR = {"rtol": 1e-5, "atol": 1e-6}


def draw(seed, shapes):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(s), jnp.float32) for name, s in shapes.items()}


def masks_of(seed, params, density):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.random(leaf.shape) < density if leaf.ndim > 1 else leaf == leaf)
        for name, leaf in params.items()
    }


def same(params, masks, network, shape, batch=3):
    """Check the function and its gradient on a batch, and give the compact network."""
    small = sf.compact(params, masks, network, shape)
    pruned = sf.apply_masks(params, masks)
    x = jax.random.normal(jax.random.key(7), (batch, *shape))
    want, got = network(pruned, x), small.apply_fn(small.params, x)
    np.testing.assert_allclose(got, want, **NEAR)
    ones = jax.random.normal(jax.random.key(8), want.shape)
    grad = jax.grad(lambda p: jnp.sum(network(p, x) * ones))(pruned)
    mine = jax.grad(lambda p: jnp.sum(small.apply_fn(p, x) * ones))(small.params)
    pairs = zip(*map(jax.tree.leaves, (small.take(grad), mine)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(
            a, b, rtol=1e-4, atol=1e-5 * (1 + float(jnp.abs(a).max(initial=0)))
        )
    return small


def shapes(small):
    return {name: leaf.shape for name, leaf in small.params.items()}


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
        prunable = lambda path, leaf: path.startswith("params") and sf.is_prunable(path, leaf)

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


def test_rows_that_are_picked_for_each_position_stay():
    def network(p, x):
        picked = jnp.take_along_axis(p["table"], jnp.arange(6)[:, None] % 3, 1)
        return (jax.nn.relu(x @ p["u"]) * picked[:, 0][None]) @ p["v"]

    params = draw(16, {"u": (4, 6), "table": (6, 3), "v": (6, 2)})
    masks = masks_of(16, params, 1.1)
    masks["v"] = masks["v"].at[1].set(False)
    assert same(params, masks, network, (4,)).params["table"].shape == (6, 3)


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


def test_bad_input_is_refused():
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="masks must have the tree structure"):
        sf.compact(params, {"v": jnp.ones((2, 2), bool)}, lambda p, x: x @ p["w"], (2,))
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(
            lambda p: (
                sf.compact(p, {"w": jnp.ones((2, 2), bool)}, lambda p, x: x @ p["w"], (2,)).params
            )
        )(params)


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
