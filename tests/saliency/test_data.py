"""How the saliencies of a loss read the user's batches, and the network behind the loss."""

import sys

import jax.numpy as jnp
import pytest

import synflow_jax as sf


class Loader:
    """Batches that count how often they are opened."""

    def __init__(self, batches):
        self.batches, self.opened = batches, 0

    def __iter__(self):
        self.opened += 1
        return iter(self.batches)


def loss(params, x):
    return jnp.mean(jnp.square(x @ params["w"] @ params["v"]))


PARAMS = {"w": jnp.ones((3, 4)), "v": jnp.arange(1.0, 9.0).reshape(4, 2)}


@pytest.mark.parametrize(("method", "passes"), [(sf.snip, 1), (sf.grasp, 2)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_loader_is_opened_for_scores_for_shapes_and_for_the_check(method, passes, rounds):
    loader = Loader([jnp.ones((2, 3)), jnp.ones((2, 3))])
    method(PARAMS, loss, loader, 1.25, rounds=rounds)
    assert loader.opened == passes * rounds + 2


def test_a_loss_that_cannot_be_traced_leaves_the_choice_to_names():
    def failing(params, x):
        raise RuntimeError("no such batch")

    saliency = sf.saliency.snip_saliency(failing, [jnp.ones((1, 3))])
    assert saliency.reading(PARAMS) is None


def test_an_error_of_the_reading_itself_is_not_hidden(monkeypatch):
    def broken(*_):
        raise KeyError("a rule")

    saliency = sf.saliency.snip_saliency(loss, [jnp.ones((1, 3))])
    monkeypatch.setattr(sys.modules[type(saliency).__module__], "read_loss", broken)
    with pytest.raises(KeyError, match="a rule"):
        saliency.reading(PARAMS)
