"""Token ids in every framework: an embedding, and a score by hand."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import synflow_jax as sf
from synflow_jax.linen import from_linen
from synflow_jax.nnx import from_nnx

pytestmark = [
    pytest.mark.usefixtures("flax_promotes"),
    # Tiny networks at these ratios lose outputs, which the check says.
    pytest.mark.filterwarnings("ignore:check of the network"),
]
VOCABULARY, WIDTH, CLASSES = 9, 5, 4
IDS = jax.ShapeDtypeStruct((4,), jnp.int32)


def reading(embed, dense):
    """Embed token ids, add them up, and give logits."""
    return lambda tokens: dense(jax.nn.relu(embed(tokens)).sum(1))


class LinenReader(nn.Module):
    """The reader in Linen."""

    @nn.compact
    def __call__(self, tokens):
        """Return the logits."""
        return reading(nn.Embed(VOCABULARY, WIDTH), nn.Dense(CLASSES))(tokens)


class NnxReader(nnx.Module):
    """The reader in NNX."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.dense = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, tokens):
        """Return the logits."""
        return reading(self.embed, self.dense)(tokens)


def linen_reader(table, kernel, bias):
    params = {"Embed_0": {"embedding": table}, "Dense_0": {"kernel": kernel, "bias": bias}}
    return *from_linen(LinenReader(), {"params": params}), lambda t: t["Dense_0"]["kernel"]


def nnx_reader(table, kernel, bias):
    params, apply_fn = from_nnx(NnxReader(nnx.Rngs(0)))
    pure = {"embed": {"embedding": table}, "dense": {"kernel": kernel, "bias": bias}}
    nnx.replace_by_pure_dict(params, pure)
    return params, apply_fn, lambda t: t["dense"]["kernel"]


def equinox_reader(table, kernel, bias):
    embed = eqx.nn.Embedding(weight=table)
    dense = eqx.nn.Linear(WIDTH, CLASSES, key=jax.random.key(0))
    dense = eqx.tree_at(lambda m: (m.weight, m.bias), dense, (kernel.T, bias))
    params, static = eqx.partition((embed, dense), eqx.is_inexact_array)

    def apply_fn(params, tokens):
        embed, dense = eqx.combine(params, static)
        return reading(jax.vmap(jax.vmap(embed)), jax.vmap(dense))(tokens)

    return params, apply_fn, lambda t: t[1].weight.T


def haiku_reader(table, kernel, bias):
    parts = lambda: (hk.Embed(VOCABULARY, WIDTH), hk.Linear(CLASSES))
    network = hk.without_apply_rng(hk.transform(lambda tokens: reading(*parts())(tokens)))
    params = {"embed": {"embeddings": table}, "linear": {"w": kernel, "b": bias}}
    return params, network.apply, lambda t: t["linear"]["w"]


READERS = [linen_reader, nnx_reader, equinox_reader, haiku_reader]


@pytest.mark.parametrize("reader", READERS)
def test_token_ids_in_every_framework(reader, x64):
    """Every token is of id 1: a kernel's score is its size times that row, by hand."""
    rng = np.random.default_rng(2)
    shapes = ((VOCABULARY, WIDTH), (WIDTH, CLASSES), (CLASSES,))
    table, kernel, bias = (jnp.asarray(rng.standard_normal(shape)) for shape in shapes)
    params, apply_fn, kernel_of = reader(table, kernel, bias)
    kernels_alone = lambda path, leaf: leaf.shape in (kernel.shape, kernel.T.shape)
    rest = {"rounds": 1, "prunable": kernels_alone}
    found = np.array(kernel_of(sf.synflow(params, apply_fn, IDS, 4.0, **rest)))
    scores = np.abs(np.asarray(kernel)) * np.abs(np.asarray(table[1]))[:, None]
    np.testing.assert_array_equal(found, scores >= np.sort(scores.ravel())[-5])
