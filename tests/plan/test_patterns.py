"""Units of several weights: counts, ties and rounds against a plain run in NumPy float64."""

import itertools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.meshes import WIDTHS, any_mlp, differ, mesh_of, on_host, same_layout, spread
from tests.support.nets import mlp, mlp_params

# Tiny networks at these ratios lose layers or outputs, which the check says.
pytestmark = pytest.mark.filterwarnings("ignore:check of the network")

WIDE = (6, 10, 7, 4)
SHAPE = WIDE[:1]
PATTERNS = {
    "blocks(2)": (sf.plan.blocks(2), (2, 2)),
    "blocks(3, 4), ragged": (sf.plan.blocks(3, 4), (3, 4)),
    "channels": (sf.channels, (None, 1)),
    "rows": (sf.plan.slices(0), (1, None)),
}


def kernels(params):
    return [np.asarray(layer["kernel"], np.float64) for layer in params.values()]


def units_of(shape, block):
    """List the places of every unit, in the order in which units are numbered."""
    steps = [size or n for size, n in zip(block, shape, strict=True)]
    starts = [range(0, n, step) for n, step in zip(shape, steps, strict=True)]
    return [
        tuple(slice(at, at + step) for at, step in zip(corner, steps, strict=True))
        for corner in itertools.product(*starts)
    ]


def flow_scores(weights, kept):
    """Score every weight of a chain without biases by the flow through it, layer by layer."""
    masked = [np.abs(w) * m for w, m in zip(weights, kept, strict=True)]
    scores = []
    for i, w in enumerate(masked):
        before = np.ones(len(masked[0]))
        for other in masked[:i]:
            before = before @ other
        after = np.ones(masked[-1].shape[1])
        for other in reversed(masked[i + 1 :]):
            after = other @ after
        scores.append(before[:, None] * w * after[None])
    return scores


def by_hand(weights, block, rho, rounds, score):
    """Keep the best units of every round, kept ones and then first ones before others."""
    kept = [np.ones(w.shape, bool) for w in weights]
    units = [(i, at) for i, w in enumerate(weights) for at in units_of(w.shape, block)]
    for k in range(1, rounds + 1):
        count = math.ceil(len(units) * rho ** (-k / rounds) - 1e-9)
        scores = score(weights, kept)
        values = [-scores[i][at].sum() if kept[i][at].any() else math.inf for i, at in units]
        best = [units[place] for place in np.argsort(values, kind="stable")[:count]]
        kept = [np.zeros(w.shape, bool) for w in weights]
        for i, at in best:
            kept[i][at] = True
    return kept, len(best)


@pytest.fixture
def plain(x64):
    """A chain without biases in float64."""
    return mlp_params(3, widths=WIDE, dtype=jnp.float64, bias=0.0)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("rounds", [1, 5])
def test_synflow_keeps_the_units_that_a_run_by_hand_keeps(name, rounds, plain):
    pattern, block = PATTERNS[name]
    expected, count = by_hand(kernels(plain), block, 2.5, rounds, flow_scores)
    saliency = sf.synflow_saliency(mlp, SHAPE)
    with warnings.catch_warnings(action="ignore"):  # one round may take more than all of the flow
        masks, info = sf.prune(plain, saliency, 2.5, rounds, nested=True, pattern=pattern)
    for layer, wanted in zip(masks.values(), expected, strict=True):
        np.testing.assert_array_equal(layer["kernel"], wanted)
        assert layer["bias"].all()
    assert int(info.kept[-1].sum()) == count
    assert list(info.sizes) == [len(units_of(w.shape, block)) for w in kernels(plain)]


def test_methods_with_data_and_magnitude_add_up_their_own_scores(plain):
    def loss(params, batch):
        return jnp.mean(jnp.square(mlp(params, batch)))

    batches = [jnp.asarray(np.random.default_rng(i).standard_normal((4, 6))) for i in range(2)]
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), plain)
    channels = {"pattern": sf.channels}
    found = {
        "magnitude": (sf.magnitude(plain, 3.0, **channels), sf.saliency.magnitude_saliency()),
        "snip": (
            sf.snip(plain, loss, batches, 3.0, **channels),
            sf.saliency.snip_saliency(loss, batches),
        ),
        "grasp": (
            sf.grasp(plain, loss, batches, 3.0, **channels),
            sf.saliency.grasp_saliency(loss, batches),
        ),
    }
    for masks, saliency in found.values():
        scores = kernels(saliency(plain, ones))
        expected, _ = by_hand(kernels(plain), (None, 1), 3.0, 1, lambda *_, s=scores: s)
        for layer, wanted in zip(masks.values(), expected, strict=True):
            np.testing.assert_array_equal(layer["kernel"], wanted)


@pytest.mark.parametrize("pattern", [sf.channels, sf.plan.blocks(2)])
def test_no_more_flow_is_lost_than_the_units_carried(pattern, plain):
    saliency = sf.synflow_saliency(mlp, SHAPE)
    _, info = sf.prune(plain, saliency, 6.0, 8, nested=True, pattern=pattern)
    flow = 2.0 ** np.asarray(info.log2_flow)
    assert np.asarray(info.share).sum() > 0.5
    assert (flow[1:] >= flow[:-1] * (1 - np.asarray(info.share)) - 1e-12).all()


def test_certified_channels_go_down_to_one_a_layer(plain):
    saliency = sf.synflow_saliency(mlp, SHAPE)
    total, layers = sum(WIDE[1:]), len(WIDE) - 1
    options = {"schedule": sf.certified(), "pattern": sf.channels}
    masks, info = sf.prune(plain, saliency, total / layers, **options)
    assert info.kept[-1].tolist() == [1] * layers
    assert bool(info.certified)
    assert math.isfinite(float(info.log2_flow[-1]))
    # A channel that is kept is kept whole.
    assert [int(m["kernel"].sum()) for m in masks.values()] == list(WIDE[:-1])


def test_floors_groups_and_scopes_count_units(plain):
    least = sf.synflow(plain, mlp, SHAPE, 21 / 6, min_keep=2, pattern=sf.channels)
    assert all(int(m["kernel"].any(0).sum()) >= 2 for m in least.values())
    assert sum(int(m["kernel"].any(0).sum()) for m in least.values()) == 6  # the floors' own sum
    even = sf.synflow(plain, mlp, SHAPE, 2.0, scope=sf.layerwise, pattern=sf.channels)
    assert [int(m["kernel"].any(0).sum()) for m in even.values()] == [5, 4, 2]
    rho = {"layer0/*": 5, "*": 1}
    parted = sf.synflow(plain, mlp, SHAPE, rho, pattern=sf.channels)
    assert [int(m["kernel"].any(0).sum()) for m in parted.values()] == [2, 7, 4]


def test_random_units_do_not_depend_on_how_many_weights_they_have():
    params = {"wide": jnp.ones((500, 8)), "thin": jnp.ones((2, 8))}

    def kept(key):
        return sf.random(key, params, 4.0, pattern=sf.channels)["wide"].any(0).sum()

    draws = jax.vmap(kept)(jax.random.split(jax.random.key(0), 400))
    # Hypergeometric: 4 of 16 units, 2 of them here on average, deviation 0.9; the mean's is 0.045.
    assert abs(float(draws.mean()) - 2) < 0.2


def best_of_runs(scores, length, most):
    """Keep the `most` best of each run along the rows, the first of equals."""
    kept = np.zeros(scores.shape, bool)
    for j in range(scores.shape[1]):
        for start in range(0, scores.shape[0], length):
            run = scores[start : start + length, j]
            kept[start + np.argsort(-run, kind="stable")[:most], j] = True
    return kept


@pytest.mark.parametrize(("length", "rho", "most"), [(4, 2.0, 2), (8, 8.0, 1), (4, 4 / 3, 3)])
def test_runs_keep_the_best_of_each(length, rho, most):
    rng = np.random.default_rng(0)
    # Whole numbers, so that there are ties; 12 and 16 inputs, of which 8 divides one alone.
    kernels = [rng.integers(0, 5, (n, 6)).astype(np.float32) for n in (16, 12)]
    params = {"a": {"kernel": jnp.asarray(kernels[0])}, "b": {"kernel": jnp.asarray(kernels[1])}}
    masks = sf.magnitude(params, rho, scope=sf.runs(length))
    for layer, kernel in zip(masks.values(), kernels, strict=True):
        fits = len(kernel) % length == 0
        wanted = best_of_runs(np.abs(kernel), length, most) if fits else np.ones(kernel.shape, bool)
        np.testing.assert_array_equal(layer["kernel"], wanted)


@pytest.mark.parametrize(("length", "rounds"), [(2, 1), (4, 3)])  # 4, 3, 2 and 1 of four stay
def test_runs_of_several_rounds_score_what_is_left(length, rounds, x64):
    params = mlp_params(5, widths=(8, 12, 16, 4), dtype=jnp.float64, bias=0.0)
    plan = {"rounds": rounds, "schedule": sf.linear, "scope": sf.runs(length)}
    with warnings.catch_warnings(action="ignore"):  # what a round takes may be all of the flow
        masks = sf.synflow(params, mlp, (8,), length, **plan)
    kept = [np.ones(w.shape, bool) for w in kernels(params)]
    for k in range(1, rounds + 1):
        scores = flow_scores(kernels(params), kept)
        most = length - k * (length - 1) // rounds
        left = [np.where(m, s, -1) for m, s in zip(kept, scores, strict=True)]
        kept = [best_of_runs(s, length, most) for s in left]
    for layer, wanted in zip(masks.values(), kept, strict=True):
        np.testing.assert_array_equal(layer["kernel"], wanted)


def test_units_under_vmap_are_those_of_separate_runs(plain):
    def pruned(rho):
        return sf.synflow(plain, mlp, SHAPE, rho, rounds=4, pattern=sf.channels)

    many = jax.vmap(pruned)(jnp.array([2.0, 3.0]))
    for i, rho in enumerate([2.0, 3.0]):
        assert differ(jax.tree.map(lambda m, i=i: m[i], many), on_host(pruned(rho))) == 0


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_units_do_not_depend_on_how_params_lie(kind, x64):
    params = mlp_params(0, widths=WIDTHS, dtype=jnp.float64)
    mesh = mesh_of(kind)
    runs = (
        lambda p: sf.synflow(p, any_mlp, WIDTHS[:1], 4.0, rounds=4, pattern=sf.channels),
        lambda p: sf.magnitude(p, 4.0, pattern=sf.plan.blocks(8, 3)),
        lambda p: sf.magnitude(p, 4.0, scope=sf.runs(4)),
    )
    for run in runs:
        expected = on_host(run(params))
        with jax.set_mesh(mesh):
            there = spread(params, mesh, "both")
            found = run(there)
            assert differ(found, expected) == 0
            assert same_layout(found, there)


def test_what_counts_units_says_so(plain):
    _, info = sf.prune(plain, sf.saliency.magnitude_saliency(), 2.0, pattern=sf.channels)
    assert info.units == "units"
    assert [column.header for column in sf.show.summary(info).__rich__().columns][1] == "units"
    assert sf.prune(plain, sf.saliency.magnitude_saliency(), 2.0)[1].units == "weights"
