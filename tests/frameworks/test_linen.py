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


class Unusual(nn.Module):
    """Draws, counts and sows in evaluation too."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        """Return the outputs and how much was drawn."""
        x = nn.Dense(4, use_bias=False)(x)
        count = self.variable("cache", "count", lambda: jnp.zeros((), jnp.int32))
        count.value += 1
        noise = jax.random.uniform(self.make_rng("noise"), x.shape)
        self.sow("intermediates", "hidden", x)
        return nn.Dense(2, use_bias=False)(x + noise), 1000.0 * count.value.astype(x.dtype)


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


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mutable": ["cache"]}, r"it asked for rngs; where it draws even so, from_linen.*rngs="),
        ({"rngs": {"noise": 0}}, r"where it writes even so, from_linen.*mutable="),
    ],
)
def test_a_model_that_may_not_draw_or_write_says_how(unusual, settings, says):
    model, variables, key = unusual
    settings = {**settings, "rngs": {"noise": key}} if "rngs" in settings else settings
    with pytest.raises(ValueError, match=says):
        sf.synflow(*linen.from_linen(model, variables, **settings), (3,), 2.0)


def test_statistics_left_behind():
    variables = Classifier().init(jax.random.key(0), jnp.ones((1, FEATURES)), train=False)
    params, apply_fn = linen.from_linen(Classifier(), {"params": variables["params"]}, train=False)
    with pytest.raises(ValueError, match="hold all collections"):
        sf.synflow(params, apply_fn, (FEATURES,), 2.0)


def test_a_shape_of_another_size_is_named():
    model = nn.Dense(3)
    params, apply_fn = linen.from_linen(model, model.init(jax.random.key(0), jnp.ones((1, 5))))
    with pytest.raises(ValueError, match=r"float32\[1, 7\].*: shape is one example without"):
        sf.synflow(params, apply_fn, (7,), 2.0)


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


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda v: linen.from_linen(Classifier, v), TypeError, "got the class Classifier"),
        (lambda v: linen.from_linen(lambda p: p, v), TypeError, "got a function; for an NNX"),
        (lambda v: linen.from_linen(Classifier(), [v]), TypeError, "a mapping .*, got a list"),
        (
            lambda v: linen.from_linen(Classifier(), v["params"]),
            ValueError,
            r'"params" collection, got .\'Dense_0\'.* passed as {"params": params}',
        ),
        (lambda v: linen.to_linen(v["params"], v), ValueError, '"params" collection'),
        (lambda v: linen.to_linen(v, v), ValueError, "params to put back must have the tree"),
    ],
)
def test_what_makes_no_sense(call, error, says):
    with pytest.raises(error, match=says):
        call({"params": {"Dense_0": {"kernel": jnp.ones((2, 2))}}})
