"""Warnings that point at the user's own line, and what tells that line from a library's."""

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
    """No flow is left, or none can be left: the network as pruned computes a constant."""


class UncertifiedWarning(CollapseWarning):
    """A round pruned as much flow as there was: flow is left, but no bound guarantees it."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the innermost line on the stack that belongs to the user.

    Frames of this package, of JAX and of what calls back through it (Flax, Optax, the standard
    library) are passed over, so that the line is the same whether the call was made directly,
    through another function of the library, or under a transformation of JAX.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__", "__main__")
    code = frame.f_code
    warnings.warn_explicit(message, category, code.co_filename, frame.f_lineno, name, registry)


def is_library(filename: str) -> bool:
    """Whether a file belongs to this package, to JAX and its kin, or to the standard library."""
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
    """List the folders of this package and of the libraries, by their place and not their name."""
    found = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parents[1])]
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)  # finds, and does not import
        found += list(spec.submodule_search_locations or ()) if spec is not None else []
    return tuple(folder + os.sep for folder in found)
