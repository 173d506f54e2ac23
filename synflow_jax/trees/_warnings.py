"""The warnings of the library, each raised at the user's own line.

That line is found by walking up the stack past the files of this package, of JAX, of libraries that
call back through it, and of the standard library.
"""

import importlib.util
import os
import sys
import sysconfig
import warnings
from functools import cache
from pathlib import Path

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "chex", "equinox", "haiku")
GENERATED = ("<frozen", "<string>")  # code that has no file, such as a dataclass's own __init__


class CollapseWarning(UserWarning):
    """A pruned network may have lost a layer, or more: what the masks keep is worth a look.

    Layers without a kept weight, a flow that is 0, outputs or inputs that are cut, layers without a
    gradient, and fewer weights than layers asked for are such losses. Scores of the dense network
    that are all 0 in a layer or negative raise it too, though nothing may be lost: they do not rank
    the weights.
    """


class UncertifiedWarning(CollapseWarning):
    """One round pruned scores that add up to the flow or more: no bound guarantees what is left."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the innermost line on the stack that is in no library.

    The line is therefore the same whether the user calls a function directly, through another
    function of this package, or under a transformation of JAX.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__", "__main__")
    code = frame.f_code
    warnings.warn_explicit(message, category, code.co_filename, frame.f_lineno, name, registry)


def is_library(filename: str) -> bool:
    """Whether a file belongs to this package, to one of LIBRARIES, or to the standard library."""
    if filename.startswith(GENERATED):
        return True
    if "site-packages" not in filename and filename.startswith(_standard_library()):
        return True
    return filename.startswith(_folders())


@cache
def _standard_library() -> str:
    return sysconfig.get_path("stdlib") + os.sep


@cache
def _folders() -> tuple[str, ...]:
    """List the folders in which this package and the libraries are installed."""
    found = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parents[1])]
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)  # does not import the library
        if spec is not None and spec.origin:  # a bare folder of that name has no origin
            found += list(spec.submodule_search_locations or ())
    return tuple(folder + os.sep for folder in found)
