"""Breaks of homogeneity in words, by line of the user's code."""

from collections.abc import Iterable

from synflow_jax.structure._reading import Break

MOST = 4  # lines that a message names


def describe(breaks: Iterable[Break]) -> str:
    """List operations and lines: "square, rsqrt at net.py:3 (norm); exp at …"."""
    lines: dict[str, list[str]] = {}
    for one in breaks:
        names = lines.setdefault(one.where, [])
        if one.operation not in names:
            names.append(one.operation)
    said = [f"{', '.join(names)} at {where}" for where, names in lines.items()]
    more = f"; and {len(said) - MOST} more lines" if len(said) > MOST else ""
    return "; ".join(said[:MOST]) + more
