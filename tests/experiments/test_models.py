from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.models import MODELS
from experiments.models.layers import patch_conv
from experiments.models.resnet import ResNet
from synflow_jax import linen

NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def variables(name, shape, classes=10):
    model = MODELS[name](classes)
    return model, model.init(jax.random.key(0), jnp.ones((1, *shape)))


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (3, 1, 0), (2, 3, 2)],
)
def test_patch_conv_is_lax_conv_with_its_gradients(size, stride, padding):
    keys = jax.random.split(jax.random.key(size + stride), 2)
    x = jax.random.normal(keys[0], (2, 9, 8, 3))
    kernel = jax.random.normal(keys[1], (size, size, 3, 5))

    def loss(convolve, x, kernel):
        pads = ((padding, padding), (padding, padding))
        y = convolve(x, kernel, (stride, stride), pads, dimension_numbers=NHWC)
        return jnp.sum(jnp.sin(y)), y

    results = [
        jax.jit(jax.value_and_grad(partial(loss, c), (0, 1), has_aux=True))(x, kernel)
        for c in (patch_conv, lax.conv_general_dilated)
    ]
    # Sums of up to 27 products in another order, then a sum over 800 values.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *results)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"padding": "SAME"}, "SAME"),
        ({"rhs_dilation": (2, 2)}, "rhs_dilation"),
        ({"lhs_dilation": (2, 2)}, "lhs_dilation"),
        ({"feature_group_count": 2}, "feature_group_count"),
    ],
)
def test_patch_conv_refuses_what_it_cannot_do(changes, word):
    settings = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), **changes}
    with pytest.raises(ValueError, match=word):
        patch_conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)), **settings)


def test_resnet18_shortcuts_stand_where_the_shape_changes():
    shapes = jax.eval_shape(lambda: variables("resnet18", (32, 32, 3))[1])["params"]
    kernels = [leaf.shape for leaf in jax.tree.leaves(shapes) if len(leaf.shape) > 1]
    assert sum(shape[:2] == (1, 1) for shape in kernels) == 3
    assert len(kernels) == 1 + 16 + 3 + 1


def test_batch_norm_follows_the_batch_in_training_only():
    model = ResNet(10, (1,), (4,), torch_linear=False)
    x = 3 + jax.random.normal(jax.random.key(1), (2, 6, 6, 3))
    found = jax.jit(model.init)(jax.random.key(0), x)
    train = jax.jit(lambda found: model.apply(found, x, train=True, mutable=["batch_stats"]))
    _, changed = train(found)
    old, new = found["batch_stats"]["BatchNorm_0"], changed["batch_stats"]["BatchNorm_0"]
    assert not jnp.allclose(old["mean"], new["mean"])
    params, apply_fn = linen.from_linen(model, found, train=False)
    evaluated = jax.jit(model.apply)(found, x)
    np.testing.assert_array_equal(jax.jit(apply_fn)(params, x), evaluated)


def test_vgg_refuses_images_that_its_pools_would_empty():
    with pytest.raises(ValueError, match="16×16"):
        variables("vgg11", (8, 8, 1))
