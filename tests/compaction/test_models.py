"""Narrow networks in Flax: what is left computes the same in float64, and so does its gradient."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from benchmarks.deep.deep_networks import DenseNet, UNet
from benchmarks.shared.networks import xla_convolution
from experiments.models import vgg, vgg_imagenet
from experiments.models.conv import Conv
from experiments.models.decoder import Decoder
from experiments.models.fc import FC
from experiments.models.resnet import Bottleneck, ResNet
from tests.support.modern import ViT

pytestmark = [
    # Whole channels at high compression: shortcuts and outputs go.
    pytest.mark.filterwarnings("ignore:check of the network"),
    pytest.mark.usefixtures("flax_promotes"),
    pytest.mark.filterwarnings("ignore::synflow_jax.UncertifiedWarning"),  # few rounds
]
TEXT = jax.ShapeDtypeStruct((5,), jnp.int32)
NETWORKS = {
    "fc": (FC(3, 12, 3), (4, 4, 1), 20.0),
    "conv": (Conv(3, 8), (6, 6, 2), 20.0),
    "vgg": (vgg.VGG(3), (16, 16, 3), 20.0),
    "vgg-imagenet": (vgg_imagenet.VGGImageNet(3, 11, 3, 12), (32, 32, 3), 30.0),
    "resnet": (ResNet(3, (1, 1), (6, 8), True), (8, 8, 3), 20.0),
    "resnet-imagenet": (ResNet(3, (1, 1), (4, 6), True, Bottleneck, True), (16, 16, 3), 20.0),
    "decoder": (Decoder(7, 8, 2, 12, 1), TEXT, 6.0),
    "vit": (ViT(), (8, 8, 3), 10.0),
    "densenet": (DenseNet((1, 1), 3), (16, 16, 3), 30.0),
    "unet": (UNet(3, 1), (8, 8, 3), 10.0),
}
PATCHES = {"conv", "vgg"}  # convolutions as matrix products


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Make VGG a network of a few layers, quick to compile."""
    monkeypatch.setitem(vgg.PLANS, 11, (6, "M", 8, "M", 8))
    monkeypatch.setitem(vgg_imagenet.STAGES, 11, (1, 1, 1, 1, 1))


def drawn(name):
    model, shape, _ = NETWORKS[name]
    tokens = shape is TEXT
    ones = jnp.ones((1, *(shape.shape if tokens else shape)), jnp.int32 if tokens else float)
    return model, jax.jit(model.init)(jax.random.key(1), ones)


def inputs(shape, dtype):
    rng = np.random.default_rng(0)
    if shape is TEXT:
        return jnp.asarray(rng.integers(0, 7, (2, *shape.shape)), jnp.int32)
    return jnp.asarray(rng.standard_normal((2, *shape)), dtype)


def prunable(path, leaf):
    return path.startswith("params") and sf.plan.is_prunable(path, leaf)


def run(network, x):
    """Jit the gradient of some sum of the outputs, and the outputs."""

    def value(params):
        y = network(params, x)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)), y

    return jax.jit(jax.grad(value, has_aux=True))


def pruned(name, dtype):
    """Prune by SynFlow; the network, its variables, masks and shape."""
    model, variables = drawn(name)
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)
    _, shape, rho = NETWORKS[name]
    apply_fn = lambda variables, x: model.apply(variables, x)
    flow = sf.flow_mode(apply_fn)
    masks = sf.synflow(variables, flow, shape, rho, rounds=3, prunable=prunable)
    return apply_fn, variables, masks, shape


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_left_is_the_masked_network(name):
    wide = name != "decoder"  # whose angles are float32
    way = contextlib.nullcontext() if name in PATCHES else xla_convolution()
    with jax.enable_x64(wide), way:
        dtype = jnp.float64 if wide else jnp.float32
        apply_fn, variables, masks, shape = pruned(name, dtype)
        small = sf.compact(variables, masks, apply_fn, shape)
        x = inputs(shape, dtype)
        grad, want = run(apply_fn, x)(sf.apply_masks(variables, masks))
        mine, got = run(small.apply_fn, x)(small.params)
        near = 1e-11 if wide else 1e-4  # some hundred terms in another order, a dozen layers
        np.testing.assert_allclose(got, want, rtol=near, atol=near * float(jnp.abs(want).max()))
        pairs = zip(*map(jax.tree.leaves, (small.take(grad), mine)), strict=True)
        for a, b in pairs:
            top = float(jnp.abs(a).max(initial=0)) + 1e-3
            np.testing.assert_allclose(b, a, rtol=near, atol=near * top)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(t)) for t in (variables, small.params)]
    assert small.lost == () and sizes[1] < sizes[0]
    assert small.multiply_adds[1] < 0.9 * small.multiply_adds[0]


def test_the_units_of_a_chain_are_those_on_a_path():
    """Boolean matrix products say which units of fc some input reaches, and reach some output."""
    apply_fn, variables, masks, shape = pruned("fc", jnp.float32)
    small = sf.compact(variables, masks, apply_fn, shape).params["params"]
    kernels = [np.asarray(masks["params"][f"Dense_{k}"]["kernel"]) for k in range(4)]
    forward = list(
        functools.reduce(
            lambda reached, k: [*reached, reached[-1] @ k], kernels, [np.ones(16, bool)]
        )
    )
    back = [np.ones(3, bool)]
    for kernel in reversed(kernels):
        back.insert(0, kernel @ back[0])
    alive = [int((a & b).sum()) for a, b in zip(forward, back, strict=True)]
    alive[0], alive[-1] = 16, 3  # inputs and outputs are of the outside
    assert max(alive[1:-1]) < 12
    for k in range(4):
        assert small[f"Dense_{k}"]["kernel"].shape == (alive[k], alive[k + 1])
        assert small[f"Dense_{k}"]["bias"].shape == (alive[k + 1],)
