import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.data import load
from experiments.common.models.fc import FC
from experiments.common.train import Budget, Trainer
from synflow_jax import apply_masks, magnitude


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
