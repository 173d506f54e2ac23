import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.dataset import load
from experiments.models.fc import FC
from experiments.training.imp import IterativePruning, Level, by_magnitude, by_magnitude_of_all
from experiments.training.optimiser import Budget
from experiments.training.trainer import Scores, Trainer

SEEDS, EPOCHS, RHO = 2, 2, 30.0
pytestmark = pytest.mark.usefixtures("flax_promotes")


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def start():
    data, model = load("digits", examples=200), FC(10, width=20, depth=1)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        variables = jax.vmap(lambda key: model.init(key, jnp.ones((1, 8, 8, 1))))(keys)
    return Trainer(model, data, Budget(EPOCHS, 20, 0.05, 1e-4, None, drops=(1,))), keys, variables


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_levels_nest_and_keep_what_is_asked(start, levels):
    trainer, keys, variables = start
    imp = IterativePruning(trainer, keys)
    before = imp.dense(variables)
    done = list(imp.levels(before, RHO, levels))
    assert [level.number for level in done] == list(range(1, levels + 1))
    total = 64 * 20 + 20 * 10
    for level in done:
        kernels = [level.masks[name]["kernel"] for name in ("Dense_0", "Dense_1")]
        kept = sum(np.asarray(mask).sum((1, 2)) for mask in kernels)
        np.testing.assert_array_equal(kept, np.ceil(total * RHO ** (-level.number / levels)))
        assert all(layer["bias"].all() for layer in level.masks.values())
        jax.tree.map(
            lambda new, old: np.testing.assert_array_less(new, old + 1), *both(level, before)
        )
        assert level.history.top1.shape == (EPOCHS, SEEDS)
        before = level


def both(level, before):
    as_int = lambda masks: jax.tree.map(lambda mask: np.asarray(mask, int), masks)
    return as_int(level.masks), as_int(before.masks)


def test_a_level_keeps_the_largest_of_what_was_trained(start):
    trainer, keys, variables = start
    dense = IterativePruning(trainer, keys).dense(variables)
    masks = by_magnitude(dense, RHO)
    for seed in range(SEEDS):
        names = ("Dense_0", "Dense_1")
        sizes = [np.abs(dense.trained["params"][name]["kernel"][seed]).ravel() for name in names]
        kept = np.concatenate([masks[name]["kernel"][seed].ravel() for name in names])
        sizes = np.concatenate(sizes)
        assert sizes[kept].min() > sizes[~kept].max()


def test_rewinding_restores_the_very_weights(start):
    trainer, keys, variables = start
    imp = IterativePruning(trainer, keys)
    dense = imp.dense(variables)
    for level in imp.levels(dense, RHO, 2):
        equal(level.start["params"], variables["params"])
        moved = level.trained["params"]["Dense_0"]["kernel"]
        mask = level.masks["Dense_0"]["kernel"]
        assert not (np.asarray(moved) * ~np.asarray(mask)).any()
        again = trainer.epochs(level.start, level.masks, later_keys(keys, level.number))
        *_, (want, _) = again
        equal(level.trained, want)


def later_keys(keys, number):
    return jnp.stack([jax.random.fold_in(key, number) for key in keys])


def test_rewinding_to_an_early_epoch(start):
    trainer, keys, variables = start
    imp = IterativePruning(trainer, keys, rewind_to=1)
    dense = imp.dense(variables)
    early, _ = next(trainer.epochs(variables, dense.masks, keys))
    for level in imp.levels(dense, RHO, 1):
        equal(level.start["params"], early["params"])
        assert level.history.top1.shape == (EPOCHS - 1, SEEDS)  # its rate goes on from there


def test_without_rewinding_training_goes_on(start):
    trainer, keys, variables = start
    imp = IterativePruning(trainer, keys, rewind_to=None)
    dense = imp.dense(variables)
    first, second = imp.levels(dense, RHO, 2)
    equal(first.start, dense.trained)
    equal(second.start, first.trained)


def test_statistics_stay_as_trained(start):
    trainer, keys, variables = start
    imp = IterativePruning(trainer, keys)
    dense = imp.dense(variables)
    statistics = {"batch_stats": {"mean": jnp.ones((SEEDS, 3))}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "epochs", lambda start, *_, **__: iter([(start, SCORES)]))
        trained = {**dense.trained, **statistics}
        (level,) = imp.levels(dense._replace(trained=trained), RHO, 1)
    equal(level.start, {"params": variables["params"], **statistics})


SCORES = Scores(jnp.zeros(SEEDS), jnp.zeros(SEEDS), jnp.zeros(SEEDS))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_training_that_diverged_is_pruned_like_others(value):
    masks = {"w": jnp.arange(100).reshape(1, 10, 10) % 2 == 0}
    weights = {"params": {"w": jnp.full((1, 10, 10), value)}}
    level = Level(1, 2.0, masks, weights, weights, SCORES)
    new = by_magnitude(level, 10.0)
    assert int(new["w"].sum()) == 10
    assert not (new["w"] & ~masks["w"]).any()


def test_the_papers_code_lets_a_pruned_weight_come_back():
    masks = {"w": jnp.array([[[True, True, False, False]]])}
    trained = {"params": {"w": jnp.array([[[1.0, 2.0, 0.0, 0.0]]])}}
    start = {"params": {"w": jnp.array([[[9.0, 9.0, 1.5, 0.5]]])}}
    level = Level(1, 2.0, masks, start, trained, SCORES)
    assert by_magnitude(level, 2.0)["w"].ravel().tolist() == [True, True, False, False]
    assert by_magnitude_of_all(level, 2.0)["w"].ravel().tolist() == [False, True, True, False]


def test_what_makes_no_sense_is_refused(start):
    trainer, keys, _ = start
    with pytest.raises(ValueError, match="rewind_to must be None or 0 to 1, got 2"):
        IterativePruning(trainer, keys, rewind_to=2)
    empty = Level(0, 1.0, {}, {}, {}, SCORES)
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        next(IterativePruning(trainer, keys).levels(empty, RHO, 0))
