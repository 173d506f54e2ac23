"""What makes no sense as a pattern, or as runs, is refused at the public function."""

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf

WEIGHTS = {"w": jnp.ones((4, 6)), "v": jnp.ones((6, 2))}


def call(rho=2, **options):
    return lambda: sf.magnitude(WEIGHTS, rho, **options)


BAD = {
    "no function": (call(pattern="channel"), TypeError, "pattern must"),
    "no shape": (
        call(pattern=lambda path, shape: 4),
        ValueError,
        r"pattern\(path, shape\) must return .* got 4 for 'v' of shape \(6, 2\)",
    ),
    "too large": (
        call(pattern=lambda path, shape: (5, 1)),
        ValueError,
        r"got \(5, 1\) for 'w' of shape \(4, 6\)",
    ),
    "a part of a weight": (
        call(pattern=lambda path, shape: (1.5, 1)),
        ValueError,
        r"a whole number from 1 .* got \(1.5, 1\)",
    ),
    "blocks of no size": (
        call(pattern=sf.plan.blocks),
        TypeError,
        r"pattern must be blocks\(…\), with brackets",
    ),
    "a scope for a pattern": (
        call(pattern=sf.runs(2)),
        TypeError,
        r"pattern must say what a unit is, and runs\(…\) is a scope",
    ),
    "a pattern for a scope": (
        call(scope=sf.plan.blocks(2)),
        TypeError,
        r"scope must say what competes, and Blocks\(rows=2, columns=2\) is a pattern",
    ),
    "channels for a scope": (
        call(scope=sf.channels),
        TypeError,
        "scope must say what competes, and <function channels .* is a pattern",
    ),
    "runs of no length": (
        call(scope=sf.runs),
        TypeError,
        r"scope must be runs\(…\), with brackets",
    ),
    "runs that divide nothing": (
        call(scope=sf.runs(5)),
        ValueError,
        r"runs\(5, axis=-2\) must divide that axis of some .* shapes are \[\(6, 2\), \(4, 6\)\]",
    ),
    "less than one of a run": (
        call(rho=3, scope=sf.runs(2)),
        ValueError,
        r"rho must be at most 2, got 3: runs\(2\) keep",
    ),
    "no such axis": (
        call(pattern=sf.plan.slices(2)),
        ValueError,
        r"slices\(2\).* 'v' has shape \(6, 2\)",
    ),
    "channels of a number": (
        lambda: sf.magnitude(
            {"s": jnp.ones(())}, 2, pattern=sf.channels, prunable=lambda path, leaf: True
        ),
        ValueError,
        r"slices\(-1\) \(as channels are\) must name an axis .* 's' has shape \(\)",
    ),
    "axis of a wrong kind": (lambda: sf.plan.slices(1.0), TypeError, "axis must be an int"),
    "size of a wrong kind": (lambda: sf.plan.blocks(2.0), TypeError, "rows must be an int"),
    "size 0": (lambda: sf.plan.blocks(2, 0), ValueError, "columns must be at least 1, got 0"),
    "runs of 1": (lambda: sf.runs(1), ValueError, "length must be at least 2, got 1"),
    "runs along axis 0": (lambda: sf.runs(4, axis=0), ValueError, "below 0, got 0"),
    "runs along a float": (lambda: sf.runs(4, axis=-2.0), TypeError, "axis must be an int"),
    "runs with floors": (
        call(scope=sf.runs(2), min_keep=1),
        ValueError,
        "min_keep=0",
    ),
    "a sweep of blocks": (
        lambda: sf.synflow(
            WEIGHTS,
            lambda p, x: x @ p["w"] @ p["v"],
            (4,),
            2,
            sweep=True,
            pattern=sf.plan.blocks(2),
        ),
        ValueError,
        "pattern=unstructured",
    ),
    "a mask tree beside": (
        lambda: sf.random(
            jax.random.key(0), WEIGHTS, densities=sf.magnitude(WEIGHTS, 2), pattern=sf.channels
        ),
        ValueError,
        "nor min_keep or pattern",
    ),
    "a layer must collapse": (
        call(rho=8, pattern=sf.channels),
        sf.CollapseWarning,
        "rho leaves 1 units for 2 layers",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_sense_is_refused(name):
    call, error, said = BAD[name]
    with pytest.raises(error, match=said):
        call()
