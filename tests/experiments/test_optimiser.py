import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.models import MODELS
from experiments.training.optimiser import Budget, later, learning_rate, optimiser
from experiments.training.settings import ITERATIVE, TRAINED, WATCHED, settings

PLAIN = Budget(8, 10, 0.1, 0.0, None, drops=(3, 6), factor=0.5, optimiser="sgd")
# Optax's schedules mix int and float.
pytestmark = pytest.mark.usefixtures("flax_promotes")
GRADIENT = {"w": jnp.array([3.0, 4.0])}


def test_the_rate_falls_after_the_epochs_that_are_named():
    rates = [float(learning_rate(PLAIN, steps=5)(step)) for step in range(40)]
    np.testing.assert_allclose(rates, [0.1] * 15 + [0.05] * 15 + [0.025] * 10, rtol=1e-6)
    constant = dataclasses.replace(PLAIN, drops=())
    assert {float(learning_rate(constant, 5)(step)) for step in range(40)} == {0.1}


def test_the_rate_falls_along_a_cosine_where_none_are():
    cosine = learning_rate(dataclasses.replace(PLAIN, drops=None), steps=5)
    got = [float(cosine(step)) for step in range(40)]
    # Near its end the cosine is a difference of float32 numbers near 1.
    want = 0.05 * (1 + np.cos(np.pi * np.arange(40) / 40))
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize(("steps", "rate"), [(0, 0.1), (15, 0.05), (39, 0.025)])
def test_later_moves_the_schedule_on(steps, rate):
    tx = optimiser(PLAIN, 5)
    updates, _ = tx.update(GRADIENT, later(tx.init(GRADIENT), jnp.int32(steps)), GRADIENT)
    np.testing.assert_allclose(updates["w"], -rate * GRADIENT["w"], rtol=1e-6)


def test_later_leaves_the_moments_at_their_beginning():
    tx = optimiser(dataclasses.replace(PLAIN, optimiser="adam"), 5)
    state = later(tx.init(GRADIENT), jnp.int32(15))
    counts = [int(count) for _, count in optax.tree_utils.tree_get_all_with_path(state, "count")]
    assert sorted(counts) == [0, 15]


def test_long_gradients_are_cut_before_they_decay():
    tx = optimiser(dataclasses.replace(PLAIN, clip=1.0, weight_decay=0.5), 5)
    params = {"w": jnp.array([1.0, 0.0])}
    updates, _ = tx.update(GRADIENT, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], [-0.1 * (0.6 + 0.5), -0.1 * 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("clip", 0.0),
        ("drops", (6, 3)),
        ("drops", (8,)),
        ("factor", 0.0),
        ("optimiser", "lion"),
        ("precision", "float8"),
    ],
)
def test_a_budget_says_what_it_cannot_be(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, got"):
        dataclasses.replace(PLAIN, **{name: value})


def test_settings_are_the_papers():
    rows = {
        (model, data): (b.epochs, b.learning_rate, b.drops, b.factor, b.weight_decay)
        for data, budgets in TRAINED.items()
        for model, b in budgets.items()
    }
    vgg, resnet = (160, 0.1, (60, 120), 0.1, 1e-4), (160, 0.01, (60, 120), 0.2, 5e-4)
    assert rows["vgg11", "cifar10"] == rows["vgg16", "cifar100"] == vgg
    assert rows["resnet18", "cifar10"] == rows["resnet18", "cifar100"] == resnet
    assert rows["vgg16-tiny", "tiny_imagenet"] == (100, 0.01, (30, 60, 80), 0.2, 1e-4)
    for budget in (ITERATIVE, WATCHED, *(settings(*names) for names in rows)):
        assert (budget.batch_size, budget.clip, budget.optimiser) == (128, None, "nesterov")
    assert {model for model, data in rows if data != "tiny_imagenet"} <= set(MODELS)


def test_settings_refuse_what_the_paper_does_not_train():
    with pytest.raises(ValueError, match=r"dataset must be one of .*, got 'mnist'"):
        settings("vgg16", "mnist")
    with pytest.raises(ValueError, match=r"model must be one of .* on cifar10, got 'fc'"):
        settings("fc", "cifar10")
