"""Patterns of names: what is pruned, and tables that say something by pattern."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from synflow_jax.plan._layers import Narrowing, is_prunable
from synflow_jax.trees import Params, Prunable, listed_names, named_leaves, shown_names

REST = "*"


@dataclass(frozen=True)
class Matching(Narrowing):
    """What `matching` returns; equal choices are equal, so that they share compiled programs."""

    patterns: tuple[str, ...]
    but: tuple[str, ...]
    default: Prunable = is_prunable

    def __call__(self, path: str, leaf: Any) -> bool:
        """Whether a leaf is pruned."""
        taken = _any(path, self.patterns) and not _any(path, self.but)
        return taken and self.default(path, leaf)

    def hint(self, paths: Sequence[str]) -> str:
        """Return the remark on brackets, where a pattern would match with them as plain signs."""
        return _brackets((*self.patterns, *self.but), paths)

    def above(self, default: Prunable) -> "Matching":
        """Return the same patterns among the leaves that the default takes."""
        return replace(self, default=default)


def matching(*patterns: str, but: Iterable[str] = ()) -> Matching:
    """Choose what is pruned by the names of leaves, for the argument `prunable`.

    A pattern is a whole path with wildcards as a shell has them, where * stands for any characters,
    / included: "encoder/*", "*/Conv_?/kernel", "block_[0-3]/*". A bracket itself is written "[[]".
    Only leaves that the default takes are chosen: the kernels of the network, or those that
    `is_prunable` takes by name where a method has no apply_fn. Embeddings, biases and norms need a
    function of your own.

    Args:
      *patterns: a leaf must match one of them; without any, all match.
      but: a leaf must match none of these; `layer_order` names the first and the last layer.

    Returns:
      A function (path, leaf) -> bool.

    Raises:
      TypeError: a pattern is no string, or `but` is one string and no list.

    Example:
      >>> import jax.numpy as jnp
      >>> chosen = matching("encoder/*", but=["*/out/kernel"])
      >>> paths = ["encoder/in/kernel", "encoder/out/kernel", "encoder/in/bias", "head/kernel"]
      >>> [chosen(path, jnp.ones((2, 2))) for path in paths]
      [True, False, False, False]
    """
    if isinstance(but, str) or not isinstance(but, Iterable):
        hint = f": pass [{but!r}]" if isinstance(but, str) else ""
        raise TypeError(f"but must be a list of patterns, got a {type(but).__name__}{hint}")
    out = tuple(but)
    for pattern in (*patterns, *out):
        if isinstance(pattern, list | tuple):
            raise TypeError(f"a pattern must be a string: pass those of a list as *{pattern!r}")
        if not isinstance(pattern, str):
            raise TypeError(
                f"a pattern must be a string, got a {type(pattern).__name__}; prunable=matching "
                "needs brackets"
            )
    return Matching(patterns or (REST,), out)


def _any(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def check_matching(params: Params, chosen: Any, name: str) -> None:
    """Refuse patterns that match no leaf: a misspelt exclusion would prune unnoticed."""
    if not isinstance(chosen, Matching):
        return
    paths = [path for path, _ in named_leaves(params)]
    idle = [p for p in (*chosen.patterns, *chosen.but) if not any(fnmatchcase(q, p) for q in paths)]
    if idle:
        raise ValueError(
            f"{name}=matching(…) must have patterns that match leaves, and {idle} match none of "
            f"{listed_names(paths)}{_brackets(idle, paths)}"
        )


def _brackets(idle: Iterable[str], paths: Iterable[str]) -> str:
    """Return, for an error, the pattern that matches with brackets as plain signs, if one does."""
    for pattern in idle:
        plain = pattern.replace("[", "[[]")
        if plain != pattern and any(fnmatchcase(path, plain) for path in paths):
            return f"; brackets are wildcards, [abc] is one of a, b and c: write {plain!r}"
    return ""


def pattern_of(path: str, table: Mapping[str, Any], name: str) -> str | None:
    """Find the one pattern that matches a path; "*" takes what no other does."""
    found = [p for p in table if p != REST and fnmatchcase(path, p)]
    if len(found) > 1:
        raise ValueError(f"{name} has {len(found)} patterns for {path!r}: {found}; one may match")
    return found[0] if found else (REST if REST in table else None)


def check_patterns(paths: tuple[str, ...], table: Any, name: str) -> None:
    """Refuse keys that are no patterns, and patterns that match no layer (misspelt names)."""
    if isinstance(table, Mapping):
        for pattern in table:
            if not isinstance(pattern, str):
                raise TypeError(f"{name} must have patterns as its keys, strings, got {pattern!r}")
        named = [p for p in table if p != REST]
        idle = [p for p in named if not any(fnmatchcase(path, p) for path in paths)]
        if idle or (name == "rho" and not table):
            why = f"{idle} match none of" if idle else "has none; the leaves are"
            raise ValueError(
                f"{name} must have patterns that match prunable leaves, and {why} "
                f"{shown_names(paths)}"
                f"{_brackets(idle, paths)}"
            )
