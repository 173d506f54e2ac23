"""SynFlow in a Flax training loop: TrainState, BatchNorm, dropout and weight decay."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import synflow_jax as sf
from synflow_jax import linen

CLASSES, FEATURES = 4, 12


@pytest.fixture(autouse=True)
def _flax_promotes():
    """Flax and Optax mix dtypes (labels, bias corrections): let them."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Classifier(nn.Module):
    """Dense, BatchNorm, ReLU, dropout, dense."""

    hidden: int = 32

    @nn.compact
    def __call__(self, x, train: bool):
        """Return the logits."""
        x = nn.Dense(self.hidden)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


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


def test_variables_without_params():
    with pytest.raises(ValueError, match='"params" collection'):
        linen.from_linen(Classifier(), {"batch_stats": {}})


class TwoInputs(nn.Module):
    """Tokens and features in, a dict out."""

    @nn.compact
    def __call__(self, inputs):
        """Return two heads."""
        hidden = nn.Embed(7, 6)(inputs["tokens"]).sum(1) + nn.Dense(6)(inputs["features"])
        return {"a": nn.Dense(2)(hidden), "b": nn.Dense(3)(hidden)}


def test_several_inputs_and_outputs():
    model = TwoInputs()
    shape = {
        "tokens": jax.ShapeDtypeStruct((4,), jnp.int32),
        "features": jax.ShapeDtypeStruct((5,), jnp.float32),
    }
    x = {"tokens": jnp.ones((1, 4), jnp.int32), "features": jnp.ones((1, 5))}
    params, apply_fn = linen.from_linen(model, model.init(jax.random.key(0), x))
    masks = sf.synflow(params, apply_fn, shape, 3.0)
    assert bool(masks["Embed_0"]["embedding"].all())
    assert sum(int(masks[f"Dense_{i}"]["kernel"].sum()) for i in range(3)) == 20
    positive = jax.tree.map(jnp.abs, params)
    out = apply_fn(positive, x)
    want = np.log2(float(out["a"].sum() + out["b"].sum()))
    assert float(sf.log2_flow(params, apply_fn, shape)) == pytest.approx(want, abs=1e-5)
