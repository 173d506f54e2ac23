"""The networks of the reference, as written down here: do they compute what it computed?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.support.networks import NETWORKS, conv


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [2, 7, 8])
def test_the_networks_convolution_pads_one_on_both_sides(size, stride, height):
    rng, pad = np.random.default_rng(0), size // 2
    x = jnp.asarray(rng.standard_normal((2, height, height, 5)))
    kernel = jnp.asarray(rng.standard_normal((size, size, 5, 4)))
    expected = lax.conv_general_dilated(
        x, kernel, (stride,) * 2, ((pad, pad),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # Sums of at most 45 products of order one in float64.
    np.testing.assert_allclose(conv({"kernel": kernel}, x, stride), expected, atol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
def test_the_networks_compute_the_references_logits(net):
    height, width, channels = net.shape
    x = np.random.default_rng(7).standard_normal((4, channels, height, width)).astype(np.float32)
    images = jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float64)
    logits = jax.jit(net.apply)(net.params(np.float64), images)
    # Twenty layers of float64 rounding on logits up to 100.
    np.testing.assert_allclose(logits, net.answers["logits"], atol=1e-11)
