"""What a run came to, as a table and as numbers for loggers."""

import csv
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import synflow_jax as sf
from tests.support.nets import mlp, mlp_params

# Tiny networks at these ratios lose layers or outputs, which the check says.
pytestmark = pytest.mark.filterwarnings("ignore:check of the network")

SIZES = np.array([35, 42, 24])


def run(seed=0, rho=5.0):
    return sf.prune(mlp_params(seed), sf.synflow_saliency(mlp, (5,)), rho, 6, nested=True)


def test_scalars_are_those_of_the_masks():
    masks, info = run()
    found = sf.show.summary(info).scalars()
    kept = np.array([int(layer["kernel"].sum()) for layer in masks.values()])
    assert found["prune/density"] == pytest.approx(kept.sum() / 101)
    assert found["prune/rho"] == pytest.approx(101 / kept.sum())
    for i, share in enumerate(kept / SIZES):
        assert found[f"prune/density/layer{i}/kernel"] == pytest.approx(share)
    # float32: the flow is measured in two programs
    flow = float(sf.log2_flow(sf.apply_masks(mlp_params(0), masks), mlp, (5,)))
    assert found["prune/log2_flow"] == pytest.approx(flow, abs=1e-4)
    assert found["prune/collapsed_layers"] == 0
    assert found["prune/rounds"] == 6
    assert all(type(value) is float for value in found.values())


def test_history_makes_a_file_of_comma_separated_values():
    info = run()[1]
    rows = sf.show.summary(info).history(prefix="")
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    read = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [float(row["round"]) for row in read] == [1, 2, 3, 4, 5, 6]
    want = [np.ceil(101 * 5 ** (-k / 6)) / 101 for k in range(1, 7)]
    assert [float(row["density"]) for row in read] == pytest.approx(want)
    assert float(read[-1]["log2_flow"]) == pytest.approx(
        sf.show.summary(info).scalars("")["log2_flow"]
    )


def test_what_was_not_measured_is_left_out():
    info = sf.prune(mlp_params(1), sf.saliency.magnitude_saliency(), 2.0, 1)[1]
    names = set(sf.show.summary(info).scalars("")) | set(sf.show.summary(info).history("")[0])
    assert not names & {"log2_flow", "log2_flow_before", "largest_share", "share"}
    assert "log2 flow" not in str(sf.show.summary(info))


def test_it_reads_as_a_table():
    params = mlp_params(2)
    params["layer1"]["kernel"] *= 1e-3
    text = str(sf.show.summary(sf.prune(params, sf.saliency.magnitude_saliency(), 20.0, 1)[1]))
    line = next(line for line in text.splitlines() if "layer1/kernel" in line)
    assert "collapsed" in line and "0.000%" in line
    assert text.count("collapsed") == 1
    total = next(line for line in text.splitlines() if "total" in line)
    assert "101" in total and "6" in total
    caption = " ".join(str(sf.show.summary(run(3)[1])).split())
    assert "ρ = 4.81 in 6 rounds" in caption  # 101 / 21
    assert "of the flow a round" in caption


def test_one_of_several_runs_is_shown():
    stacked = jax.vmap(lambda rho: run(0, rho)[1])(jnp.array([2.0, 3.0]))
    one = jax.tree.map(lambda column: column[1], stacked)
    assert sf.show.summary(one).density == pytest.approx(34 / 101)
