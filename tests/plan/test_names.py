"""Names decide what is pruned where no network is known: those that other libraries give."""

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf

KERNELS = [
    "dense/kernel",
    "layers/0/weight",
    "linear/w",
    "conv/~/w",
    "patch_embed/kernel",
    "patch_embed/proj/weight",
    "patch_embedding/conv/kernel",
    "attention/query/kernel",
    "position_wise_ffn/kernel",
    "embeddings/patch_embeddings/projection/kernel",
    "lstm/recurrent_kernel",
]
OTHERS = [
    "dense/bias",
    "LayerNorm_0/scale",
    "batch_norm/~/offset",
    "norm/weight",
    "ln_f/weight",
    "layers/norm1/w",
    "gamma",
    "moving_mean",
    "Embed_0/embedding",
    "embed/embeddings",
    "token_embedder/input_embedding",
    "wte/weight",
    "embed_tokens/weight",
    "global_pos_embed/weight",
    "pos_embed",
    "pos_embeddings",
    "embeddings/position_embeddings",
    "cls_token",
    "reg_tokens",
    "decoder/rel_bias",
    "batch_stats/bn/mean",
]


@pytest.mark.parametrize("path", KERNELS)
def test_kernels(path):
    assert sf.plan.is_prunable(path, jnp.ones((2, 3)))
    assert not sf.plan.is_prunable(path, jnp.ones(3))
    assert not sf.plan.is_prunable(path, jnp.ones((2, 3), int))


@pytest.mark.parametrize("path", OTHERS)
def test_other_leaves(path):
    assert not sf.plan.is_prunable(path, jnp.ones((2, 3)))


def test_magnitude_goes_by_names_and_synflow_by_the_trace():
    params = {"a": jnp.arange(12.0).reshape(3, 4), "b": jnp.arange(20.0).reshape(4, 5)}

    def network(p, x):
        return jax.nn.relu(x @ p["a"]) @ p["b"]

    by_name = sf.magnitude(params, 2)
    assert bool(by_name["b"].all())  # as a bias is called
    assert int(by_name["a"].sum()) == 6
    table = sf.report(params, by_name)
    assert [(one.path, one.shape) for one in table.left] == [("b", (4, 5))]
    assert "left whole: by its name" in str(table)
    masks = sf.synflow(params, network, (3,), 2)
    assert int(masks["a"].sum() + masks["b"].sum()) == 16
    assert sf.report(params, masks, network, (3,)).weights == 32
    # What was pruned is listed, whatever names say.
    assert sf.report(params, masks).weights == 32


def test_matching_narrows_what_the_trace_shows():
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 5)), "norm/weight": jnp.ones((5, 2))}

    def network(p, x):
        return x @ p["a"] @ p["b"] @ p["norm/weight"]

    masks = sf.synflow(params, network, (3,), 2, prunable=sf.matching(but=["a"]))
    assert bool(masks["a"].all())
    assert int(masks["b"].sum() + masks["norm/weight"].sum()) == 15
