"""Critical compression: found by bisection, beside a search of every count."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from experiments import critical
from experiments.cells import critical as work
from experiments.cells.network import Network
from experiments.data.dataset import load
from experiments.models import MODELS
from experiments.records import rows as store
from synflow_jax import CollapseWarning

pytestmark = [
    pytest.mark.usefixtures("small_fc"),
    # The ratio is searched at which layers are emptied.
    pytest.mark.filterwarnings("ignore:check of the network"),
]


@pytest.fixture(scope="module")
def network():
    return Network(MODELS["fc"](10), load("digits"), 0)


def fewest(scores):
    """Count how many of the best scores must be kept for every layer to have one."""
    flat = sorted(((score, path) for path, leaf in scores.items() for score in leaf), reverse=True)
    seen, layers = set(), set(scores)
    for count, (_, path) in enumerate(flat, start=1):
        seen.add(path)
        if seen == layers:
            return count
    raise AssertionError


def test_magnitude_loses_a_layer_where_a_search_of_every_count_says(network):
    scores = {
        path: np.abs(np.ravel(layer["kernel"])).tolist() for path, layer in network.params.items()
    }
    found = work.find(network, "magnitude", 0.001)
    exact = math.log10(1480 / fewest(scores))
    assert exact - 0.001 <= found["log10_rho_cr"] + 1e-4
    # ⌈N/ρ⌉ weights stay: the last ρ with `fewest` of them is just below N / (fewest − 1).
    assert found["log10_rho_cr"] <= math.log10(1480 / max(fewest(scores) - 1, 1)) + 1e-4
    assert found["log10_rho_max"] == round(math.log10(740), 4)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_scores_taken_once_give_what_scoring_at_every_ratio_gives(network, method):
    at = work._masks_at(network, method, 1)
    for rho in (3.0, 50.0):
        once, every = at(rho), work.METHODS[method](network, rho, 1)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), once, every))


def test_certified_pruning_reaches_the_maximal_compression(network):
    found = work.find(network, "synflow-certified", 0.1)
    assert found["log10_rho_cr"] == found["log10_rho_max"]
    with pytest.warns(CollapseWarning, match="some layer must collapse"):
        none = work._reached(network, 5000.0)  # beyond N / L: refused
    assert not any(bool(leaf.any()) for leaf in jax.tree.leaves(none))


def test_a_run_leaves_rows_and_a_figure_and_goes_on(tmp_path, capsys):
    config = critical.Config(smoke=True, methods=("synflow", "magnitude"), out=tmp_path)
    critical.main(config)
    rows = store.read(tmp_path / "critical.json")
    assert [row["method"] for row in rows] == ["synflow", "magnitude"]
    assert "SynFlow bears more than any other" in capsys.readouterr().out
    assert (tmp_path / "critical.png").read_bytes()[:4] == b"\x89PNG"
    whole = (tmp_path / "critical.json").read_text()
    critical.main(dataclasses.replace(config, methods=("magnitude",)))
    assert (tmp_path / "critical.json").read_text() == whole  # nothing new: the head stays


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"tolerance": 0.0}, "tolerance must be above 0"),
        ({"models": ("mlp",)}, "models must be one or more of"),
        ({"methods": ()}, "methods must be one or more of"),
    ],
)
def test_what_is_not_allowed_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        critical.Config(**changes)
