"""Flow mode, part by part: the value and the gradient that it promises, and what it conserves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import synflow_jax as sf
from tests.support.nets import run_flow

pytestmark = pytest.mark.usefixtures("flax_promotes")
# Sums of some hundred float32 products, each rounded at 6e-8.
RTOL = 1e-5


X = jnp.array([[-2.0, -0.5, 0.0, 1e-9, 0.7, 3.0]])
phi = jax.scipy.stats.norm.cdf
GATES = {
    "gelu": (jax.nn.gelu, None),
    "gelu_exact": (lambda x: jax.nn.gelu(x, approximate=False), phi),
    "silu": (jax.nn.silu, jax.nn.sigmoid),
    "swish_by_hand": (lambda x: x / (1 + jnp.exp(-x)), jax.nn.sigmoid),
    "tanh": (jnp.tanh, lambda x: jnp.where(x == 0, 1.0, jnp.tanh(x) / jnp.where(x == 0, 1, x))),
    "relu": (jax.nn.relu, lambda x: jnp.where(x > 0, 1.0, 0.0)),
    "leaky_relu": (jax.nn.leaky_relu, lambda x: jnp.where(x >= 0, 1.0, 0.01)),
    "squared_relu": (lambda x: jnp.square(jax.nn.relu(x)), lambda x: jnp.maximum(x, 0.0)),
    "relu6": (jax.nn.relu6, lambda x: jnp.where(x >= 0, 1.0, 0.0)),
    "elu": (jax.nn.elu, None),
    "mish": (jax.nn.mish, None),
    "hard_swish": (jax.nn.hard_swish, lambda x: jax.nn.relu6(x + 3) / 6),
    "half": (lambda x: 0.5 * x, lambda x: jnp.full_like(x, 0.5)),
}


@pytest.mark.parametrize("name", GATES)
def test_an_activation_is_its_frozen_gate(name):
    fn, gate = GATES[name]
    value, slope = run_flow(fn, X)
    # float32 of 1 + erf and the like, near 0.
    np.testing.assert_allclose(value, fn(X), rtol=1e-4, atol=1e-6)
    if gate is not None:
        np.testing.assert_allclose(slope, gate(X), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(slope * X, value, rtol=RTOL, atol=1e-12)  # Euler, entry by entry
    limit = jax.grad(fn)(0.0) if gate is None else gate(jnp.zeros(()))
    assert float(run_flow(fn, jnp.zeros((1, 1)))[1][0, 0]) == pytest.approx(float(limit), abs=1e-6)


def test_a_gate_without_zero_is_finite():
    value, slope = run_flow(jax.nn.softplus, jnp.array([[0.0, 0.5, 2.0]]))
    np.testing.assert_allclose(value[0, 1:], jax.nn.softplus(jnp.array([0.5, 2.0])), rtol=RTOL)
    assert bool(jnp.isfinite(slope).all())
    huge = run_flow(lambda x: jnp.exp(x), jnp.array([[1000.0]]))
    assert float(huge[0][0, 0]) == pytest.approx(1 / 1001, rel=1e-5)  # as a decay


Y = jnp.asarray(np.random.default_rng(0).uniform(0.1, 2.0, (3, 8)), jnp.float32)
SCALE = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2.0, 8), jnp.float32)


def norm_apply(kind, library):
    """A norm over the last axis, with scale SCALE and bias ½, as a function of (params, x)."""
    more = {"slow": {"use_fast_variance": False}, "group": {"num_groups": 1}}.get(kind, {})
    name = {"rms": "RMSNorm", "group": "GroupNorm"}.get(kind, "LayerNorm")
    if library == "linen":
        module = getattr(nn, name)(**more)
        params = module.init(jax.random.key(0), Y)["params"]
        params = {k: SCALE if k == "scale" else jnp.full(8, 0.5) for k in params}
        return params, lambda p, x: module.apply({"params": p}, x)
    graph, state = nnx.split(getattr(nnx, name)(8, rngs=nnx.Rngs(0), **more))
    named = lambda path, p: SCALE if "scale" in str(path) else jnp.full(8, 0.5)
    state = jax.tree_util.tree_map_with_path(named, state)
    return state, lambda p, x: nnx.merge(graph, p)(x)


@pytest.mark.parametrize("library", ["linen", "nnx"])
@pytest.mark.parametrize("kind", ["layer", "rms", "slow", "group"])
def test_a_norm_is_a_frozen_factor_without_centring(kind, library):
    params, apply_fn = norm_apply(kind, library)
    factor = SCALE / jnp.sqrt(jnp.mean(jnp.square(Y), -1, keepdims=True) + 1e-6)
    value, slope = run_flow(apply_fn, Y, params)
    np.testing.assert_allclose(value, Y * factor, rtol=RTOL)
    np.testing.assert_allclose(slope, factor, rtol=RTOL)


def by_hand(x):
    """Centre and scale."""
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)


@pytest.mark.parametrize("fn", [jax.nn.standardize, by_hand])
def test_a_norm_by_hand_is_one_too(fn):
    value, _ = run_flow(fn, Y)
    # standardize adds 1e-5 to the variance.
    np.testing.assert_allclose(value, Y / jnp.sqrt(jnp.mean(Y**2, -1, keepdims=True)), rtol=3e-5)


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_batch_norm_with_trained_statistics_is_its_scale(library):
    mean, var = jnp.full(8, 3.0), jnp.linspace(0.5, 2.0, 8)
    if library == "linen":
        module = nn.BatchNorm(use_running_average=True)
        params = {
            "params": {"scale": SCALE, "bias": jnp.ones(8)},
            "batch_stats": {"mean": mean, "var": var},
        }
        apply_fn = lambda p, x: module.apply(p, x)
    else:
        graph, params = nnx.split(nnx.BatchNorm(8, use_running_average=True, rngs=nnx.Rngs(0)))
        values = {"scale": SCALE, "bias": jnp.ones(8), "mean": mean, "var": var}
        named = lambda path, p: next(v for k, v in values.items() if k in str(path))
        params = jax.tree_util.tree_map_with_path(named, params)
        apply_fn = lambda p, x: nnx.merge(graph, p)(x)
    value, slope = run_flow(apply_fn, Y, params)
    np.testing.assert_allclose(slope[0], SCALE / jnp.sqrt(var + 1e-5), rtol=RTOL)
    np.testing.assert_allclose(value, Y * slope, rtol=RTOL)


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_weight_norm_freezes_the_length(library):
    if library == "linen":
        module = nn.WeightNorm(nn.Dense(5, use_bias=False))
        params = module.init(jax.random.key(0), Y)
        apply_fn = lambda p, x: module.apply(p, x)
    else:
        graph, params = nnx.split(
            nnx.WeightNorm(nnx.Linear(8, 5, use_bias=False, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
        )
        apply_fn = lambda p, x: nnx.merge(graph, p)(x)
    flows = sf.measure.layer_flow(params, sf.flow_mode(apply_fn), (8,))
    flow = 2 ** float(sf.log2_flow(params, sf.flow_mode(apply_fn), (8,)))
    assert len(flows) == 2
    np.testing.assert_allclose(list(flows.values()), flow, rtol=RTOL)


def test_sources_are_dropped_or_kept():
    params = {"b": jnp.array([-1.0, 2.0])}
    x = jnp.array([[3.0, 4.0]])
    add = lambda p, x: x + p["b"][None]
    np.testing.assert_array_equal(run_flow(add, x, params)[0], x)
    np.testing.assert_array_equal(run_flow(add, x, params, sources=True)[0], [[4.0, 6.0]])
    np.testing.assert_array_equal(run_flow(lambda x: x - jnp.array([[1.0, 2.0]]), x)[0], x)
    np.testing.assert_array_equal(run_flow(lambda x: jnp.where(x > 3.5, x, 7.0), x)[0][0, 1], 4.0)
    mask = jnp.array([[True, False]])
    np.testing.assert_array_equal(run_flow(lambda x: jnp.where(mask, x, -1e9), x)[0], [[3.0, 0.0]])


def test_coefficients_are_absolute():
    x = jnp.array([[3.0, 4.0]])
    np.testing.assert_array_equal(run_flow(lambda x: -2.0 * x, x)[0], 2 * x)
    np.testing.assert_array_equal(run_flow(lambda x: x[:, :1] - x[:, 1:], x)[0], [[7.0]])
    table = jnp.array([[-1.0, 0.5]])
    np.testing.assert_array_equal(run_flow(lambda x: x * table, x)[0], [[3.0, 2.0]])


@pytest.mark.parametrize(
    "gate", [lambda g: g, jax.nn.silu, jax.nn.sigmoid], ids=["id", "silu", "sig"]
)
def test_a_product_shares_its_flow_by_halves(gate):
    rng = np.random.default_rng(0)
    shapes = {"down": (6, 2), "gate": (4, 6), "up": (4, 6)}
    params = {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in shapes.items()}
    positive = jax.tree.map(jnp.abs, params)
    network = lambda p, x: (gate(x @ p["gate"]) * (x @ p["up"])) @ p["down"]
    flow = sf.flow_mode(network)
    x = jnp.ones((1, 4))
    np.testing.assert_allclose(flow(positive, x), network(positive, x), rtol=RTOL)
    total = float(network(positive, x).sum())
    flows = sf.measure.layer_flow(params, flow, (4,))
    shares = [float(flows[name]) / total for name in ("down", "gate", "up")]
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.5], rtol=RTOL)
    assert float(sf.measure.conservation_gap(params, flow, (4,))) < RTOL


def test_softmax_is_linear_and_its_rows_sum_to_one():
    value, _ = run_flow(jax.nn.softmax, Y)
    np.testing.assert_allclose(value, Y / Y.sum(-1, keepdims=True), rtol=RTOL)
    mask = jnp.tril(jnp.ones((8, 8), bool))[:3]
    for masked in (
        lambda x: jax.nn.softmax(jnp.where(mask, x, -1e9)),
        lambda x: jax.nn.softmax(x + jnp.where(mask, 0.0, -1e9)),
    ):
        kept = Y * mask
        np.testing.assert_allclose(
            run_flow(masked, Y)[0], kept / kept.sum(-1, keepdims=True), rtol=RTOL
        )
    dead = run_flow(jax.nn.softmax, jnp.zeros((1, 4)))
    assert bool(jnp.isfinite(dead[0]).all() & jnp.isfinite(dead[1]).all())


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_attention_gives_q_k_and_v_a_third_each(library):
    if library == "linen":
        module = nn.MultiHeadDotProductAttention(2)
        params = module.init(jax.random.key(0), jnp.ones((1, 4, 8)))["params"]
        apply_fn = lambda p, x: module.apply({"params": p}, x)
    else:
        made = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
        graph, params, rest = nnx.split(made, nnx.Param, ...)
        apply_fn = lambda p, x: nnx.merge(graph, p, rest)(x)
    flow = sf.flow_mode(apply_fn)
    flows = sf.measure.layer_flow(params, flow, (4, 8))
    total = float(flows["out/kernel"])
    assert total == pytest.approx(2 ** float(sf.log2_flow(params, flow, (4, 8))), rel=RTOL)
    for name in ("query", "key", "value"):
        assert float(flows[f"{name}/kernel"]) / total == pytest.approx(1 / 3, rel=RTOL)
    assert float(sf.measure.conservation_gap(params, flow, (4, 8))) < RTOL


def test_routing_is_uniform():
    one_hot = lambda x: jax.nn.one_hot(jnp.argmax(x, -1), 8) * x.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        run_flow(one_hot, Y)[0], Y.sum(-1, keepdims=True) / 8 + 0 * Y, rtol=RTOL
    )
    best = lambda x: jax.nn.one_hot(jax.lax.top_k(x, 2)[1], 8).sum(1) * x
    np.testing.assert_allclose(run_flow(best, Y)[0], Y / 4, rtol=RTOL)


def total_flow(network, params, shape):
    """The sum of the outputs in flow mode, on ones."""
    return 2.0 ** float(sf.log2_flow(params, sf.flow_mode(network), shape))


def test_stack_unstack_and_tile_move_flow():
    params = {"w": jnp.array([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]]), "v": jnp.full((6, 1), -2.0)}

    def network(p, x):
        h = x @ p["w"]
        first, second = jnp.unstack(jnp.stack([h, 2 * h], axis=1), axis=1)
        return jnp.tile(first + second, (1, 2)) @ p["v"]

    h = np.abs(np.asarray(params["w"])).sum(0)
    want = (np.tile(3 * h, 2) * 2).sum()
    np.testing.assert_allclose(total_flow(network, params, (2,)), want, rtol=RTOL)
    flows = sf.measure.layer_flow(params, sf.flow_mode(network), (2,))
    np.testing.assert_allclose([flows["w"], flows["v"]], [want, want], rtol=RTOL)
    assert float(sf.measure.conservation_gap(params, sf.flow_mode(network), (2,))) < 1e-6


def test_a_class_token_that_is_stacked_becomes_the_mean_of_tokens():
    params = {"w": jnp.array([[1.0, -2.0], [3.0, 4.0]]), "cls": jnp.array([[100.0, 100.0]])}

    def network(p, x):
        h = x @ p["w"]
        return jnp.stack([p["cls"], h, 3 * h], axis=1)

    np.testing.assert_allclose(total_flow(network, params, (2,)), 10 + 30 + 20, rtol=RTOL)


def test_parts_of_complex_numbers_carry_the_flow_of_their_modulus():
    params = {"w": jnp.array([[1.0, -2.0], [3.0, 4.0]])}

    def network(p, x):
        h = x @ p["w"]
        z = jnp.conj(jax.lax.complex(h, -h)) * (3 + 4j)  # a modulus of |h| + |h|, times 5
        return {"real": z.real, "imag": z.imag, "modulus": jnp.abs(z)}

    np.testing.assert_allclose(total_flow(network, params, (2,)), 3 * 10 * 2 * 5, rtol=RTOL)
    assert float(sf.measure.conservation_gap(params, sf.flow_mode(network), (2,))) < 1e-6


def test_parts_of_complex_weights_carry_the_flow_of_their_modulus():
    params = {"w": jnp.array([[3 + 4j, 1j], [-2.0, 0]])}

    def network(p, x):
        return x @ p["w"].real + x @ p["w"].imag, x @ jnp.abs(p["w"])

    np.testing.assert_allclose(total_flow(network, params, (2,)), 3 * (5 + 1 + 2), rtol=RTOL)
    scores = sf.synflow_saliency(sf.flow_mode(network), (2,))(params, {"w": jnp.ones((2, 2), bool)})
    np.testing.assert_allclose(scores["w"], 3 * np.array([[5, 1], [2, 0]]), rtol=RTOL)


TRANSFORMS = {
    "fft": (lambda z: jnp.fft.fft(z), 8 * 8),
    "ifft": (lambda z: jnp.fft.ifft(z), 8),
    "fft2": (lambda z: jnp.fft.fft2(z.reshape(1, 2, 4)), 8 * 8),
    "ifft2": (lambda z: jnp.fft.ifft2(z.reshape(1, 2, 4)), 8),
    "rfft": (lambda z: jnp.fft.rfft(z.real), 5 * 8),
    "rfft2": (lambda z: jnp.fft.rfft2(z.real.reshape(1, 2, 4)), 2 * 3 * 8),
    # Frequencies 0 and N/2 count once, the others twice, over N, at each of N places.
    "irfft of even length": (lambda z: jnp.fft.irfft(z, 14), 1 + 2 * 6 + 1),
    "irfft of odd length": (lambda z: jnp.fft.irfft(z, 15), 1 + 2 * 7),
    "irfft2": (lambda z: jnp.fft.irfft2(z.reshape(1, 2, 4)), 2 * (1 + 2 * 2 + 1)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_fourier_transform_is_the_matrix_of_its_moduli(name):
    transform, wanted = TRANSFORMS[name]

    def network(p, x):
        return jnp.abs(transform(jax.lax.complex(x * p["w"], jnp.zeros_like(x))))

    params = {"w": jnp.array([[1.0]])}
    np.testing.assert_allclose(total_flow(network, params, (8,)), wanted, rtol=RTOL)


@pytest.mark.parametrize("kind", ["fft", "rfft"])
def test_moduli_of_a_transform_are_those_of_its_columns(kind):
    """The entries of the matrix are what the transform makes of unit vectors, by NumPy."""
    size = 6
    columns = getattr(np.fft, kind)(np.eye(size))
    weights = np.arange(1.0, size + 1)

    def network(p, x):
        signal = x * p["w"]
        return jnp.abs(getattr(jnp.fft, kind)(signal))

    got = total_flow(network, {"w": jnp.asarray(weights, jnp.float32)}, (size,))
    np.testing.assert_allclose(got, (weights @ np.abs(columns)).sum(), rtol=RTOL)


def test_the_report_names_transforms():
    table = sf.flow.homogeneity_report({}, lambda p, x: jnp.abs(jnp.fft.rfft(x)), (8,))
    assert [(row.breaks, row.operation, row.count) for row in table.rows] == [
        ("transform", "fft", 1)
    ]
    assert table.rows[0].stands_in == "the moduli of its matrix"


N = 6


def weights(**shapes):
    rng = np.random.default_rng(3)
    return {k: jnp.asarray(rng.standard_normal(s), jnp.float32) for k, s in shapes.items()}


def by_hand(params, *names):
    """R of a chain in NumPy."""
    x = np.ones(params[names[0]].shape[0])
    for name in names:
        x = x @ np.abs(np.asarray(params[name], np.float64))
    return float(x.sum())


def flows(params, fn):
    found = sf.measure.layer_flow(params, sf.flow_mode(fn), (4,))
    return {path: float(value) for path, value in found.items()}


def codebook(p, x):
    h = x @ p["up"]
    nearest = jnp.argmin(jnp.square(h[:, None] - p["code"]).sum(-1), -1)
    quantized = p["code"][nearest]
    return (h + jax.lax.stop_gradient(quantized - h)) @ p["down"]


def test_the_flow_of_a_straight_through_codebook_is_that_of_the_signal():
    params = weights(up=(4, N), code=(9, N), down=(N, 3))
    want = by_hand(params, "up", "down")
    assert flows(params, codebook) == pytest.approx({"up": want, "down": want, "code": 0}, rel=RTOL)
    assert float(sf.measure.conservation_gap(params, sf.flow_mode(codebook), (4,))) < 1e-5


def test_a_detached_signal_is_a_factor_where_it_multiplies():
    def gated(p, x):
        h = x @ p["up"]
        return (h * jax.lax.stop_gradient(jax.nn.sigmoid(h))) @ p["down"]

    params = weights(up=(4, N), down=(N, 3))
    h = np.abs(np.asarray(params["up"], np.float64)).sum(0)
    want = float((h / (1 + np.exp(-h))) @ np.abs(np.asarray(params["down"])).sum(1))
    assert flows(params, gated) == pytest.approx({"up": want, "down": want}, rel=RTOL)


@pytest.mark.parametrize("lookup", ["gather", "slice", "vmap"])
def test_an_expert_that_is_looked_up_by_a_computed_index_counts_as_the_mean_of_all(lookup):
    def routed(p, x):
        best = jnp.argmax(x @ p["router"], -1)
        if lookup == "slice":
            return x @ jax.lax.dynamic_index_in_dim(p["experts"], best[0], 0, False)
        if lookup == "vmap":
            return jax.vmap(lambda row, at: row @ p["experts"][at])(x, best)
        return jnp.einsum("bi,bio->bo", x, p["experts"][best])

    params = weights(router=(4, 5), experts=(5, 4, 3))
    experts = np.abs(np.asarray(params["experts"], np.float64))
    scores = sf.saliency.synflow_saliency(sf.flow_mode(routed), (4,))(
        params, jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    )
    np.testing.assert_allclose(scores["experts"], experts / 5, rtol=RTOL)


def test_tokens_that_are_chosen_by_a_computed_index_count_as_the_mean_of_all():
    def first_of_sorted(p, x):
        h = (x[:, :, None] * p["up"]).reshape(1, 4, N)
        order = jnp.argsort(h.sum(-1), -1)
        return jnp.take_along_axis(h, order[..., None], 1)[:, 0] @ p["down"]

    params = weights(up=(4, N), down=(N, 3))
    up = np.abs(np.asarray(params["up"], np.float64)).mean(0)
    want = float(up @ np.abs(np.asarray(params["down"])).sum(1))
    assert flows(params, first_of_sorted) == pytest.approx({"up": want, "down": want}, rel=RTOL)


def test_logsumexp_conserves_flow():
    def network(p, x):
        return jax.nn.logsumexp(x @ p["up"], -1, keepdims=True) @ p["down"][:1]

    params = weights(up=(4, N), down=(N, 3))
    assert float(sf.measure.conservation_gap(params, sf.flow_mode(network), (4,))) < 1e-5
    found = flows(params, network)
    assert found["up"] == pytest.approx(found["down"], rel=RTOL)


def test_exp_of_a_flow_is_a_decay_since_its_sign_is_lost():
    decays = jnp.tril(jnp.ones((N, N), bool))

    def segments(p, x):
        total = jnp.cumsum(-jax.nn.softplus(x @ p["up"]), -1)
        apart = total[..., :, None] - total[..., None, :]
        return jnp.exp(jnp.where(decays, apart, -jnp.inf)).sum(-1) @ p["down"]

    params = weights(up=(4, N), down=(N, 3))
    h = np.log1p(np.exp(np.abs(np.asarray(params["up"], np.float64)).sum(0)))
    total = np.cumsum(h)
    apart = np.tril(1 / (1 + total[:, None] + total[None])).sum(1)
    want = float(apart @ np.abs(np.asarray(params["down"])).sum(1))
    assert flows(params, segments) == pytest.approx({"up": want, "down": want}, rel=RTOL)


def test_a_state_decays_over_time_whatever_its_length():
    def states(p, x):
        decay = jnp.exp(-jax.nn.softplus(x @ p["gate"])[..., None] * jnp.exp(p["log"])[None, None])
        moved = (x @ p["up"])[..., None]

        def step(h, now):
            h = now[0] * h + now[1]
            return h, h.sum(-1)

        inputs = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (decay, moved))
        return jax.lax.scan(step, jnp.zeros((1, N, 5)), inputs)[1] @ p["down"]

    params = weights(gate=(4, N), log=(N, 5), up=(4, N), down=(N, 3)) | {
        "log": jnp.log(jnp.arange(1.0, 1 + 5 * N)).reshape(N, 5)
    }
    short, long = (
        float(sf.log2_flow(params, sf.flow_mode(states), (length, 4))) for length in (8, 64)
    )
    assert long - short < np.log2(64 / 8) + 1  # eight times as many tokens, no growth
    saliency = sf.synflow_saliency(sf.flow_mode(states), (8, 4))
    scores = saliency(params, jax.tree.map(lambda p: jnp.ones(p.shape, bool), params))
    assert all(bool((scores[name] > 0).all()) for name in ("gate", "up", "down"))
    assert float(sf.measure.conservation_gap(params, sf.flow_mode(states), (8, 4))) < 1e-5


@pytest.mark.parametrize("how", [jnp.add, jnp.subtract, jnp.maximum])
def test_a_signal_that_is_repeated_by_what_is_dropped_counts_as_often(how):
    def queries(p, x):
        return how((x @ p["up"])[:, None], p["position"]).sum(1) @ p["down"]

    params = weights(up=(4, N), position=(5, N), down=(N, 3))
    want = 5 * by_hand(params, "up", "down")
    assert flows(params, queries) == pytest.approx(
        {"up": want, "down": want, "position": 0}, rel=RTOL
    )
