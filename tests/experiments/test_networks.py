"""The Linen networks compute what the reference's do, and what they say they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax import lax

from experiments.models import MODELS, layers
from experiments.models.resnet import Bottleneck, ResNet
from experiments.models.vgg_imagenet import VGGImageNet
from tests.support.networks import NETWORKS, VGG11_LAYERS, conv, dense, flatten, max_pool, norm

pytestmark = pytest.mark.usefixtures("flax_promotes", "x64")
STATISTICS = ("mean", "var")


@pytest.fixture(autouse=True)
def _xla_convolves(monkeypatch):
    """Compile quickly; the convolution by patches is tested against this one."""
    monkeypatch.setattr(layers, "quick_conv", lambda: lax.conv_general_dilated)


def fc_names():
    return {(str(2 * i + 1),): (f"Dense_{i}",) for i in range(6)}


def conv_names():
    return {("0",): ("Conv_0",), ("2",): ("Conv_1",), ("5",): ("Dense_0",)}


def vgg_names():
    layers = [name for name in VGG11_LAYERS if name != "pool"]
    pairs = [("conv", "Conv"), ("bn", "BatchNorm")]
    found = {("layers", n, a): (f"{b}_{i}",) for i, n in enumerate(layers) for a, b in pairs}
    return found | {("fc",): ("Dense_0",)}


def resnet_names():
    found = {("conv",): ("Conv_0",), ("bn",): ("BatchNorm_0",), ("fc",): ("linear",)}
    for k in range(9):
        last = 2 if k in (3, 6) else 1
        names = {("conv1",): "Conv_0", ("bn1",): "BatchNorm_0", ("conv2",): "Conv_1"}
        names |= {("bn2",): f"BatchNorm_{last}"}
        if last == 2:
            names |= {("shortcut", "0"): "Conv_2", ("shortcut", "1"): "BatchNorm_1"}
        found |= {("blocks", str(k), *a): (f"Block_{k}", b) for a, b in names.items()}
    return found


NAMES = {
    "fc_digits": ("fc", fc_names()),
    "conv_digits": ("conv", conv_names()),
    "resnet20": ("resnet20", resnet_names()),
    "vgg11_bn": ("vgg11", vgg_names()),
}


def shapes_of(model, shape):
    ones = jax.ShapeDtypeStruct((1, *shape), jnp.float64)
    return traverse_util.flatten_dict(jax.eval_shape(model.init, jax.random.key(0), ones))


@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
def test_logits_are_those_of_the_reference(net):
    name, names = NAMES[net.name]
    model, found = MODELS[name](10), {}
    for path, leaf in traverse_util.flatten_dict(net.params(np.float64)).items():
        kind = "batch_stats" if path[-1] in STATISTICS else "params"
        found[(kind, *names[path[:-1]], path[-1])] = leaf
    expected = {path: leaf.shape for path, leaf in shapes_of(model, net.shape).items()}
    assert {path: leaf.shape for path, leaf in found.items()} == expected
    height, width, channels = net.shape
    x = np.random.default_rng(7).standard_normal((4, channels, height, width)).astype(np.float32)
    images = jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float64)
    logits = jax.jit(model.apply)(traverse_util.unflatten_dict(found), images)
    # Twenty layers of float64 rounding on logits up to 100.
    np.testing.assert_allclose(logits, net.answers["logits"], atol=1e-11)


def drawn(model, shape):
    """Draw variables that are all different: no statistic is at its start."""
    rng, found = np.random.default_rng(0), {}
    for path, leaf in shapes_of(model, shape).items():
        values = rng.standard_normal(leaf.shape)
        found[path] = jnp.asarray(1 + values**2 if path[-1] == "var" else values)
    return traverse_util.unflatten_dict(found), jnp.asarray(rng.standard_normal((2, *shape)))


def merged(variables):
    """Merge the statistics of each BatchNorm into the dict of its scale and bias."""
    both = [traverse_util.flatten_dict(tree) for tree in variables.values()]
    return traverse_util.unflatten_dict({path: x for tree in both for path, x in tree.items()})


def bottleneck(params, x, stride):
    y = jax.nn.relu(norm(params["BatchNorm_0"], conv(params["Conv_0"], x)))
    y = jax.nn.relu(norm(params["BatchNorm_1"], conv(params["Conv_1"], y, stride)))
    y = conv(params["Conv_2"], y)
    if "Conv_3" in params:
        x = norm(params["BatchNorm_2"], conv(params["Conv_3"], x, stride))
    return jax.nn.relu(norm(params["BatchNorm_3" if "Conv_3" in params else "BatchNorm_2"], y) + x)


def deep_resnet(params, x):
    x = jax.nn.relu(norm(params["BatchNorm_0"], conv(params["Conv_0"], x, 2)))
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pads)
    for i, stride in enumerate((1, 1, 2)):
        x = bottleneck(params[f"Bottleneck_{i}"], x, stride)
    return dense(params["linear"], x.mean((1, 2)))


def test_the_deep_resnet_is_that_of_imagenet():
    model = ResNet(5, (2, 1), (3, 4), True, Bottleneck, imagenet=True)
    variables, x = drawn(model, (18, 21, 3))
    found = jax.jit(model.apply)(variables, x)
    # Ten layers of float64 rounding, relative to the largest logit.
    expected = jax.jit(deep_resnet)(merged(variables), x)
    np.testing.assert_allclose(found, expected, atol=1e-12 * float(jnp.abs(expected).max()))


def tall_vgg(params, x):
    for i in range(8):
        x = conv(params[f"Conv_{i}"], x)
        x = jax.nn.relu(norm(params[f"BatchNorm_{i}"], x) if "BatchNorm_0" in params else x)
        x = max_pool(x) if i in (0, 1, 3, 5, 7) else x
    x = flatten(x)
    for i in range(2):
        x = jax.nn.relu(dense(params[f"Dense_{i}"], x))
    return dense(params["Dense_2"], x)


@pytest.mark.parametrize(("size", "batch_norm"), [(64, True), (66, False)])
def test_the_vgg_of_imagenet_pools_five_times(size, batch_norm):
    model = VGGImageNet(5, 11, width=1, hidden=6, batch_norm=batch_norm)
    variables, x = drawn(model, (size, 32, 3))
    found = jax.jit(model.apply)(variables, x)
    # Eleven layers of float64 rounding, relative to the largest logit.
    expected = jax.jit(tall_vgg)(merged(variables), x)
    assert jnp.std(expected[:, 0]) > 0  # the images are told apart
    np.testing.assert_allclose(found, expected, atol=1e-12 * float(jnp.abs(expected).max()))


def test_dropout_acts_in_training_alone():
    model = VGGImageNet(5, 11, width=1, hidden=400)
    variables, x = drawn(model, (32, 32, 3))
    last = {"kernel": jnp.eye(400, 5), "bias": jnp.zeros(5)}
    still = {"kernel": jnp.zeros((400, 400)), "bias": jnp.ones(400)}
    variables["params"] |= {"Dense_1": still, "Dense_2": last}
    train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}))
    runs = jax.lax.map(train, jax.random.split(jax.random.key(0), 100))
    # Behind hidden units of 1, a logit is twice 1 where its unit is kept, or 0: 1,000 throws.
    assert set(np.unique(runs)) == {0.0, 2.0}
    assert abs(float(runs.mean()) - 1) < 0.15
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, x), jnp.ones((2, 5)))
