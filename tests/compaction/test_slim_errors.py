"""What makes no sense to `slim` is refused by it."""

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.nets import mlp, mlp_params

WIDE = (6, 12, 9, 4)


def call(**other):
    params = mlp_params(0, widths=WIDE)
    given = {"params": params, "apply_fn": mlp, "shape": WIDE[:1], "rho": 2.0} | other
    return lambda: sf.slim(**given)


BAD = {
    "out of reach": (call(rho=100.0), ValueError, r"rho must be at most 19.6364 here, got 100"),
    "below one": (call(rho=0.5), ValueError, "rho must be at least 1"),
    "no budget": (call(budget="flops"), TypeError, "budget must be a function .* got 'flops'"),
    "a schedule of prune's": (
        call(schedule=sf.certified),
        TypeError,
        "schedule must be a function such as .* got <function certified",
    ),
    "a name for what is whole": (
        call(whole="layer0"),
        TypeError,
        r"whole must be a function \(path, leaf\) -> bool, got 'layer0'",
    ),
    "a name of nothing": (
        call(whole=sf.matching("layer9/*")),
        ValueError,
        r"whole=matching\(…\) must have patterns that match leaves, and \['layer9/\*'\]",
    ),
    "what builds a saliency": (
        call(saliency=sf.saliency.magnitude_saliency),
        TypeError,
        r"saliency must be magnitude_saliency\(…\), with brackets",
    ),
    "a scope of single weights": (
        call(scope=sf.erk),
        TypeError,
        "scope must be globally or layerwise, got <function erk",
    ),
    "no schedule": (call(schedule=2), TypeError, "schedule must be a function"),
    "no rounds": (call(rounds=0), ValueError, "rounds must be at least 1"),
    "no products": (
        call(params={"w": jnp.ones((2, 2))}, apply_fn=lambda p, x: x * p["w"][:1], shape=(2,)),
        ValueError,
        "budget finds nothing to save: apply_fn multiplies no matrices",
    ),
    "no flow": (
        call(apply_fn=lambda p, x: mlp(p, x) * 0.0),
        ValueError,
        r"saliency must tell units apart, and its scores are 0 in all .*flow_mode\(apply_fn\)",
    ),
    "no finite scores": (
        call(saliency=lambda params, masks: jax.tree.map(lambda p: p / 0, params)),
        ValueError,
        "saliency must tell units apart, and its scores are NaN or infinite",
    ),
    "NaN": (call(params={"w": jnp.full((2, 2), jnp.nan)}), ValueError, "params"),
    "traced": (
        lambda: jax.jit(lambda rho: call(rho=rho)().params)(2.0),
        TypeError,
        "outside of jit",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_sense_is_refused(name):
    run, error, said = BAD[name]
    with pytest.raises(error, match=said):
        run()
