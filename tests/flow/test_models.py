"""Modern networks in flow mode: the flow of every cut is R, and pruning spares every layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from synflow_jax import linen
from tests.support.modern import IMAGE, NETWORKS, TEXT

pytestmark = pytest.mark.usefixtures("flax_promotes")
# Sums of some thousand float32 products, each rounded at 6e-8.
RTOL = 1e-5
KINDS = {"source", "elementwise", "normaliser", "centring", "product", "softmax"}
# Layers whose sum is R together: each tuple is one cut. All else is a branch beside a skip.
CUTS = {
    "vit": [("patches/kernel",), ("head/kernel",)],
    "gpt": [],
    "llama": [("head/kernel",), ("Embed_0/embedding",)],
    "llama_scanned": [("head/kernel",), ("Embed_0/embedding",)],
    "mixer": [("Conv_0/kernel",), ("Dense_0/kernel",)],
    "convnext": [("Conv_0/kernel",), ("Dense_0/kernel",)],
    "resnet": [("Conv_0/kernel",), ("Dense_0/kernel",)],
    "moe": [("Dense_0/kernel",), ("head/kernel",)],
    "lora": [("base/kernel", "lora_a/kernel"), ("base/kernel", "lora_b/kernel"), ("head/kernel",)],
    "rezero": [("Dense_0/kernel",), ("Dense_1/kernel",)],
    "gru": [("Dense_0/kernel",)],
}
# Groups of layers that carry the same flow: those of one branch, one after another.
BRANCHES = {
    "vit": [
        ("Mlp_0/Dense_0/kernel", "Mlp_0/Dense_1/kernel"),
        tuple(f"MultiHeadDotProductAttention_0/{n}/kernel" for n in ("query", "key", "value")),
    ],
    "gpt": [("qkv/kernel", "out/kernel"), ("mlp/Dense_0/kernel", "mlp/Dense_1/kernel")],
    "llama": [
        tuple(f"block/{n}/kernel" for n in "qkv"),
        ("block/gate/kernel", "block/up/kernel"),
    ],
    "llama_scanned": [tuple(f"layers/{n}/kernel" for n in "qkv")],
    "mixer": [("Mlp_0/Dense_0/kernel", "Mlp_0/Dense_1/kernel")],
    "convnext": [("Conv_1/kernel", "Mlp_0/Dense_1/kernel", "gamma")],
    "resnet": [("a0/kernel", "b0/kernel"), ("a1/kernel", "b1/kernel")],
    "moe": [("router/kernel", "up", "down")],
    "lora": [("lora_a/kernel", "lora_b/kernel")],
    "rezero": [("alpha0", "Mlp_0/Dense_0/kernel", "Mlp_0/Dense_1/kernel")],
    "gru": [],
}
FOUND = {
    "vit": KINDS,
    "gpt": KINDS,
    "llama": KINDS - {"source"},
    "llama_scanned": KINDS - {"source"},
    "mixer": KINDS - {"product", "softmax"},
    "convnext": KINDS - {"product", "softmax"},
    "resnet": {"source"},
    "moe": KINDS | {"routing"},
    "lora": {"source", "elementwise"},
    "rezero": {"source", "elementwise"},
    "gru": {"source", "elementwise", "product"},
}


def ones(shape):
    return jnp.ones((1, *getattr(shape, "shape", shape)), getattr(shape, "dtype", jnp.float32))


@functools.cache
def made(name):
    """Params, the plain network, the input's shape, and flow and scores in one unit."""
    model, shape = NETWORKS[name]
    variables = jax.jit(model.init)(jax.random.key(0), ones(shape))
    params, apply_fn = linen.from_linen(model, variables)
    flow, scores = jax.jit(lambda s, p, m: s.flow_and_scores(p, m))(
        sf.synflow_saliency(sf.flow_mode(apply_fn), shape),
        params,
        jax.tree.map(lambda p: jnp.ones(p.shape, bool), params),
    )
    pairs = jax.tree_util.tree_flatten_with_path(scores)[0]
    named = {jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in pairs}
    return params, apply_fn, shape, float(flow.mantissa), named


@pytest.mark.parametrize("name", NETWORKS)
def test_every_cut_carries_the_flow(name):
    _, _, _, flow, scores = made(name)
    assert 0 < flow < np.inf
    assert all(float(s.min()) >= 0 for s in scores.values())
    total = {path: float(s.sum()) for path, s in scores.items()}
    for cut in CUTS[name]:
        assert sum(total[path] for path in cut) == pytest.approx(flow, rel=RTOL)
    for branch in BRANCHES[name]:
        np.testing.assert_allclose([total[path] for path in branch], total[branch[0]], rtol=RTOL)
        assert total[branch[0]] > 0
    if name == "gpt":  # a tied embedding is two layers
        assert total["wte/embedding"] == pytest.approx(2 * flow, rel=RTOL)


@pytest.mark.parametrize("name", [n for n, (_, shape) in NETWORKS.items() if shape is not TEXT])
def test_the_flow_is_of_degree_one_in_the_input(name):
    params, apply_fn, shape, _, _ = made(name)
    flow = sf.flow_mode(apply_fn)
    opened = jax.tree.map(jnp.abs, flow.prepare(params))

    @jax.jit
    def euler(apply_fn, params, x):
        total = lambda x: sum(jnp.sum(y) for y in jax.tree.leaves(apply_fn(params, x)))
        value, slope = jax.value_and_grad(total)(x)
        return value, jnp.sum(slope * x)

    for x in (ones(shape), 3.0 * ones(shape)):
        value, degree = euler(flow, opened, x)
        assert float(degree) == pytest.approx(float(value), rel=RTOL)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_report_names_what_is_replaced(name):
    params, apply_fn, shape, _, _ = made(name)
    found = sf.flow.homogeneity_report(params, apply_fn, shape)
    assert {row.breaks for row in found.rows} == FOUND[name]
    assert not found.unrecognised
    if name != "gru":  # its cell is Flax's own
        assert any("modern.py" in row.where for row in found.rows)
    closed = {
        "convnext": ("gamma",),
        "resnet": ("BatchNorm_2/scale", "BatchNorm_4/scale"),
        "lora": ("lora_b/kernel",),
        "rezero": ("alpha0", "alpha1"),
    }
    assert found.closed == closed.get(name, ())


@pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning")  # five rounds are few
@pytest.mark.parametrize("name", ["vit", "gpt", "llama", "convnext", "resnet", "moe", "lora"])
def test_no_layer_is_emptied(name):
    params, apply_fn, shape, _, _ = made(name)
    masks = sf.synflow(params, sf.flow_mode(apply_fn), shape, 10.0, rounds=5)
    density = {row.layer: row.density for row in sf.report(params, masks).rows}
    assert min(density.values()) > 0, density
    for path in density:
        for other in ("query", "key", "/q/", "/k/"):
            if other in path:
                value = path.replace(other, "/v/" if "/" in other else "value")
                assert density[value] / 4 <= density[path] <= 4 * density[value]


def test_a_scanned_stack_is_its_layers():
    params, apply_fn, shape, flow, scores = made("llama_scanned")
    stacked = sf.measure.stacked_layers(params, apply_fn, shape)
    assert set(stacked) == {path for path in scores if path.startswith("layers/")}
    assert set(stacked.values()) == {3}
    by_layer = scores["layers/q/kernel"].sum((1, 2)) / flow
    assert bool((by_layer > 0).all() & (by_layer < 1 / 3).all())


def test_without_flow_mode_a_transformer_is_not_conserved():
    params, apply_fn, _, _, _ = made("vit")
    assert float(sf.measure.conservation_gap(params, apply_fn, IMAGE)) > 0.1
