"""Linen: a TrainState loop with BatchNorm and dropout, and all else a model may hold or take."""

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import synflow_jax as sf
from synflow_jax import linen
from tests.support.linen_nets import CLASSES, FEATURES, Classifier, Unusual


@pytest.fixture(autouse=True)
def _flax_promotes():
    """Flax and Optax mix dtypes (labels, bias corrections): let them."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class State(TrainState):
    """A TrainState with BatchNorm's statistics."""

    batch_stats: dict


def data():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, FEATURES))
    labels = rng.integers(0, CLASSES, 256)
    x = centres[labels] + 0.3 * rng.standard_normal((256, FEATURES))
    return jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32)


@jax.jit
def step(state, x, labels, key):
    def loss_fn(params):
        logits, changed = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            x,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, changed["batch_stats"]

    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, batch_stats=stats), loss


def test_three_lines_in_a_train_state_loop():
    model, (x, labels) = Classifier(), data()
    variables = model.init(jax.random.key(0), x, train=False)
    before = jax.tree.map(np.array, variables)

    params, apply_fn = linen.from_linen(model, variables, train=False)
    masks = sf.synflow(params, apply_fn, (FEATURES,), rho=10)
    tx = sf.keep_masks(optax.adamw(1e-2, weight_decay=0.1), masks)

    chex.assert_trees_all_equal(
        before, dict(variables)
    )  # scoring touched neither weights nor statistics
    state = State.create(
        apply_fn=model.apply, params=params, tx=tx, batch_stats=variables["batch_stats"]
    )
    key = jax.random.key(1)
    for i in range(60):
        state, loss = step(state, x, labels, jax.random.fold_in(key, i))
    assert float(loss) < 0.6
    logits = model.apply({"params": state.params, "batch_stats": state.batch_stats}, x, train=False)
    assert float((logits.argmax(-1) == labels).mean()) > 0.9
    for layer in ("Dense_0", "Dense_1"):
        kernel, mask = state.params[layer]["kernel"], masks[layer]["kernel"]
        assert not bool(jnp.where(mask, 0.0, kernel).any())
    total = sum(int(m.sum()) for m in (masks["Dense_0"]["kernel"], masks["Dense_1"]["kernel"]))
    assert total == -(-32 * (FEATURES + CLASSES) // 10)


def test_variables_as_a_whole_work_too():
    model, (x, _) = Classifier(), data()
    variables = model.init(jax.random.key(0), x, train=False)
    whole = sf.synflow(variables, lambda v, x: model.apply(v, x, train=False), (FEATURES,), 10)
    params, apply_fn = linen.from_linen(model, variables, train=False)
    alone = sf.synflow(params, apply_fn, (FEATURES,), 10)
    chex.assert_trees_all_equal(whole["params"], alone)
    assert all(bool(m.all()) for m in jax.tree.leaves(whole["batch_stats"]))


def test_equal_models_share_a_program_and_keep_their_own_statistics():
    calls = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            calls.append(1)
            x = nn.Dense(8)(x)
            return nn.Dense(3)(nn.BatchNorm(use_running_average=not train)(x))

    x = jnp.ones((1, 5))
    flows = []
    for factor in (1.0, 16.0):
        variables = Counted().init(jax.random.key(0), x, train=False)
        stats = jax.tree.map(lambda v, f=factor: v / f, variables["batch_stats"])
        calls.clear()
        params, apply_fn = linen.from_linen(
            Counted(), {"params": variables["params"], "batch_stats": stats}, train=False
        )
        saliency = sf.synflow_saliency(apply_fn, (5,))
        flows.append(float(sf.prune(params, saliency, 2.0, 3)[1].log2_flow[0]))
        assert len(calls) == (1 if factor == 1.0 else 0)
    # A variance 16 times smaller makes the flow 4 times larger.
    assert flows[1] - flows[0] == pytest.approx(2.0, abs=1e-3)


@pytest.fixture(scope="module")
def unusual():
    key = jax.random.key(0)
    return Unusual(), Unusual().init({"params": key, "noise": key}, jnp.ones((1, 3))), key


def test_a_model_that_draws_and_writes_in_evaluation(unusual):
    model, variables, key = unusual
    before = jax.tree.map(np.array, variables)
    params, apply_fn = linen.from_linen(
        model, variables, rngs={"noise": key}, mutable=["cache", "intermediates"]
    )
    outs = [apply_fn(params, jnp.ones((1, 3))) for _ in range(2)]
    chex.assert_trees_all_equal(*outs)  # the same draw, and nothing counted on
    wanted = model.apply(variables, jnp.ones((1, 3)), rngs={"noise": key}, mutable=["cache"])[0]
    chex.assert_trees_all_close(outs[0], wanted)
    chex.assert_trees_all_equal(before, variables)
    # What it writes is no output: the flow is that of the two outputs alone.
    positive = jax.tree.map(jnp.abs, params)
    want = float(sum(out.sum() for out in apply_fn(positive, jnp.ones((1, 3)))))
    assert float(sf.log2_flow(params, apply_fn, (3,))) == pytest.approx(np.log2(want), abs=1e-5)


def test_another_key_is_no_new_program(unusual):
    model, variables, key = unusual
    fns = [
        linen.from_linen(model, variables, rngs={"noise": k}, mutable=["cache"])[1]
        for k in (key, jax.random.key(1))
    ]
    assert len({fn.func for fn in fns}) == 1  # the static parts are equal, and hash alike
    run = jax.jit(lambda fn, params, x: fn(params, x)[0])
    outs = [run(fn, variables["params"], jnp.ones((1, 3))) for fn in fns]
    assert (outs[0] != outs[1]).all()
    assert run._cache_size() == 1


@pytest.mark.parametrize("frozen", [False, True])
def test_the_way_back(frozen):
    x = jnp.ones((2, FEATURES))
    variables = Classifier().init(jax.random.key(0), x, train=False)
    variables = flax.core.freeze(variables) if frozen else variables
    params, apply_fn = linen.from_linen(Classifier(), variables, train=False)
    pruned = sf.apply_masks(params, sf.magnitude(params, 4.0))
    back = linen.to_linen(variables, pruned)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    chex.assert_trees_all_equal(back["params"], pruned)
    chex.assert_trees_all_equal(Classifier().apply(back, x, train=False), apply_fn(pruned, x))
    chex.assert_trees_all_equal(variables["params"], params)
