"""A table of what breaks the theorems in a network, and of what flow mode puts in its place."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from synflow_jax._table import Shown, new_table
from synflow_jax.flow._mode import closed_leaves, walked
from synflow_jax.flow._network import as_network
from synflow_jax.flow._primitives import RULES
from synflow_jax.flow._walk import Walk
from synflow_jax.trees import ApplyFn, Params, as_function, call_on_ones, read_shape, widen

STANDS_IN = {
    "source": "dropped",
    "elementwise": "x·sg(φ(x)/x)",
    "normaliser": "x·sg(1/norm)",
    "centring": "dropped",
    "product": "flow shared among the factors",
    "softmax": "l·sg(1/Σl)",
    "mask": "0 where masked",
    "routing": "1/E",
    "not recognised": "left as it is",
}


@dataclass(frozen=True)
class Break:
    """One place where a network is not homogeneous and monotone, or adds what is no flow."""

    breaks: str  # source, elementwise, normaliser, …
    operation: str
    where: str  # file:line (function)
    count: int  # how often the place was met

    @property
    def stands_in(self) -> str:
        """What flow mode puts in its place."""
        return STANDS_IN[self.breaks]


@dataclass(frozen=True)
class Homogeneity(Shown):
    """Rows of what breaks the theorems, and the leaves that start closed; prints as a table."""

    width: ClassVar[int] = 120

    rows: tuple[Break, ...]
    closed: tuple[str, ...]

    @property
    def unrecognised(self) -> tuple[Break, ...]:
        """The rows for which flow mode has no rule."""
        return tuple(row for row in self.rows if row.breaks == "not recognised")

    def __rich__(self) -> Any:
        """Lay the rows out for rich."""
        said = f"closed leaves: {', '.join(self.closed)}" if self.closed else None
        table = new_table(caption=said if self.rows else said or "homogeneous: nothing to replace")
        for name in ("breaks", "operation", "in flow mode", "×", "where"):
            table.add_column(name, overflow="fold", justify="right" if name == "×" else "left")
        for row in self.rows:
            style = "red" if row in self.unrecognised else None
            cells = (row.breaks, row.operation, row.stands_in, str(row.count), row.where)
            table.add_row(*cells, style=style)
        return table


def homogeneity_report(params: Params, apply_fn: ApplyFn, shape: Any) -> Homogeneity:
    """List what makes a network break f(a·x) = a·f(x), by operation and place in the source.

    Nothing is computed: the network is traced once. A network in flow mode is listed by what it
    was before, so that the same table says what flow mode replaced.

    Args:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode, or flow_mode of it.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      A Homogeneity: `print` shows it, `.rows` has what breaks (with `.stands_in`),
      `.unrecognised` what flow mode has no rule for, `.closed` the leaves of `closed_leaves`.

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
        return call_on_ones(lambda p, x: walked(walk, fn, p, x), p, inputs)

    jax.eval_shape(trace, widen(params))
    counted = Counter(walk.notes)
    rows = [Break(n.rule, n.operation, n.where, times) for n, times in counted.items()]
    return Homogeneity(tuple(rows), closed_leaves(params))
