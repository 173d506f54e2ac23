"""Warnings point at the user's own line, and errors have it in their traceback."""

import functools
import importlib.util
import inspect
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

import synflow_jax as sf
from synflow_jax.trees import is_library
from tests.support.nets import WIDTHS, mlp, mlp_params

PARAMS = mlp_params(0)
MAGNITUDE = sf.saliency.magnitude_saliency()
TOO_MUCH = 60.0  # leaves two weights for three layers


def next_line():
    """Number the line after the one that calls this."""
    return inspect.currentframe().f_back.f_lineno + 1


def by_a_preset():
    here = next_line()
    sf.magnitude(PARAMS, TOO_MUCH)
    return here


def by_prune():
    here = next_line()
    sf.prune(PARAMS, MAGNITUDE, TOO_MUCH, 1)
    return here


def by_a_flow_that_dies():
    here = next_line()
    sf.synflow(mlp_params(17, bias=0.0), mlp, WIDTHS[:1], 30.0, rounds=1)
    return here


def by_more_pruned_than_there_was():
    here = next_line()
    sf.synflow(mlp_params(11), mlp, WIDTHS[:1], 6.0, rounds=1)
    return here


def inside_of_jit():
    lines = []

    @jax.jit
    def run(params):
        lines.append(next_line())
        return sf.magnitude(params, TOO_MUCH)

    run(PARAMS)
    return lines[0]


def inside_of_vmap_and_a_lambda():
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    here = next_line()
    jax.vmap(lambda params: sf.magnitude(params, TOO_MUCH))(two)
    return here


class Pruner:
    """A class of the user's."""

    def run(self):
        here = next_line()
        self.masks = sf.magnitude(PARAMS, TOO_MUCH)
        return here


def by_a_partial():
    run = functools.partial(functools.partial(sf.magnitude, PARAMS), TOO_MUCH)
    here = next_line()
    run()
    return here


def by_optax():
    """The transform is called by Optax, which is no line of the user's."""
    tx = optax.chain(optax.clip(1.0), sf.gradual_magnitude(optax.sgd(0.1), TOO_MUCH, end=5))
    here = next_line()
    tx.init(PARAMS)
    return here


def by_flow_mode():
    network = sf.flow_mode(lambda p, x: jnp.prod(x @ p["w"], -1))
    here = next_line()
    sf.log2_flow({"w": jnp.ones((2, 3))}, network, (2,))
    return here


def by_flow_mode_inside_of_jit():
    network = sf.flow_mode(lambda p, x: jnp.prod(x @ p["v"], -1))
    lines = []

    @jax.jit
    def measured(params):
        lines.append(next_line())
        return sf.log2_flow(params, network, (2,))

    measured({"v": jnp.ones((2, 3))})
    return lines[0]


@pytest.mark.parametrize(
    ("call", "category"),
    [
        (by_a_preset, sf.CollapseWarning),
        (by_prune, sf.CollapseWarning),
        (by_a_flow_that_dies, sf.CollapseWarning),
        (by_more_pruned_than_there_was, sf.UncertifiedWarning),
        (inside_of_jit, sf.CollapseWarning),
        (inside_of_vmap_and_a_lambda, sf.CollapseWarning),
        (Pruner().run, sf.CollapseWarning),
        (by_a_partial, sf.CollapseWarning),
        (by_optax, sf.CollapseWarning),
        (by_flow_mode, sf.flow.FlowWarning),
        (by_flow_mode_inside_of_jit, sf.flow.FlowWarning),
    ],
)
def test_a_warning_points_at_the_line_of_the_call(call, category):
    with pytest.warns(category) as found:
        line = call()
    assert {(one.category, one.filename, one.lineno) for one in found} == {
        (category, __file__, line)
    }


USER = """\
import synflow_jax as sf

def pruned(params):
    return sf.magnitude(params, 60.0)
"""


@pytest.mark.parametrize("folder", ["jax", "flax", "synflow_jax", "lib/python3.11/optax"])
def test_a_users_folder_may_be_called_as_a_library_is(folder, tmp_path):
    path = tmp_path / folder / "user.py"
    path.parent.mkdir(parents=True)
    path.write_text(USER)
    spec = importlib.util.spec_from_file_location("user", path)
    user = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(user)
    with pytest.warns(sf.CollapseWarning) as found:
        user.pruned(PARAMS)
    assert [(one.filename, one.lineno) for one in found] == [(str(path), 4)]


def test_files_of_libraries_are_known_by_their_place():
    ours = [sf.__file__, jax.__file__, optax.__file__, functools.__file__, "<frozen runpy>"]
    assert all(map(is_library, ours))
    yours = [__file__, "/home/you/jax/model.py", "/tmp/ipykernel_1/2.py", "<stdin>"]
    assert not any(map(is_library, yours))


WITHOUT_HAIKU = """
import sys
from importlib.machinery import PathFinder

class Finder:
    def find_spec(name, *_):
        return PathFinder.find_spec(name, [sys.argv[1]]) if name == "haiku" else None

sys.meta_path.insert(0, Finder)
from synflow_jax.trees import is_library
assert not is_library(sys.argv[1] + "/haiku/user.py")
"""


def test_a_users_folder_is_no_library_that_is_not_installed(tmp_path):
    (tmp_path / "haiku").mkdir()
    subprocess.run([sys.executable, "-c", WITHOUT_HAIKU, tmp_path], check=True)


def test_a_line_warns_once_and_the_next_one_again():
    """By Python's default filter, which goes by place."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for _ in range(3):
            sf.magnitude(PARAMS, TOO_MUCH)
        sf.magnitude(PARAMS, TOO_MUCH)
    assert len({one.lineno for one in found}) == len(found) == 2


def refused_by_a_preset():
    refused_by_a_preset.line = next_line()
    sf.magnitude(PARAMS, 0.5)


def refused_under_jit():
    def run(params):
        refused_under_jit.line = next_line()
        return sf.synflow(params, mlp, (9,), 2.0)

    jax.jit(run)(PARAMS)


def refused_by_the_network():
    def network(params, x):
        refused_by_the_network.line = next_line()
        raise ValueError("no such layer")

    sf.synflow(PARAMS, network, WIDTHS[:1], 2.0)


def refused_by_the_loss():
    def loss(params, batch):
        refused_by_the_loss.line = next_line()
        return batch["missing"]

    sf.snip(PARAMS, loss, [{"x": 1.0}], 2.0)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (refused_by_a_preset, ValueError),
        (refused_under_jit, ValueError),
        (refused_by_the_network, ValueError),
        (refused_by_the_loss, KeyError),
    ],
)
def test_an_error_has_the_users_line_in_its_traceback(call, error):
    with pytest.raises(error) as caught:
        call()
    lines, one = set(), caught.value
    while one is not None:  # what the user's function raised is the cause of what the library says
        frame = one.__traceback__
        while frame is not None:
            lines.add((frame.tb_frame.f_code.co_filename, frame.tb_lineno))
            frame = frame.tb_next
        one = one.__cause__
    assert (__file__, call.line) in lines
