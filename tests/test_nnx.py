"""NNX needs no adapter: its State is a pytree, and its merge an apply_fn."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import synflow_jax as sf


@pytest.fixture(autouse=True)
def _nnx_promotes():
    """NNX mixes dtypes and ranks: let it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Net(nnx.Module):
    """Linear, BatchNorm, dropout, linear."""

    def __init__(self, rngs):
        self.first = nnx.Linear(6, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        """Return the logits."""
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


def test_state_is_pruned_and_stays_so_in_an_nnx_optimizer():
    model = Net(nnx.Rngs(0))
    model.eval()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    masks = sf.synflow(params, lambda p, x: nnx.merge(graphdef, p, rest)(x), (6,), 4.0)
    assert [row.layer for row in sf.report(params, masks).rows] == ["first/kernel", "last/kernel"]
    assert sf.report(params, masks).kept == 18

    optimizer = nnx.Optimizer(model, sf.keep_masks(optax.adamw(1e-2), masks), wrt=nnx.Param)
    model.train()
    for _ in range(3):
        grads = nnx.grad(lambda m: jnp.mean(jnp.square(m(jnp.ones((4, 6))) - 1.0)))(model)
        optimizer.update(model, grads)
    trained = nnx.state(model, nnx.Param)
    zero = jax.tree.map(lambda p, m: not bool(jnp.where(m, 0.0, p).any()), trained, masks)
    assert jax.tree.all(zero)


def test_a_whole_state_with_keys_and_counts():
    model = Net(nnx.Rngs(0))
    model.eval()
    graphdef, state = nnx.split(model)
    masks = sf.synflow(state, lambda s, x: nnx.merge(graphdef, s)(x), (6,), 4.0)
    assert sf.report(state, masks).kept == 18
