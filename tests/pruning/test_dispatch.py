"""Programs with collectives are sent off one at a time.

A row of them, each sent off before the last has ended, can leave a busy CPU with many virtual
devices waiting for ever. Here each program takes its time, and says when it is over.
"""

import time

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.meshes import mesh_of, spread


class Clock:
    """How many programs were over when each was sent off."""

    def __init__(self):
        self.over, self.seen = 0, []

    def sent(self):
        self.seen.append(self.over)

    def ended(self, _):
        time.sleep(0.05)
        self.over += 1

    def network(self, params, x):
        y = x @ params["w"]
        jax.debug.callback(self.ended, jnp.sum(y))
        return y

    def __iter__(self):
        """Read six batches."""
        for _ in range(6):
            self.sent()
            yield jnp.ones((1, 8))


@pytest.fixture
def params():
    return spread({"w": jnp.ones((8, 8))}, mesh_of("auto"), "both")


@pytest.mark.parametrize("method", [sf.snip, sf.grasp])
def test_batches(method, params):
    clock = Clock()
    method(params, lambda p, x: jnp.sum(clock.network(p, x) ** 2), clock, 2.0)
    first, *seen = clock.seen
    assert first == 0  # the first batch is looked at beforehand, for its shapes
    assert seen == list(range(len(seen)))
