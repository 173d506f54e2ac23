"""The page on scale: its blocks run, and what they leave lies where it should."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.support.meshes import same_layout
from tests.support.pages import ROOT, run_blocks


@pytest.fixture(scope="module")
def session():
    """The page's variables, after its blocks."""
    jax.config.update("jax_disable_most_optimizations", True)
    return run_blocks(ROOT / "docs" / "scale.md", 3)


def check(params, masks, density):
    leaves, kept = jax.tree.leaves(params), jax.tree.leaves(masks)
    for leaf, mask in zip(leaves, kept, strict=True):
        assert not np.asarray(leaf)[~np.asarray(mask)].any()
    kernels = [mask for mask in kept if mask.ndim == 2]
    assert sum(int(m.sum()) for m in kernels) == density * sum(m.size for m in kernels)


@pytest.mark.parametrize(
    ("name", "up", "down"),
    [("fsdp", ("devices", None), (None, "devices")), ("tensor", (None, "devices"), ("devices",))],
)
def test_linen_models_keep_their_layout_and_their_zeros(session, name, up, down):
    params, masks, state = session["trained"][name]
    check(params, masks, 0.1)
    for tree in (masks, state.masks, params, state.inner_state[0].mu, state.inner_state[0].nu):
        for i, spec in enumerate((up, down)):
            wanted = jax.sharding.NamedSharding(session["mesh"], PartitionSpec(*spec))
            assert tree[f"Dense_{i}"]["kernel"].sharding.is_equivalent_to(wanted, 2)


def test_both_ways_prune_the_same_weights(session):
    one, other = (session["trained"][name][1] for name in ("fsdp", "tensor"))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))


def test_an_nnx_model_keeps_its_layout_and_its_zeros(session):
    params = session["nnx"].state(session["twin"], session["nnx"].Param)
    check(params, session["kept"], 0.1)
    for layer in ("up", "down"):
        assert same_layout(params[layer]["kernel"], session["kept"][layer]["kernel"])
    moments = [leaf for leaf in jax.tree.leaves(session["optimizer"].opt_state) if leaf.ndim == 2]
    assert len(moments) == 6  # masks, first and second moments of two kernels
    assert all(leaf.addressable_shards[0].data.size == leaf.size // 8 for leaf in moments)


def test_explicit_axes(session):
    assert same_layout(session["pair"], session["shares"])
    assert sum(int(m.sum()) for m in session["shares"].values()) == 2048
