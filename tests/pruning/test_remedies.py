"""Remedies that a warning names: the same call accepts each of them."""

import re
import warnings

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.nets import block, block_params

CHANGES = {
    "min_keep=1": {"min_keep": 1},
    "layerwise": {"scope": sf.layerwise},
    "erk": {"scope": sf.erk},
    "schedule=certified()": {"schedule": sf.certified()},
    "more rounds": {"rounds": 20},
}


def chain(params, x):
    return x @ params["one"] @ params["two"] @ params["three"]


def chain_params():
    """Make 12 + 16 + 8 weights; those of `two` score least in one round."""
    return {"one": jnp.ones((3, 4)), "two": jnp.full((4, 4), 0.5), "three": jnp.ones((4, 2))}


def warned(method, *args, **settings):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        method(*args, **settings)
    return [str(w.message) for w in found if issubclass(w.category, sf.CollapseWarning)]


def remedies(said):
    """List the remedies of CHANGES that a message names."""
    return {name for name in CHANGES if re.search(rf"(?<![\w=]){re.escape(name)}(?!\w)", said)}


def none_in_the_shortcut(shapes, densities):
    """Keep all of each layer but the shortcut, the third in tree order."""
    sizes = [0 if at == 2 else shape[0] * shape[1] for at, shape in enumerate(shapes)]
    return jnp.tile(jnp.array(sizes, jnp.float32), (len(densities), 1))


FLOORS = {"min_keep=1"}
BOTH = FLOORS | {"layerwise", "erk"}
RHO = 108 / 84


@pytest.mark.parametrize(
    ("params", "network", "rho", "settings", "named"),
    [
        (block_params, block, RHO, {"rounds": 1}, BOTH),
        (block_params, block, {"*": RHO}, {"rounds": 1}, BOTH),
        (block_params, block, RHO, {"schedule": sf.certified()}, set()),
        (block_params, block, RHO, {"rounds": 1, "sweep": True}, set()),
        (block_params, block, RHO, {"rounds": 1, "scope": none_in_the_shortcut}, FLOORS),
        (chain_params, chain, 36 / 20, {"rounds": 1}, {"schedule=certified()", "more rounds"}),
        (chain_params, chain, {"*": 36 / 20}, {"rounds": 1}, {"more rounds"}),
        (chain_params, chain, 36 / 20, {"schedule": sf.one_shot}, {"schedule=certified()"}),
    ],
)
def test_a_call_names_what_it_accepts(params, network, rho, settings, named):
    args = params(), network, (3,), rho
    (said,) = warned(sf.synflow, *args, **settings)
    assert "no weight is left in" in said
    assert remedies(said) == named
    for name in named:
        assert warned(sf.synflow, *args, **settings | CHANGES[name]) != [said]


def test_a_random_draw_names_what_it_accepts():
    key, params = jax.random.key(0), {"w": jnp.ones((200, 2)), "v": jnp.ones((2, 1))}
    (said,) = warned(sf.random, key, params, 402 / 3)
    assert "no weight is left in v (min_keep=1 " in said
    masks = sf.random(key, params, 402 / 3, min_keep=1)
    assert sum(int(mask.sum()) for mask in masks.values()) == 3
    assert warned(sf.random, key, params, 402 / 3, densities=sf.layerwise) == []


def test_copied_counts_name_their_masks():
    key, params = jax.random.key(0), {"w": jnp.ones((4, 4)), "v": jnp.ones((4, 4))}
    masks = {"w": jnp.eye(4) > 0, "v": jnp.zeros((4, 4), bool)}
    (said,) = warned(sf.random, key, params, densities=masks)
    assert "no weight is left in v (pass densities that keep some there)" in said
    # One weight for two layers: nothing else warns of counts that are copied.
    masks["w"] = jnp.arange(16).reshape(4, 4) == 5
    (said,) = warned(sf.random, key, params, densities=masks)
    assert "no weight is left in v (" in said
