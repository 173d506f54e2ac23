"""Training and iterative magnitude pruning, beside those of the PyTorch reference, in float64."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.dataset import Dataset, Split
from experiments.models.fc import FC
from experiments.training.imp import IterativePruning, by_magnitude_of_all
from experiments.training.optimiser import Budget
from experiments.training.trainer import Trainer
from tests.support.networks import FIXTURES, NETWORKS

NET = NETWORKS["fc_digits"]
CASES = {  # optimiser, learning rate, decay
    "sgd": ("sgd", 0.05, 0.0),
    "nesterov": ("nesterov", 0.05, 1e-4),
    "adam": ("adam", 1e-3, 0.0),
    "adam_decay": ("adam", 1e-3, 0.01),
    "rmsprop": ("rmsprop", 1e-3, 1e-4),
}
pytestmark = pytest.mark.usefixtures("x64", "flax_promotes")


class Digits(Dataset):
    def normalise(self, images):
        return images.astype(jnp.float64) / 16


class InOrder(Trainer):
    def order(self, key):
        return jnp.arange(self.steps * self.batch).reshape(self.steps, self.batch)


@cache
def answers():
    return dict(np.load(FIXTURES / "trajectories.npz"))


def trainer(*budget):
    stored = np.load(FIXTURES / "digits.npz")
    digits = Split(stored["images_uint8"][..., None], stored["labels"].astype(np.int32))
    data = Digits("digits", digits, digits, classes=10, white=16)
    return InOrder(FC(10), data, Budget(*budget))


def to_linen(tree):
    """Name the layers as Linen does, with a seed axis of one."""
    layers = {f"Dense_{i}": tree[name] for i, name in enumerate(sorted(tree, key=int))}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], layers)


def of_linen(tree):
    """Flatten kernels in the reference's order."""
    kernels = [np.asarray(tree[f"Dense_{i}"]["kernel"][0]) for i in range(len(tree))]
    return [kernel.T.ravel() for kernel in kernels]


@pytest.mark.parametrize("case", CASES)
def test_optimisers_are_those_of_pytorch(case):
    name, rate, decay = CASES[case]
    params, keys = to_linen(NET.params(np.float64)), jax.random.split(jax.random.key(0), 1)
    masks = to_linen(NET.from_flat(NET.mask("exponential_n10_d0.1")))
    whole = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), params)
    masks = {layer: {**whole[layer], **masks[layer]} for layer in whole}
    run = trainer(4, 32, rate, decay, None, (2,), 0.1, name).epochs({"params": params}, masks, keys)
    *_, (variables, scores) = run
    got, kept = of_linen(variables["params"]), of_linen(masks)
    # The same float64 arithmetic in another order.
    near = {"rtol": 1e-12, "atol": 1e-14}
    for layer, part in ((0, "first"), (-1, "last")):
        want = answers()[f"{case}_{part}"]
        np.testing.assert_allclose(got[layer][kept[layer]], want, **near)
    biases = [variables["params"][f"Dense_{i}"]["bias"][0] for i in range(6)]
    np.testing.assert_allclose(biases[-1], answers()[f"{case}_last_bias"], **near)
    norms = [np.linalg.norm(bias) for bias in biases]
    np.testing.assert_allclose(norms, answers()[f"{case}_bias_norms"], rtol=1e-12)
    loss, *tops = answers()[f"{case}_scores"]
    np.testing.assert_array_equal([100 * scores.top1[0], 100 * scores.top5[0]], tops)
    np.testing.assert_allclose(scores.loss[0], loss, rtol=1e-6)  # scores are float32


def test_levels_are_those_of_the_reference():
    keys = jax.random.split(jax.random.key(0), 1)
    training = trainer(5, 32, 0.05, 1e-4, None, (3,))
    levels = IterativePruning(training, keys, choose=by_magnitude_of_all)
    dense = levels.dense({"params": to_linen(NET.params(np.float64))})
    kept = []
    for level in levels.levels(dense, 10**1.5, 3):
        mask = np.concatenate(of_linen(level.masks))
        want = np.unpackbits(answers()[f"level{level.number}_mask"], count=mask.size)
        np.testing.assert_array_equal(mask, want.astype(bool))
        kept.append(int(mask.sum()))
    assert kept == [14990, 4740, 1499]
