"""Convolutions as matrix products, against XLA's own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from synflow_jax.scaled import as_product, is_better_as_product

NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
CASES = {
    "plain": ((1, 6, 7, 4), (3, 3, 4, 5), NHWC, {}),
    "strided": ((1, 9, 8, 4), (3, 2, 4, 5), NHWC, {"window_strides": (2, 3)}),
    "padded unevenly": ((1, 5, 6, 2), (3, 3, 2, 3), NHWC, {"padding": ((2, 0), (1, 3))}),
    "cropped": ((1, 8, 8, 2), (3, 3, 2, 3), NHWC, {"padding": ((-1, 0), (0, -2))}),
    "dilated": ((1, 9, 9, 2), (3, 2, 2, 3), NHWC, {"rhs_dilation": (2, 3)}),
    "transposed": (
        (1, 4, 5, 2),
        (3, 3, 2, 3),
        NHWC,
        {"lhs_dilation": (2, 3), "padding": ((2, 1), (1, 1))},
    ),
    "one by one": ((1, 6, 6, 4), (1, 1, 4, 5), NHWC, {"window_strides": (2, 2)}),
    "grouped": ((1, 6, 6, 4), (3, 3, 2, 6), NHWC, {"feature_group_count": 2}),
    "depthwise": ((1, 6, 6, 4), (3, 3, 1, 4), NHWC, {"feature_group_count": 4}),
    "depthwise, twice": ((1, 6, 6, 4), (3, 3, 1, 8), NHWC, {"feature_group_count": 4}),
    "channels first": ((1, 4, 6, 7), (5, 4, 3, 3), NCHW, {"window_strides": (2, 1)}),
    "mixed layouts": ((6, 1, 7, 4), (3, 4, 2, 5), ("HNWC", "HIWO", "CNHW"), {}),
    "one axis": ((1, 9, 3), (4, 3, 2), ("NWC", "WIO", "NWC"), {"window_strides": (2,)}),
    "three axes": ((1, 4, 5, 6, 2), (2, 3, 2, 2, 3), ("NHWDC", "HWDIO", "NHWDC"), {}),
}


def convolution(case):
    x, kernel, layouts, settings = CASES[case]
    settings = {"window_strides": (1,) * (len(x) - 2), "padding": "SAME"} | settings

    def conv(x, kernel):
        return lax.conv_general_dilated(x, kernel, dimension_numbers=layouts, **settings)

    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal(s), jnp.float64) for s in (x, kernel)]
    (eqn,) = jax.make_jaxpr(conv)(*arrays).eqns
    return conv, eqn, arrays


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_convolution(case, x64):
    conv, eqn, arrays = convolution(case)
    assert is_better_as_product(eqn, *arrays)
    weights = np.random.default_rng(1).standard_normal(jax.eval_shape(conv, *arrays).shape)
    ours, theirs = (both(fn, weights, *arrays) for fn in (partial(as_product, eqn), conv))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-12)


@partial(jax.jit, static_argnums=0)
def both(fn, weights, x, kernel):
    value, back = jax.vjp(fn, x, kernel)
    return value, *back(weights)


def test_a_batch_and_batch_groups_stay_convolutions():
    def conv(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    x, kernel = jnp.ones((2, 4, 4, 3)), jnp.ones((3, 3, 3, 5))
    (eqn,) = jax.make_jaxpr(conv)(x, kernel).eqns
    assert not is_better_as_product(eqn, x, kernel)


@pytest.mark.parametrize("case", ["plain", "grouped", "depthwise"])
@pytest.mark.parametrize("wanted", [None, jnp.float32])
def test_half_precision_gives_the_type_that_is_asked_for(case, wanted):
    x, kernel, layouts, settings = CASES[case]

    def conv(x, kernel):
        numbers = {"dimension_numbers": layouts, "preferred_element_type": wanted}
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **settings, **numbers)

    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.random(s), jnp.bfloat16) for s in (x, kernel)]
    (eqn,) = jax.make_jaxpr(conv)(*arrays).eqns
    got, want = as_product(eqn, *arrays), conv(*arrays)
    assert got.dtype == want.dtype == (wanted or jnp.bfloat16)
    # Of bfloat16 products, float32 sums are exact to 1e-6; bfloat16 results, to half of 2^-7.
    np.testing.assert_allclose(
        got.astype(jnp.float32), want.astype(jnp.float32), rtol=1e-5 if wanted else 2**-7
    )


def test_a_convolution_of_nothing_stays_one():
    def conv(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC)

    x, kernel = jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1))
    (eqn,) = jax.make_jaxpr(conv)(x, kernel).eqns
    assert not is_better_as_product(eqn, x, kernel)


@pytest.mark.parametrize("case", ["plain", "grouped", "depthwise"])
def test_a_derivative_keeps_what_went_in_not_its_patches(case, x64):
    _, eqn, arrays = convolution(case)
    backward = jax.eval_shape(lambda *a: jax.vjp(partial(as_product, eqn), *a)[1], *arrays)
    kept = sum(leaf.size for leaf in jax.tree.leaves(backward))
    assert kept <= sum(array.size for array in arrays)
