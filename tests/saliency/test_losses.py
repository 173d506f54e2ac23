"""What pruning cut of a network, named by output, axis and number, at any depth and of any kind."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf


def warned(method, *args, **settings):
    """List the messages of a call's warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        masks = method(*args, **settings)
    return masks, [str(w.message) for w in found]


def one_round(params, network, shape, lost):
    """Prune `lost` weights by SynFlow in one round."""
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    return warned(sf.synflow, params, network, shape, size / (size - lost), rounds=1)


def scanned(params, x):
    """A chain whose layers are one leaf."""

    def step(h, w):
        return jax.nn.relu(h @ w), None

    return jax.lax.scan(step, x, params["w"])[0] @ params["o"]


# A unit sums two weights a layer: R is (2 · value)^layers times the head's sum, which is 6.
@pytest.mark.parametrize(("layers", "value"), [(400, 5e-4), (60, 1e-3), (40, 8.0)])
def test_a_lost_output_is_named_behind_a_stack_of_any_depth(layers, value):
    assert abs(layers * np.log2(2 * value)) > 126  # beyond float32
    params = {"w": jnp.full((layers, 2, 2), value), "o": jnp.ones((2, 4)).at[:, 1].set(1e-12)}
    masks, (said,) = one_round(params, scanned, (2,), 2)
    assert not masks["o"][:, 1].any()
    assert bool(masks["w"].all())
    assert "no flow reaches 1 of 4 entries of the output (1) " in said


def test_a_lost_output_of_complex_weights_is_named_though_they_cancel():
    # On ones the third output is 0.01 − 0.01 at the weights, and 0.02 at their moduli.
    weights = jnp.array([[1.0, 2.0, 0.01], [1.0, 2.0, -0.01]], jnp.complex64)

    def network(params, x):
        return jnp.real(x.astype(jnp.complex64) @ params["w"])

    masks, (said,) = one_round({"w": weights}, network, (2,), 2)
    assert np.asarray(masks["w"]).tolist() == [[True, True, False]] * 2
    assert "no flow reaches 1 of 3 entries of the output (2) " in said


def head_params():
    return {"w": jnp.ones((2, 3)), "v": jnp.array([[1.0, 1.0, 1e-6, 1.0]] * 3)}


def test_a_lost_channel_is_named_along_its_own_axis():
    def network(params, x):  # two heads, three positions, four channels
        h = x @ params["w"] @ params["v"]
        return jnp.stack([h, 2 * h], 1)

    _, (said,) = one_round(head_params(), network, (3, 2), 3)
    assert "no flow reaches 1 of 4 entries of axis 2 of the output (2) " in said


def test_a_lost_position_is_named_along_its_own_axis():
    def network(params, x):  # four positions of two channels
        h = x @ params["w"] @ params["v"]
        return jnp.stack([h, 2 * h], -1)

    _, (said,) = one_round(head_params(), network, (2,), 3)
    assert "no flow reaches 1 of 4 entries of axis 0 of the output (2) " in said


def test_lost_entries_that_are_no_whole_slice_are_counted():
    def network(params, x):
        return (x @ params["w"] @ params["v"]).reshape(-1, 2, 2)

    _, (said,) = one_round(head_params(), network, (2,), 3)
    assert "no flow reaches 1 of 4 entries of the output (pass" in said


def test_lost_pixels_that_are_no_whole_slice_are_no_loss():
    def network(params, x):
        return x.reshape(-1, 4) @ params["w"] @ params["v"]

    params = {"w": jnp.ones((4, 4)).at[1].set(1e-6), "v": jnp.ones((4, 2))}
    masks, said = one_round(params, network, (2, 2), 4)
    assert not masks["w"][1].any()
    assert said == []


def test_a_layer_of_a_stack_without_a_gradient_is_named():
    def network(params, x):
        def step(h, pair):
            return h + jax.nn.relu(h @ pair[0]) @ pair[1], None

        return jax.lax.scan(step, x, (params["up"], params["down"]))[0] @ params["out"]

    def loss(params, x):
        return jnp.mean(network(params, x))

    ones = jnp.ones((3, 2, 2))
    params = {"up": ones.at[1].set(1e-3), "down": ones, "out": jnp.ones((2, 1))}
    _, (said,) = warned(sf.snip, params, loss, [jnp.ones((1, 2))], 26 / 22)
    assert "no weight is left in up[1]" in said
    assert "on the first batch the loss has no gradient in down[1], so" in said
