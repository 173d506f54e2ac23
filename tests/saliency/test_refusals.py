"""Networks, shapes, losses and batches that make no saliency are refused by what is wrong."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

import synflow_jax as sf
from tests.support.nets import WIDTHS, batches, mlp, mlp_params
from tests.support.nets import squared_loss as loss
from tests.support.refusals import check_refused, each

PARAMS = mlp_params(0)


def flow(apply_fn=mlp, shape=WIDTHS[:1], params=PARAMS):
    """Prune by the flow of another network, or on another shape."""
    return lambda: sf.synflow(params, apply_fn, shape, 4.0, rounds=3)


def of_rank_two(params, x):
    if x.ndim != 2:
        raise ValueError("two axes please")
    return mlp(params, x)


class Noisy(nn.Module):
    """A network that is left in training mode."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        """Dense, BatchNorm, dropout."""
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Dense(3)(x))
        return nn.Dropout(0.5, deterministic=not self.train)(x)


class Dropped(nn.Module):
    """Dropout alone, left on."""

    @nn.compact
    def __call__(self, x):
        """Dense, dropout."""
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


def noisy(**settings):
    """Score Noisy with settings of its `apply`."""
    variables = Noisy(train=False).init(jax.random.key(0), jnp.ones((1, 4)))
    return flow(partial(Noisy().apply, **settings), (4,), variables)()


DENSE = {"params": {"Dense_0": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}}
SHAPE = "shape must be one example without the batch axis"
NETWORKS = [
    *((f"shape={shape!r}", flow(shape=shape), TypeError, SHAPE, f"got {shape!r}")
      for shape in (5, "5", None, (5.0,), {"x": (5,)})),
    ("an empty axis", flow(shape=(0,)), ValueError, "shape", "sizes of at least 1", "got (0,)"),
    (
        "a shape that does not fit",
        flow(shape=(9,)),
        ValueError,
        "the ones of float32[1, 9]",
        "without the batch axis",
    ),
    (
        "a shape with the batch axis",
        lambda: sf.log2_flow(PARAMS, of_rank_two, (1, 5)),
        ValueError,
        "the ones of float32[1, 1, 5]",
        "without the batch axis",
        "two axes please",
    ),
    (
        "whole numbers for an output",
        flow(lambda p, x: jnp.argmax(mlp(p, x))),
        TypeError,
        "apply_fn must return a floating array",
        "int32",
    ),
    (
        "no output",
        flow(lambda p, x: None),
        TypeError,
        "apply_fn must return a floating array",
        "None",
    ),
    ("no network", flow(None), TypeError, "apply_fn must be a function", "got NoneType"),
    ("training mode", noisy, ValueError, "evaluation mode (train=False", "mutable"),
    (
        "training mode that returns statistics",
        partial(noisy, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}),
        ValueError,
        "evaluation mode (train=False",
        "batch_stats",
    ),
    (
        "dropout that is left on",
        flow(Dropped().apply, (4,), DENSE),
        ValueError,
        "evaluation mode (train=False",
        "rngs",
    ),
    (
        "no temperature",
        lambda: sf.cross_entropy(mlp, 0.0),
        ValueError,
        "temperature must be above 0",
        "got 0",
    ),
]  # fmt: skip


class UsedUp:
    """Looks like a list, reads like an iterator."""

    def __init__(self):
        self.source = iter(batches())

    def __iter__(self):
        return self.source


def with_a_broken_batch():
    found = batches()
    found[1] = (found[1][0] * jnp.nan, found[1][1])
    return found


def on_data(method, loss_fn=loss, load=batches, **options):
    return lambda: method(PARAMS, loss_fn, load(), 2.0, **options)


DATA = [
    ("an iterator", {"load": lambda: iter(batches())}, TypeError, "batches", "pass list(batches)"),
    (
        "a generator",
        {"load": lambda: (b for b in batches())},
        TypeError,
        "batches",
        "pass list(batches)",
    ),
    ("no batch", {"load": list}, ValueError, "batches must hold at least one batch", "got none"),
    (
        "batches that are used up",
        {"load": UsedUp, "rounds": 2},
        ValueError,
        "batches must hold at least one batch each time",
        "pass list(batches)",
    ),
    *(
        (kind, {"load": load}, TypeError, "batches must be a list of batches", kind, "[batch]")
        for kind, load in {
            "int": lambda: 3,
            "str": lambda: "xy",
            "ArrayImpl": lambda: batches()[0][0],
            "dict": lambda: {"x": 1},
        }.items()
    ),
    (
        "one batch for a list",
        {"load": lambda: batches()[0]},
        ValueError,
        "loss_fn(params, batch) failed",
        "shapes [(4, 5)]",
        "batches is a list of batches",
    ),
    (
        "a loss for each output",
        {"loss_fn": lambda p, b: mlp(p, b[0])},
        TypeError,
        "loss_fn must return a floating scalar",
        "got (4, 4)",
    ),
    (
        "a loss that is NaN",
        {"load": with_a_broken_batch},
        ValueError,
        "loss_fn must be finite",
        "got nan on batch 1 of batches",
    ),
    ("no loss", {"loss_fn": None}, TypeError, "loss_fn must be a function", "got NoneType"),
]
METHODS = {"snip": sf.snip, "grasp": sf.grasp}
BY_METHOD = [
    (f"{name}, {case}", on_data(method, **options), error, *named)
    for name, method in METHODS.items()
    for case, options, error, *named in DATA
]
GRASP_ALONE = (
    "grasp reads batches twice a round",
    on_data(sf.grasp, load=UsedUp),
    ValueError,
    "batches must hold at least one batch each time",
    "pass list(batches)",
)


@each([*NETWORKS, *BY_METHOD, GRASP_ALONE])
def test_it_is_refused(call, error, named):
    check_refused(call, error, named)


def test_evaluation_mode_is_not_refused():
    variables = Noisy(train=False).init(jax.random.key(0), jnp.ones((1, 4)))
    masks = sf.synflow(variables, Noisy(train=False).apply, (4,), 2.0)
    assert int(masks["params"]["Dense_0"]["kernel"].sum()) == 6
