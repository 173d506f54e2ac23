"""What cannot be shown is refused, and a path that cannot be written before the work is done."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import synflow_jax as sf
from tests.support.nets import WIDTHS, all_true, mlp, mlp_params
from tests.support.refusals import check_refused, each

PARAMS = mlp_params(0)
MASKS = all_true(PARAMS)
SHAPE = WIDTHS[:1]


def by_magnitude(params=PARAMS, rho=2.0):
    return sf.prune(params, sf.saliency.magnitude_saliency(), rho, 1)[1]


def to_file(*path):
    """Draw nothing, to a path in the folder: it is looked at first."""
    return lambda folder: sf.visualize(None, None, None, None, folder.joinpath(*path))


def over_a_folder(folder):
    (folder / "net.png").mkdir()
    sf.visualize(None, None, None, None, folder / "net.png")


def draw(masks=MASKS, apply_fn=mlp):
    return lambda folder: sf.visualize(PARAMS, masks, apply_fn, SHAPE)


SUFFIX = "path must end in one of .svg, .png, .pdf"
ROWS = [
    (
        "a network without a shape",
        lambda _: sf.report(PARAMS, MASKS, mlp),
        ValueError,
        "report needs both apply_fn and shape",
        "or neither",
    ),
    (
        "several runs",
        lambda _: sf.show.summary(
            jax.vmap(lambda rho: by_magnitude(rho=rho))(jnp.array([2.0, 3.0]))
        ),
        ValueError,
        "info must be of one run",
        "runs of shape (2,)",
        "column[i]",
    ),
    (
        "a dict for an info",
        lambda _: sf.show.summary({"density": 1}),
        TypeError,
        "info must be a PruneInfo",
        "got a dict",
    ),
    (
        "a summary under jit",
        lambda _: jax.jit(lambda p: sf.show.summary(by_magnitude(p)).density)(PARAMS),
        TypeError,
        "info must be of known value",
        "outside of jit",
    ),
    (
        "a suffix it does not draw",
        lambda _: sf.visualize(None, None, None, None, "net.jpg"),
        ValueError,
        SUFFIX,
        "got 'net.jpg'",
    ),
    ("no suffix", to_file("net"), ValueError, SUFFIX, "net'"),
    (
        "a number for a path",
        lambda _: sf.visualize(None, None, None, None, 3),
        TypeError,
        "path must be the name of a file",
        "got a int",
    ),
    (
        "a folder that is not there",
        to_file("nowhere", "net.svg"),
        FileNotFoundError,
        "path must lie in a folder",
        "nowhere",
    ),
    (
        "a folder for a file",
        over_a_folder,
        IsADirectoryError,
        "path must be a file, and",
        "net.png",
    ),
    (
        "masks of one layer",
        draw({"layer0": MASKS["layer0"]}),
        ValueError,
        "masks must have the tree structure of params",
    ),
    (
        "a picture under jit",
        lambda _: jax.jit(lambda masks: sf.visualize(PARAMS, masks, mlp, SHAPE) and 0)(MASKS),
        TypeError,
        "outside of jit",
    ),
    (
        "a network that uses no layer",
        draw(apply_fn=lambda p, x: x),
        ValueError,
        "apply_fn must use its params",
        "uses none of",
    ),
]


@each(ROWS)
def test_it_is_refused(call, error, named, tmp_path):
    check_refused(partial(call, tmp_path), error, named)


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    check_refused(
        lambda: sf.visualize(PARAMS, MASKS, mlp, SHAPE),
        ImportError,
        ["visualize draws with matplotlib", "pip install 'synflow_jax[plot]'"],
    )


def test_an_infinite_flow_is_reported_and_not_refused():
    """A report is of any network; pruning it is refused."""
    huge = jax.tree.map(lambda leaf: leaf * 1e9, PARAMS)
    table = sf.report(huge, MASKS, lambda p, x: jnp.exp(mlp(p, x)), SHAPE)
    assert "inf dense" in str(table)


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path):
    yield
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
