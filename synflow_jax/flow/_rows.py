"""Lookups of rows, made even: every row of a table is used as much as any other.

An example of ones looks up row 1 of each table. To score the rows of a table, the lookup returns
the sum of all rows instead: ones over the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from synflow_jax.jaxpr import bind, flatten
from synflow_jax.structure import Reading, find_lookups
from synflow_jax.trees import Function, NetworkError, Params, call_traced, pick, place

# What may stand between a table and the lookup.
COPIES = (
    *("convert_element_type", "copy", "stop_gradient", "name", "reduce_precision", "mul", "div"),
    *("transpose", "reshape", "squeeze", "expand_dims", "broadcast_in_dim", "device_put"),
)
Axes = tuple[int, ...]


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=["tied"])
@dataclass(frozen=True)
class Untied:
    """A network in which lookups in tied tables read other arrays than products do.

    Attributes:
      apply_fn: the network.
      tied: for each leaf, whether it is such a table.
    """

    apply_fn: Function
    tied: tuple[bool, ...]

    def __call__(self, state: tuple[Params, list[jax.Array]], x: Any) -> Any:
        """Call the network on (params, what is looked up in place of each tied table)."""
        params, tables = state
        called = partial(call_traced, self.apply_fn)
        closed, shapes = jax.make_jaxpr(called, return_shape=True)(params, x)
        numbers = [at for at, one in enumerate(self.tied) if one]
        looked_up = dict(zip(numbers, tables, strict=True))
        lookups = find_lookups(closed, params)
        wanted = {key for key, leaves in lookups.items() if not leaves.isdisjoint(numbers)}
        results = _evaluate(closed, jax.tree.leaves((params, x)), looked_up, wanted)
        return jax.tree.structure(shapes).unflatten(results)


def _evaluate(
    closed: ClosedJaxpr, arrays: list[Any], tables: dict[int, Any], lookups: set[int]
) -> list[Any]:
    """Evaluate a jaxpr in which some equations, the lookups, read other arrays.

    Args:
      closed: the jaxpr.
      arrays: its inputs.
      tables: by number of an input, the array that lookups read in its place.
      lookups: the identities of the equations.
    """
    env = list(arrays)

    def number(_: Any, known: Any = None) -> int:
        env.append(known)
        return len(env) - 1

    steps, results = flatten(closed, list(range(len(arrays))), number)
    tables, found = dict(tables), set()
    for step in steps:
        operands = [env[at] for at in step.operands]
        untied = [tables.get(at, env[at]) for at in step.operands]
        if not tables.keys().isdisjoint(step.operands):
            if id(step.eqn) in lookups:
                operands = untied
                found.add(id(step.eqn))
            elif step.name in COPIES:
                tables[step.results[0]] = bind(step.eqn, untied)[0]
        for at, array in zip(step.results, bind(step.eqn, operands), strict=True):
            env[at] = array
    if lookups - found:
        raise NetworkError(
            "a table that is also used in products must be looked up outside of loops, branches "
            "and custom derivatives, so that its two uses can be told apart: leave it out by "
            "prunable"
        )
    return [env[at] for at in results]


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=["tables", "tied"])
@dataclass(frozen=True)
class EvenRows:
    """A network in which each lookup in some tables returns the sum of all rows.

    Attributes:
      apply_fn: the network.
      tables: for each leaf that is only looked up, the axes of its rows; () for all others.
      tied: the same, for leaves that are used in products as well.
    """

    apply_fn: Function
    tables: tuple[Axes, ...]
    tied: tuple[Axes, ...]

    def __call__(self, params: Params, x: Any) -> Any:
        """Call the network."""
        flags = tuple(map(bool, self.tables))
        params = place(params, flags, _summed(params, self.tables), lambda leaf: leaf)
        if not any(self.tied):
            return call_traced(self.apply_fn, params, x)
        untied = Untied(self.apply_fn, tuple(map(bool, self.tied)))
        return untied((params, _summed(params, self.tied)), x)


def _summed(params: Params, rows: tuple[Axes, ...]) -> list[jax.Array]:
    """Sum the rows of the tables, given their axes."""
    tables = pick(params, tuple(map(bool, rows)))
    return [_sum_rows(*pair) for pair in zip(tables, filter(None, rows), strict=True)]


def _sum_rows(table: jax.Array, axes: Axes) -> jax.Array:
    """Replace each row of a table by the sum of all rows."""
    return jnp.broadcast_to(jnp.sum(table, axes, keepdims=True), table.shape)


def even_rows(
    apply_fn: Function, reading: Reading, chosen: tuple[bool, ...]
) -> Callable[..., Any] | None:
    """Make the lookups in chosen tables even; None where no table is chosen.

    Args:
      apply_fn: the user's network.
      reading: of it.
      chosen: for each leaf, whether its rows are scored.
    """
    pairs = list(zip(reading.uses, chosen, strict=True))
    rows = [use.inputs if hit and use.role == "table" else () for use, hit in pairs]
    if not any(rows):
        return None
    alone = [use.roles == {"table"} for use in reading.uses]
    tables = tuple(axes if one else () for axes, one in zip(rows, alone, strict=True))
    tied = tuple(() if one else axes for axes, one in zip(rows, alone, strict=True))
    return EvenRows(apply_fn, tables, tied)
