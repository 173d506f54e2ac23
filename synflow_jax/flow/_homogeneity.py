"""The report on homogeneity: what breaks it in a network, and what flow mode evaluates instead."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from synflow_jax._table import Shown, new_table
from synflow_jax.flow._closed import closed_leaves
from synflow_jax.flow._mode import run_in_flow_mode
from synflow_jax.flow._network import as_network
from synflow_jax.flow._primitives import RULES
from synflow_jax.flow._walk import Walk
from synflow_jax.trees import (
    ApplyFn,
    Params,
    as_function,
    call_on_ones,
    converted,
    read_shape,
    widen,
)

STANDS_IN = {
    "source": "dropped",
    "elementwise": "x·sg(φ(x)/x)",
    "normaliser": "x·sg(1/norm)",
    "centring": "dropped",
    "product": "flow shared among the factors",
    "softmax": "l·sg(1/Σl)",
    "mask": "0 where masked",
    "transform": "the moduli of its matrix",
    "routing": "1/E",
    "not recognised": "left as it is",
}


@dataclass(frozen=True)
class Break:
    """One place where a network is not homogeneous of degree 1 and monotone.

    Attributes:
      breaks: how, a key of STANDS_IN such as "source" or "normaliser".
      operation: the name of the operation.
      where: the line in the source, as file:line (function).
      count: how often the line was met.
    """

    breaks: str
    operation: str
    where: str
    count: int

    @property
    def stands_in(self) -> str:
        """What flow mode evaluates instead."""
        return STANDS_IN[self.breaks]


@dataclass(frozen=True)
class Homogeneity(Shown):
    """What `homogeneity_report` found; prints as a table.

    Attributes:
      rows: the places that break homogeneity.
      closed: the leaves of `closed_leaves`.
    """

    width: ClassVar[int] = 120

    rows: tuple[Break, ...]
    closed: tuple[str, ...]

    @property
    def unrecognised(self) -> tuple[Break, ...]:
        """The rows for which flow mode has no rule."""
        return tuple(row for row in self.rows if row.breaks == "not recognised")

    def __rich__(self) -> Any:
        """Build the rich table."""
        closed = f"closed leaves: {', '.join(self.closed)}" if self.closed else None
        caption = closed if self.rows else closed or "homogeneous: nothing to replace"
        table = new_table(caption=caption)
        for name in ("breaks", "operation", "in flow mode", "×", "where"):
            table.add_column(name, overflow="fold", justify="right" if name == "×" else "left")
        for row in self.rows:
            style = "red" if row in self.unrecognised else None
            cells = (row.breaks, row.operation, row.stands_in, str(row.count), row.where)
            table.add_row(*cells, style=style)
        return table


@converted("params", shapes=True)
def homogeneity_report(params: Params, apply_fn: ApplyFn, shape: Any) -> Homogeneity:
    """List where a network breaks f(a·x) = a·f(x), by operation and line of the source.

    The network is only traced, once. For a network in flow mode the original one is reported, so
    that the table shows what flow mode replaced.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode, or flow_mode of it.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      A Homogeneity, which prints as a table. `.rows` has the places (`.stands_in` is what flow mode
      evaluates instead), `.unrecognised` those without a rule, `.closed` the leaves of
      `closed_leaves`.

    Raises:
      ValueError: apply_fn fails on an example of this shape.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def network(p, x):
      ...     return jax.nn.gelu(x @ p["w"])
      >>> found = homogeneity_report({"w": jnp.ones((2, 3))}, network, (2,))
      >>> [(row.breaks, row.operation, row.stands_in) for row in found.rows]
      [('elementwise', 'mul', 'x·sg(φ(x)/x)')]

    Source: Tanaka et al. 2020, section 4: the conditions of theorems 1 and 2.
    """
    fn, inputs = as_function(as_network(apply_fn).plain, "apply_fn"), read_shape(shape)
    walk = Walk(RULES)

    def trace(p: Params) -> Any:
        return call_on_ones(lambda p, x: run_in_flow_mode(walk, fn, p, x), p, inputs)

    jax.eval_shape(trace, widen(params))
    counted = Counter(walk.notes)
    rows = [Break(n.rule, n.operation, n.where, times) for n, times in counted.items()]
    return Homogeneity(tuple(rows), closed_leaves(params, apply_fn, shape))
