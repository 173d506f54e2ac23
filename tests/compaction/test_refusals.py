"""What `slim` and `compact` refuse, and trees that are not those of the network they made."""

import jax
import jax.numpy as jnp

import synflow_jax as sf
from tests.support.compacted import draw, masks_of
from tests.support.nets import mlp, mlp_params
from tests.support.refusals import check_refused, each

WIDE = (6, 12, 9, 4)


def slim(**other):
    params = mlp_params(0, widths=WIDE)
    given = {"params": params, "apply_fn": mlp, "shape": WIDE[:1], "rho": 2.0} | other
    return lambda: sf.slim(**given)


SCHEDULE = "schedule must be a function such as"
UNITS = "saliency must tell units apart"
SLIM = [
    ("out of reach", slim(rho=100.0), ValueError, "rho must be at most 19.6363 here", "got 100"),
    (
        "complex weights",
        slim(
            params={"v": jnp.ones((2, 3), jnp.complex64), "w": jnp.ones((3, 1))},
            apply_fn=lambda p, x: jnp.abs(x.astype(jnp.complex64) @ p["v"]) @ p["w"],
            shape=(2,),
        ),
        TypeError,
        "params must be real for slim",
        "'v' is complex",
    ),
    ("a density", slim(rho=0.5), ValueError, "rho must be at least 1", "got 0.5", "rho=2"),
    (
        "a name for a budget",
        slim(budget="flops"),
        TypeError,
        "budget must be a function",
        "got 'flops'",
    ),
    (
        "a schedule of prune's",
        slim(schedule=sf.certified),
        TypeError,
        SCHEDULE,
        "got <function certified",
    ),
    ("a number for a schedule", slim(schedule=2), TypeError, SCHEDULE, "got 2"),
    (
        "a name for what is whole",
        slim(whole="layer0"),
        TypeError,
        "whole must be a function (path, leaf) -> bool",
        "got 'layer0'",
    ),
    (
        "a name of nothing",
        slim(whole=sf.matching("layer9/*")),
        ValueError,
        "whole=matching(…) must have patterns that match leaves",
        "['layer9/*'] match none",
    ),
    (
        "what builds a saliency",
        slim(saliency=sf.saliency.magnitude_saliency),
        TypeError,
        "saliency must be magnitude_saliency(…), with brackets",
    ),
    (
        "a scope of single weights",
        slim(scope=sf.erk),
        TypeError,
        "scope must be globally or layerwise",
        "got <function erk",
    ),
    ("no rounds", slim(rounds=0), ValueError, "rounds must be at least 1", "got 0"),
    (
        "no products",
        slim(
            params={"w": jnp.ones((2, 2))},
            apply_fn=lambda p, x: jax.lax.scan(lambda h, _: (h @ p["w"], None), x, length=2)[0],
            shape=(2,),
        ),
        ValueError,
        "budget finds nothing to save",
        "apply_fn multiplies no matrices",
    ),
    (
        "no flow",
        slim(apply_fn=lambda p, x: mlp(p, x) * 0.0),
        ValueError,
        UNITS,
        "its scores are 0 in all",
        "flow_mode(apply_fn)",
    ),
    (
        "no finite scores",
        slim(saliency=lambda params, masks: jax.tree.map(lambda p: p / 0, params)),
        ValueError,
        UNITS,
        "its scores are NaN or infinite",
    ),
    (
        "NaN",
        slim(params={"w": jnp.full((2, 2), jnp.nan)}),
        ValueError,
        "params must be finite",
        "in w",
    ),
    (
        "a traced rho",
        lambda: jax.jit(lambda rho: slim(rho=rho)().params)(2.0),
        TypeError,
        "outside of jit",
    ),
]


def chain(params, x):
    return x @ params["u"] @ params["v"]


PARAMS = draw(8, {"u": (3, 4), "v": (4, 2)})
MASKS = masks_of(8, PARAMS, 1.1)
MASKS["v"] = MASKS["v"].at[1].set(False)


def small():
    """A network of which one hidden unit of four is dead."""
    return sf.compact(PARAMS, MASKS, chain, (3,))


SMALL = "params must be the small params"
COMPACT = [
    (
        "masks of other leaves",
        lambda: sf.compact(PARAMS, {"w": MASKS["u"]}, chain, (3,)),
        ValueError,
        "masks must have the tree structure of params",
    ),
    (
        "traced params",
        lambda: jax.jit(lambda p: sf.compact(p, MASKS, chain, (3,)).params)(PARAMS),
        TypeError,
        "params and masks must be of known value",
        "outside of jit",
    ),
    (
        "taking from what is small",
        lambda: small().take(small().params),
        ValueError,
        "tree must",
        "'u' is (3, 3), and (3, 4) is its",
    ),
    (
        "taking from a part",
        lambda: small().take({"u": PARAMS["u"]}),
        ValueError,
        "of the whole params",
        "the trees differ",
    ),
    (
        "expanding what is whole",
        lambda: small().expand(PARAMS),
        ValueError,
        SMALL,
        "'u' is (3, 4), and (3, 3)",
    ),
    (
        "running on what is whole",
        lambda: small().apply_fn(PARAMS, jnp.ones((1, 3))),
        ValueError,
        SMALL,
        "'u' is (3, 4)",
    ),
    (
        "a function of other units",
        lambda: small().wrap(lambda p: jnp.sort(p["u"], axis=1))(small().params),
        ValueError,
        "fn must treat units as",
    ),
]


@each([*SLIM, *COMPACT])
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)
