import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.dataset import load
from experiments.models.fc import FC
from experiments.training.optimiser import Budget
from experiments.training.trainer import Trainer
from synflow_jax import apply_masks, magnitude


class Mixed(nn.Module):
    """BatchNorm and dropout; `seen` holds the dtypes that the layers are given."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(20)(x.reshape(len(x), -1))
        SEEN.add(x.dtype.name)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        SEEN.add(x.dtype.name)
        return nn.Dense(10)(nn.Dropout(self.rate, deterministic=not train)(x))


SEEN = set()


def one_epoch(model, **changes):
    """Train two seeds that differ in their keys alone."""
    data, keys = load("digits", examples=200), jax.random.split(jax.random.key(0), 2)
    variables = model.init(keys[0], jnp.ones((1, 8, 8, 1)))
    variables = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), variables)
    masks = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), variables["params"])
    trainer = Trainer(model, data, Budget(1, 20, 0.05, 0.0, None, drops=(), **changes))
    return trainer, next(trainer.epochs(variables, masks, keys))


@pytest.fixture(scope="module")
def trained():
    """Two epochs of three seeds at ρ = 5: one by one, the same again, and under one vmap."""
    data, model = load("digits", examples=500), FC(10, width=50, depth=1)
    keys = jax.random.split(jax.random.key(0), 3)
    variables = jax.vmap(lambda key: model.init(key, jnp.ones((1, 8, 8, 1))))(keys)
    masks = jax.vmap(lambda params: magnitude(params, 5.0))(variables["params"])
    budget = Budget(epochs=2, batch_size=20, learning_rate=0.05, weight_decay=1e-4, clip=1.0)
    with jax.numpy_dtype_promotion("standard"):  # optax's cosine mixes int and float
        alone, together = (Trainer(model, data, budget, at_once) for at_once in (1, 3))
        runs = [list(each.epochs(variables, masks, keys)) for each in (alone, alone, together)]
    return masks, runs


def test_pruned_weights_are_zero_and_kept_ones_move(trained):
    masks, runs = trained
    for variables, _ in runs[0]:
        params = variables["params"]
        jax.tree.map(np.testing.assert_array_equal, params, apply_masks(params, masks))
    first, last = (variables["params"]["Dense_0"]["kernel"] for variables, _ in runs[0])
    kept = masks["Dense_0"]["kernel"]
    # Most, not all: where a pixel is 0 in every image decay alone moves a weight, by little.
    assert (first != last)[kept].mean() > 0.5


def test_training_is_the_same_each_time(trained):
    _, (first, second, _) = trained
    jax.tree.map(np.testing.assert_array_equal, first[-1], second[-1])


def test_seeds_differ(trained):
    _, (first, *_) = trained
    kernel = first[-1][0]["params"]["Dense_0"]["kernel"]
    assert (kernel[0] != kernel[1]).any()


def test_seeds_trained_together_learn_the_same(trained):
    _, (first, _, together) = trained
    # Products are summed in another order, and fifty steps carry that on.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), first[-1][0], together[-1][0]
    )


def test_accuracy_rises_above_chance(trained):
    _, (first, *_) = trained
    assert first[-1][1].top1.shape == (3,)
    # Chance is 0.1, give or take 0.016 on 360 images.
    assert first[-1][1].top1.min() > 0.3


def test_scores_are_those_of_numpy(trained):
    _, (first, *_) = trained
    variables, scores = first[-1]
    data, layers = load("digits"), jax.tree.map(np.float64, variables["params"])
    x = np.asarray(data.normalise(jnp.asarray(data.test.images)), np.float64).reshape(-1, 64)
    hidden, last = (layers[name] for name in ("Dense_0", "Dense_1"))
    x = np.maximum(np.einsum("nd,sdh->snh", x, hidden["kernel"]) + hidden["bias"][:, None], 0)
    logits = np.einsum("snh,shk->snk", x, last["kernel"]) + last["bias"][:, None]
    own = np.take_along_axis(logits, data.test.labels[None, :, None], axis=2)
    rank = (logits > own).sum(2)
    loss = np.log(np.exp(logits - own).sum(2)).mean(1)
    np.testing.assert_allclose(scores.top1, (rank < 1).mean(1), rtol=1e-6)
    np.testing.assert_allclose(scores.top5, (rank < 5).mean(1), rtol=1e-6)
    np.testing.assert_allclose(scores.loss, loss, rtol=1e-5)  # float32 against float64


@pytest.mark.usefixtures("flax_promotes")
def test_bfloat16_reaches_the_layers_and_nothing_that_is_kept():
    SEEN.clear()
    _, (variables, scores) = one_epoch(Mixed(), precision="bfloat16")
    assert {"bfloat16", "float32"} == SEEN  # float32 is the test set's
    assert {leaf.dtype.name for leaf in jax.tree.leaves((variables, scores))} == {"float32"}
    _, (exact, _) = one_epoch(Mixed())
    # bfloat16 has 8 bits; ten steps at the rate 0.05 move weights by some tenths.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.05), variables, exact)


@pytest.mark.usefixtures("flax_promotes")
def test_dropout_has_its_random_numbers():
    trainer, (variables, _) = one_epoch(Mixed(rate=0.5))
    kernel = variables["params"]["Dense_1"]["kernel"]
    assert np.isfinite(kernel).all()
    assert (kernel[0] != kernel[1]).any()
    with pytest.raises(ValueError, match="first must be 0 to 0, got 1"):
        next(trainer.epochs({"params": {}}, {}, jax.random.split(jax.random.key(0), 2), first=1))
