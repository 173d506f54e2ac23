"""Sizes that do not fit the leaves they are of are refused."""

import jax.numpy as jnp

from synflow_jax.scaled import scaled
from tests.support.refusals import check_refused, each

ROWS = [
    (
        "two sizes for a leaf",
        lambda: scaled(lambda x: x, (1.0, 2.0))(jnp.ones((1, 16))),
        ValueError,
        "sizes must have one number a leaf, 1",
        "got 2",
    ),
]


@each(ROWS)
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)
