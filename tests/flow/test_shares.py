"""Shares of branches in flow mode: closed forms, cuts, loops, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax import measure, saliency
from tests.support.nets import all_true

pytestmark = pytest.mark.filterwarnings("ignore:check of the network")
WIDTH, HIDDEN = 6, 9
SHAPE = (WIDTH,)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def stack_params(blocks, branch=1.0):
    params = {"stem": normal(0, WIDTH, WIDTH), "head": normal(1, WIDTH, 3)}
    for k in range(blocks):
        up, down = normal(2 + k, WIDTH, HIDDEN), normal(50 + k, HIDDEN, WIDTH)
        params[f"b{k}"] = {"up": up * branch, "down": down * branch}
    return params


def stack(params, x):
    """A stem, residual blocks with a ReLU, and a head."""
    x = x @ params["stem"]
    for k in range(len(params) - 2):
        block = params[f"b{k}"]
        x = x + jax.nn.relu(x @ block["up"]) @ block["down"]
    return x @ params["head"]


def shares(params, network, shape=SHAPE):
    """The part of R that goes through each leaf."""
    scores = saliency.synflow_saliency(network, shape)(params, all_true(params))
    total = 2.0 ** float(sf.log2_flow(params, network, shape))
    return jax.tree.map(lambda score: float(score.sum()) / total, scores)


@pytest.mark.parametrize(
    ("blocks", "branch", "share"), [(1, 1.0, 0.5), (4, 1e-3, 0.5), (3, 1.0, 0.2)]
)
def test_each_branch_of_a_stack_carries_the_share_of_the_flow(blocks, branch, share):
    params = stack_params(blocks, branch)
    found = shares(params, sf.flow_mode(stack, branches=share))
    assert found["stem"] == pytest.approx(1, rel=1e-5)
    assert found["head"] == pytest.approx(1, rel=1e-5)
    for k in range(blocks):
        each = found[f"b{k}"]
        assert each == {name: pytest.approx(share, rel=1e-5) for name in each}


def test_without_shares_branches_carry_what_flows_through_them():
    params = stack_params(3, 1e-2)
    found = shares(params, sf.flow_mode(stack, branches=None))
    sizes = {name: np.abs(np.asarray(leaf, np.float64)) for name, leaf in params["b2"].items()}
    x = np.ones(WIDTH) @ np.abs(params["stem"])
    for k in range(3):
        block = jax.tree.map(lambda leaf: np.abs(np.asarray(leaf, np.float64)), params[f"b{k}"])
        before, x = x, x + x @ block["up"] @ block["down"]
    head = np.abs(params["head"]).sum(1)
    want = (before @ sizes["up"] @ sizes["down"]) @ head / (x @ head)
    assert found["b2"] == {name: pytest.approx(want, rel=1e-5) for name in sizes}
    assert want < 0.01


def test_the_flow_is_the_same_with_shares_and_without():
    params = stack_params(4)
    flows = [
        float(sf.log2_flow(params, sf.flow_mode(stack, branches=branches), SHAPE))
        for branches in (0.5, None, 0.1)
    ]
    assert flows == pytest.approx([float(sf.log2_flow(params, stack, SHAPE))] * 3, abs=1e-5)


def test_scores_of_one_block_by_hand():
    params = stack_params(1)
    got = saliency.synflow_saliency(sf.flow_mode(stack), SHAPE)(params, all_true(params))
    stem, head = (np.abs(np.asarray(params[name], np.float64)) for name in ("stem", "head"))
    up, down = (np.abs(np.asarray(params["b0"][name], np.float64)) for name in ("up", "down"))
    x = np.ones(WIDTH) @ stem
    hidden = x @ up
    branch = hidden @ down
    through = (x + branch) * head.sum(1) / 2  # half of the flow through each unit of the sum
    want_down = hidden[:, None] * down / branch * through
    want_up = x[:, None] * up / hidden * want_down.sum(1)
    want_stem = stem / x * (through + want_up.sum(1))
    np.testing.assert_allclose(got["b0"]["down"], want_down, rtol=2e-5)
    np.testing.assert_allclose(got["b0"]["up"], want_up, rtol=2e-5)
    np.testing.assert_allclose(got["stem"], want_stem, rtol=2e-5)


def test_parallel_branches_have_equal_shares():
    """As in x + attention(x) + mlp(x), or a sum of four kernels of one signal."""
    params = {f"w{k}": normal(k, WIDTH, WIDTH) * 10.0**-k for k in range(4)}

    def kernels(p, x):
        return ((x @ p["w0"] + x @ p["w1"]) + x @ p["w2"]) + x @ p["w3"]

    found = shares(params, sf.flow_mode(kernels))
    assert found == {name: pytest.approx(1 / 4, rel=1e-5) for name in params}

    def parallel(p, x):
        x = x @ p["w0"]
        for _ in range(2):
            x = x + x @ p["w1"] + jax.nn.relu(x @ p["w2"])
        return x @ p["w3"]

    found = shares(params, sf.flow_mode(parallel))
    assert found["w1"] == pytest.approx(2 / 3, rel=1e-5)  # a third in each of two blocks
    assert found["w2"] == pytest.approx(2 / 3, rel=1e-5)


def test_signals_that_are_joined_have_the_same_mean():
    """Of two kernels, one 2^40 times smaller, neither is lost."""
    params = {
        "a": normal(0, WIDTH, 4),
        "b": normal(1, WIDTH, 8) * 2.0**-40,
        "self": jnp.eye(4),
        "mix": jnp.abs(normal(2, 12, WIDTH)),
        "out": normal(3, WIDTH, 2),
    }

    def network(p, x):
        u, v = jax.nn.relu(x @ p["a"]), jax.nn.relu(x @ p["b"])
        return jnp.concatenate([u + u @ p["self"], v], -1) @ p["mix"] @ p["out"]

    wrapped = sf.flow_mode(network)
    flows = {k: float(v) for k, v in measure.layer_flow(params, wrapped, SHAPE).items()}
    whole = flows["out"]
    sizes = {name: np.abs(np.asarray(leaf, np.float64)) for name, leaf in params.items()}
    a, b = (np.ones(WIDTH) @ sizes[name] * times for name, times in (("a", 2), ("b", 1)))
    mean = (a.sum() + b.sum()) / 12
    joined = np.concatenate([a * mean / a.mean(), b * mean / b.mean()])
    slope = sizes["mix"] @ sizes["out"].sum(1)
    assert whole == pytest.approx(joined @ slope, rel=1e-5)
    assert flows["a"] == pytest.approx(joined[:4] @ slope[:4], rel=1e-5)
    assert flows["b"] == pytest.approx(joined[4:] @ slope[4:], rel=1e-5)
    assert float(measure.conservation_gap(params, wrapped, SHAPE)) < 1e-5
    plain = measure.layer_flow(params, sf.flow_mode(network, branches=None), SHAPE)
    assert float(plain["b"] / plain["out"]) < 2.0**-30


def joined_inputs(p, x):
    """Two floating inputs and a lookup, which are joined with the same mean: 4, 8 and 2 units."""
    signals = [jax.nn.relu(x["u"] @ p["a"]), jnp.tanh(x["v"] @ p["b"]), p["table"][x["token"]]]
    return jnp.concatenate(signals, -1) @ p["mix"] @ p["out"]


JOINED = {
    "u": jax.ShapeDtypeStruct((WIDTH,), jnp.float32),
    "v": jax.ShapeDtypeStruct((3,), jnp.float32),
    "token": jax.ShapeDtypeStruct((), jnp.int32),
}


def joined_params():
    sizes = {"a": (WIDTH, 4), "b": (3, 8), "table": (5, 2), "mix": (14, WIDTH), "out": (WIDTH, 2)}
    return {name: jnp.abs(normal(n, *size)) for n, (name, size) in enumerate(sizes.items())}


@pytest.mark.parametrize("traced", [False, True])
def test_inputs_have_equal_shares_and_scores_by_hand(traced):
    params = joined_params()
    flow = saliency.synflow_saliency(sf.flow_mode(joined_inputs), JOINED)
    score = jax.jit(flow) if traced else flow
    got = score(params, all_true(params))
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    signals = [
        np.ones(WIDTH) @ weights["a"],
        np.tanh(np.ones(3) @ weights["b"]),
        weights["table"][1],  # the example of ones
    ]
    mean = sum(signal.sum() for signal in signals) / 14
    signals = [signal * mean / signal.mean() for signal in signals]
    slopes = np.split(weights["mix"] @ weights["out"].sum(1), [4, 12])
    flows = [signal @ slope for signal, slope in zip(signals, slopes, strict=True)]
    whole = sum(flows)
    assert max(flows) > 2 * min(flows)  # without shares they differ
    factors = [whole / 3 / flow for flow in flows]
    through = [s * slope * c for s, slope, c in zip(signals, slopes, factors, strict=True)]
    want = {
        "a": through[0] * weights["a"] / weights["a"].sum(0),
        "b": through[1] * weights["b"] / weights["b"].sum(0),
        "mix": np.concatenate([s * c for s, c in zip(signals, factors, strict=True)])[:, None]
        * weights["mix"]
        * weights["out"].sum(1),
    }
    for name, scores in want.items():
        np.testing.assert_allclose(got[name], scores, rtol=1e-5)
    np.testing.assert_allclose(got["table"][1], through[2], rtol=1e-5)
    assert float(got["out"].sum()) == pytest.approx(whole, rel=1e-5)


def test_outputs_that_carry_no_flow_stay_beside_equal_inputs():
    params = joined_params()

    def network(p, x):
        y = joined_inputs(p, x)
        return {"y": y, "best": jnp.argmax(y, -1), "cache": None}

    x = {"u": jnp.ones((1, WIDTH)), "v": jnp.ones((1, 3)), "token": jnp.ones(1, jnp.int32)}
    found = jax.jit(sf.flow_mode(network))(params, x)
    assert found["cache"] is None
    assert found["best"].dtype == jnp.int32
    alone = sf.flow_mode(joined_inputs)(params, x)
    np.testing.assert_allclose(found["y"], alone, rtol=1e-6)


def test_without_shares_inputs_carry_what_flows_from_them():
    params = joined_params()
    wrapped = sf.flow_mode(joined_inputs, branches=None)
    flows = {k: float(v) for k, v in measure.layer_flow(params, wrapped, JOINED).items()}
    slope = np.asarray(params["mix"] @ params["out"].sum(1), np.float64)
    want = np.ones(WIDTH) @ np.asarray(params["a"], np.float64) @ slope[:4]
    assert flows["a"] == pytest.approx(want, rel=1e-5)


def test_inputs_of_a_deep_loop_have_equal_shares_beyond_the_range_of_floats():
    """Sixty layers raise the flow to some 2^200; the second input is 10^6 times smaller."""
    params = {
        "a": normal(0, WIDTH, WIDTH),
        "b": normal(1, 3, WIDTH) * 1e-6,
        "layers": normal(2, 60, WIDTH, WIDTH) * 3,
        "out": normal(3, WIDTH, 2),
    }

    def network(p, x):
        h = x["u"] @ p["a"] + jax.nn.gelu(x["v"] @ p["b"]) * x["v"].sum(-1, keepdims=True)
        h = h + jax.nn.silu(x["u"] @ p["a"])
        h, _ = jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), h, p["layers"])
        return h @ p["out"]

    shape = {name: JOINED[name] for name in "uv"}
    wrapped = sf.flow_mode(network)
    flows = {k: float(v) for k, v in measure.layer_flow(params, wrapped, shape).items()}
    assert float(sf.log2_flow(params, wrapped, shape)) > 200
    assert float(measure.conservation_gap(params, wrapped, shape)) < 1e-5
    assert flows["a"] == pytest.approx(flows["out"] / 2, rel=1e-5)
    # Half of v's flow passes its kernel, the other half the factor beside it.
    assert flows["b"] == pytest.approx(flows["out"] / 4, rel=1e-5)


def test_a_small_input_keeps_weights_at_ratios_at_which_it_had_none():
    params = {
        "image": normal(0, 32, 16),
        "time": normal(1, 2, 16) * 1e-3,
        "out": normal(2, 16, 4),
        "late": normal(3, 16, 16),
    }

    def network(p, x):
        h = jax.nn.relu(x["image"] @ p["image"]) @ p["late"]
        return jax.nn.relu(h * (x["time"] @ p["time"]) + h) @ p["out"]

    shape = {
        "image": jax.ShapeDtypeStruct((32,), jnp.float32),
        "time": jax.ShapeDtypeStruct((2,), jnp.float32),
    }

    def kept(branches):
        masks = sf.synflow(params, sf.flow_mode(network, branches=branches), shape, 20)
        return {name: int(mask.sum()) for name, mask in masks.items()}

    assert kept(None)["time"] == 0
    assert kept(0.5)["time"] > 0
    assert min(kept(0.5).values()) > 0


def test_a_long_skip_has_the_other_share_of_all_that_it_goes_around():
    params = {name: normal(k, WIDTH, WIDTH) for k, name in enumerate(("in", "deep", "up", "out"))}

    def u_shaped(p, x):
        early = jax.nn.relu(x @ p["in"])
        late = jax.nn.relu(early @ p["deep"]) @ p["up"]
        return (early + late) @ p["out"]

    found = shares(params, sf.flow_mode(u_shaped, branches=0.25))
    want = {"in": 1, "deep": 0.25, "up": 0.25, "out": 1}
    assert found == {name: pytest.approx(share, rel=1e-5) for name, share in want.items()}


def test_an_entry_that_one_term_lacks_is_carried_by_the_other():
    params = {"skip": jnp.eye(2), "branch": jnp.array([[1.0, 0.0], [1.0, 0.0]])}

    def network(p, x):
        return x @ p["skip"] + x @ p["branch"]

    found = saliency.synflow_saliency(sf.flow_mode(network), (2,))(params, all_true(params))
    # Unit 0 is 1 + 2 = 3, half of it for each; unit 1 is 1, of the skip alone.
    np.testing.assert_allclose(found["skip"], [[1.5, 0], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(found["branch"], [[0.75, 0], [0.75, 0]], rtol=1e-6)


def test_a_loop_over_stacked_blocks_has_the_shares_of_the_unrolled_network():
    blocks = 4
    params = stack_params(blocks)
    looped = {
        "stem": params["stem"],
        "head": params["head"],
        "blocks": jax.tree.map(lambda *a: jnp.stack(a), *[params[f"b{k}"] for k in range(blocks)]),
    }

    def loop(p, x):
        def block(x, p):
            return x + jax.nn.relu(x @ p["up"]) @ p["down"], None

        return jax.lax.scan(block, x @ p["stem"], p["blocks"])[0] @ p["head"]

    def scores(p, network):
        return saliency.synflow_saliency(sf.flow_mode(network), SHAPE)(p, all_true(p))

    got, want = scores(looped, loop), scores(params, stack)
    for name in ("up", "down"):
        each = jnp.stack([want[f"b{k}"][name] for k in range(blocks)])
        np.testing.assert_allclose(got["blocks"][name], each, rtol=1e-5)
    np.testing.assert_allclose(got["stem"], want["stem"], rtol=1e-5)


@pytest.mark.parametrize("from_zeros", [False, True])
def test_states_of_a_loop_have_equal_shares(from_zeros):
    """A sum over time in a loop: what enters at each of T steps carries 1/T."""
    steps, params = 5, {"w": normal(0, WIDTH, WIDTH), "v": normal(1, WIDTH, 2)}

    def summed(p, x):
        def step(state, row):
            return state + row @ p["w"], None

        rows = jnp.moveaxis(x, 1, 0)
        if from_zeros:
            return jax.lax.scan(step, jnp.zeros((x.shape[0], WIDTH)), rows)[0] @ p["v"]
        return jax.lax.scan(step, rows[0] @ p["w"], rows[1:])[0] @ p["v"]

    def flow_from(step):
        def grown(scale):
            x = jnp.ones((1, steps, WIDTH)).at[:, step].multiply(scale)
            return sf.flow_mode(summed)(jax.tree.map(jnp.abs, params), x).sum()

        return float(jax.grad(grown)(1.0))

    found = np.array([flow_from(step) for step in range(steps)])
    np.testing.assert_allclose(found / found.sum(), np.full(steps, 1 / steps), rtol=1e-5)


def test_shares_pass_through_a_conditional():
    params = stack_params(2)

    def chosen(p, x):
        x = x @ p["stem"]
        for k in range(2):
            block = p[f"b{k}"]

            def through(x, block=block):
                return x + jax.nn.relu(x @ block["up"]) @ block["down"]

            x = jax.lax.cond(jnp.bool_(True), through, lambda x: x, x)
        return x @ p["head"]

    plain = shares(params, sf.flow_mode(chosen, branches=None))
    found = shares(params, sf.flow_mode(chosen))
    assert found["b0"]["up"] == pytest.approx(1 / 2, rel=1e-5)
    assert found["b1"]["down"] == pytest.approx(1 / 2, rel=1e-5)
    assert plain["b0"]["up"] != pytest.approx(1 / 2, rel=1e-2)


def test_shortcuts_with_a_kernel_have_the_share_of_a_branch():
    """Three stages of two blocks, the first of each with a kernel in its shortcut."""
    params = {"in": normal(0, WIDTH, WIDTH), "out": normal(1, WIDTH, 2)}
    for stage in range(3):
        for name in ("proj", "first", "second"):
            params[f"{name}{stage}"] = normal(hash_of(name, stage), WIDTH, WIDTH)

    def network(p, x):
        x = x @ p["in"]
        for stage in range(3):
            x = x @ p[f"proj{stage}"] + jax.nn.relu(x @ p[f"first{stage}"])
            x = x + jax.nn.relu(x @ p[f"second{stage}"])
        return x @ p["out"]

    found = shares(params, sf.flow_mode(network))
    for stage in range(3):
        for name in ("proj", "first", "second"):
            assert found[f"{name}{stage}"] == pytest.approx(1 / 2, rel=1e-5)


def hash_of(name, stage):
    return 10 * stage + len(name)


SQUARE = {name: normal(k, WIDTH, WIDTH) for k, name in enumerate(("in", "f", "g", "out"))}


def looped_branch(p, x):
    """A skip around a loop of plain layers."""
    x = x @ p["in"]
    kernels = jnp.stack([p["f"], p["g"]])
    return (x + jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, kernels)[0]) @ p["out"]


def looped_blocks(p, x):
    """A skip around a loop of residual blocks."""
    x = x @ p["in"]
    kernels = jnp.stack([p["f"], p["g"]])
    return (x + jax.lax.scan(lambda h, w: (h + jax.nn.relu(h @ w), None), x, kernels)[0]) @ p["out"]


def conditional_branch(p, x):
    x = x @ p["in"]
    ways = [lambda x: jax.nn.relu(x @ p["f"]), lambda x: jax.nn.relu(x @ p["f"])]
    y = jax.lax.cond(jnp.bool_(True), *ways, x) @ p["g"]
    return (x + y) @ p["out"]


def mapped_branch(p, x):
    x = x @ p["in"]
    y = jax.lax.map(lambda row: jax.nn.relu(row @ p["f"]) @ p["g"], x)
    return (x + y * 0.01) @ p["out"]


def updated(p, x):
    """A branch that is added at places."""
    x = x @ p["in"]
    y = 0.001 * jax.nn.relu(x @ p["f"]) @ p["g"]
    return x.at[:, jnp.arange(WIDTH)].add(y) @ p["out"]


def chosen_branch(p, x):
    x = x @ p["in"]
    y = jnp.where(jnp.arange(WIDTH)[None] > 1, x @ p["f"], jax.nn.relu(x @ p["f"])) @ p["g"]
    return (x + jnp.maximum(y, y @ jnp.eye(WIDTH))) @ p["out"]


@pytest.mark.parametrize("share", [0.5, 0.2])
@pytest.mark.parametrize(
    "network",
    [looped_branch, looped_blocks, conditional_branch, mapped_branch, updated, chosen_branch],
)
def test_a_branch_is_known_through_loops_and_choices(network, share):
    found = shares(SQUARE, sf.flow_mode(network, branches=share))
    inner = share if network is looped_blocks else 1
    assert found["f"] == pytest.approx(share * inner, rel=1e-5)
    assert found["g"] == pytest.approx(share * inner, rel=1e-5)
    assert found["in"] == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_two_branches_of_one_skip_have_the_same_share(share):
    def network(p, x):
        x = x @ p["in"]
        return (x + jax.nn.relu(x @ p["f"]) + jax.nn.relu(x @ p["g"])) @ p["out"]

    found = shares(SQUARE, sf.flow_mode(network, branches=share))
    want = share / (1 + share)  # of a skip that weighs 1 - s and two branches that weigh s
    assert found["f"] == pytest.approx(want, rel=1e-5)
    assert found["g"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("layers", [10, 60])
def test_a_shortcut_around_many_layers_keeps_its_share(layers):
    """Beside a chain that makes the signal 2^300 times larger, in float32."""
    params = {**SQUARE, "g": SQUARE["g"] * 10}

    def network(p, x):
        x = x @ p["in"]
        deep = jax.lax.scan(lambda h, _: (jax.nn.relu(h @ p["g"]), None), x, length=layers)[0]
        return (deep + x @ p["f"]) @ p["out"]

    assert shares_scaled(params, network)["f"] == pytest.approx(0.5, rel=1e-4)


def shares_scaled(params, network):
    """The part of R that goes through each leaf, where R is beyond the dtype."""
    found = saliency.synflow_saliency(sf.flow_mode(network), SHAPE)
    flow, scores = found.flow_and_scores(params, all_true(params))
    return jax.tree.map(lambda score: float(score.sum() / flow.mantissa), scores)


def test_a_signal_added_to_itself_is_no_branch():
    """Rotary positions, or x plus x moved: no kernel lies between them, and flow decides."""

    def network(p, x):
        y = x @ p["w"]
        return (y * 3.0 + jnp.roll(y, 1, -1) * 0.5) @ p["v"]

    params = {"w": normal(0, WIDTH, WIDTH), "v": normal(1, WIDTH, 2)}
    even, plain = (
        saliency.synflow_saliency(sf.flow_mode(network, branches=one), SHAPE)(
            params, all_true(params)
        )
        for one in (0.5, None)
    )
    np.testing.assert_allclose(even["w"], plain["w"], rtol=1e-6)


def test_flow_is_conserved_and_no_score_is_negative():
    params = stack_params(3, 0.1)

    def network(p, x):
        x = jnp.tanh(x @ p["stem"])
        for k in range(3):
            normed = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True))
            x = x + jax.nn.gelu(normed @ p[f"b{k}"]["up"]) @ p[f"b{k}"]["down"]
        return {"a": x @ p["head"], "b": x}

    assert float(measure.conservation_gap(params, sf.flow_mode(network), SHAPE)) < 1e-5
    found = saliency.synflow_saliency(sf.flow_mode(network), SHAPE)(params, all_true(params))
    assert min(float(score.min()) for score in jax.tree.leaves(found)) >= 0


def test_extreme_terms_keep_their_shares():
    """Of branches 2^60 times smaller and larger than the skip, in float32."""
    params = stack_params(2)
    params["b0"] = jax.tree.map(lambda leaf: leaf * 2.0**-30, params["b0"])
    params["b1"] = jax.tree.map(lambda leaf: leaf * 2.0**30, params["b1"])
    found = shares(params, sf.flow_mode(stack))
    assert found["b0"]["up"] == pytest.approx(1 / 2, rel=1e-4)
    assert found["b1"]["up"] == pytest.approx(1 / 2, rel=1e-4)


@pytest.mark.parametrize("branches", ["equal", 0, 1.0, True, -0.5, float("nan")])
def test_what_is_no_share_is_refused(branches):
    with pytest.raises(ValueError, match="branches must be the share"):
        sf.flow_mode(stack, branches=branches)


def test_equal_arguments_make_equal_networks():
    assert sf.flow_mode(stack) == sf.flow_mode(stack, branches=0.5)
    assert sf.flow_mode(stack) != sf.flow_mode(stack, branches=None)
