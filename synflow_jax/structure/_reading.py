"""The reading of a network: the role and the axes of each leaf, and what breaks homogeneity."""

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax

from synflow_jax.structure._marks import Kind, Mark, join
from synflow_jax.structure._rules import RULES
from synflow_jax.structure._walk import Found, Noted, Walk, input_mark, leaf_mark
from synflow_jax.trees import (
    ApplyFn,
    Function,
    Inputs,
    Params,
    as_function,
    call_network,
    call_traced,
    floating_dtype,
    is_weight,
    named_leaves,
    widen,
)

# The role of a leaf that is met in several is the first of these. A summand is an added leaf that
# is a kernel elsewhere: that of a recurrent layer whose first state is 0, or one with a penalty.
ROLES = ("table", "added", "kernel", "summand", "scale")
WHY = {
    "table": "looked up by whole numbers",
    "added": "added to a signal",
    "scale": "multiplied entry by entry",
    "unused": "not used",
    "unclear": "met by an operation that is not known, and not named as a kernel is",
    "vector": "one axis a layer",
    "type": "not floating",
    "empty": "empty",
}


@dataclass(frozen=True)
class Use:
    """How a network uses one leaf.

    Attributes:
      path: where the leaf stands.
      shape: of the leaf.
      role: "kernel" (contracted with a signal), "table" (looked up by whole numbers), "added" to a
        signal, "scale" (multiplied with it entry by entry), "unused", "unclear" (an output depends
        on it by an operation that is not known), "vector" (a kernel or slices of one axis), "type"
        (not floating) or "empty".
      layers: the axes along which layers are stacked, () for a leaf of one layer; two of them are
        those of loops inside of each other.
      inputs: the axes that lie along the inputs of a unit; of a table, its rows.
      outputs: the axes that lie along the units.
      roles: all roles in which it is met.
      sums: the axes that a product sums over for one unit, those of a filter's window left out.
      order: how many leaves meet a signal before this one; None if it meets none.
      where: the line where it first does, as file:line (function).
      bent: whether a signal meets it behind exp or its kind, as a rate of decay, or with a constant
        added, as the s of 1 + s.
      needed: whether every output is 0 where the leaf is 0, biases left out.
    """

    path: str
    shape: tuple[int, ...]
    role: str
    layers: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    sums: tuple[int, ...] = ()
    roles: frozenset[str] = frozenset()
    order: int | None = None
    where: str = ""
    bent: bool = False
    needed: bool = False

    @property
    def is_kernel(self) -> bool:
        """Whether the leaf is pruned by default."""
        return self.role == "kernel"

    @property
    def why(self) -> str:
        """Why the leaf is left whole by default; empty for a kernel."""
        return WHY.get(self.role, "")


class Stack(int):
    """The number of layers of a leaf.

    Attributes:
      axes: the axes along which the layers lie: mostly one.
      axis: the first of them.
    """

    axes: tuple[int, ...]

    def __new__(cls, layers: int, axes: int | tuple[int, ...] = 0) -> "Stack":
        """Make a number of layers along an axis, or along several."""
        made = super().__new__(cls, layers)
        made.axes = axes if isinstance(axes, tuple) else (axes,)
        return made

    @property
    def axis(self) -> int:
        """The first axis along which the layers lie."""
        return self.axes[0]


@dataclass(frozen=True)
class Break:
    """A place where R is not linear in a factor on a layer, or where its sign may change.

    Attributes:
      breaks: "elementwise", "product", "normaliser", "centring", "transform", "subtraction",
        "detached" (no gradient passes) or "unknown" (an operation without a rule).
      operation: the name of the operation.
      where: the line, as file:line (function).
      paths: the leaves behind it.
      of_weights: whether it is a function of leaves alone, as weight standardisation is.
    """

    breaks: str
    operation: str
    where: str
    paths: frozenset[str]
    of_weights: bool


@dataclass(frozen=True)
class Reading:
    """What a trace of a network says.

    Attributes:
      uses: of each leaf of the params, in tree order.
      breaks: what breaks homogeneity on the way to an output.
      subtractions: where something is subtracted from a signal.
      shut: the paths of the leaves that the outputs depend on without a gradient.
      detached: where stop_gradient takes it from them.
      first: the paths of the kernels that no other kernel comes before.
      last: the paths of the kernels that no other kernel comes after.
    """

    uses: tuple[Use, ...]
    breaks: tuple[Break, ...]
    subtractions: tuple[Break, ...]
    shut: frozenset[str] = frozenset()
    detached: tuple[Break, ...] = ()
    first: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()

    @cached_property
    def by_path(self) -> dict[str, Use]:
        """The uses, by path."""
        return {use.path: use for use in self.uses}

    @cached_property
    def kernels(self) -> frozenset[str]:
        """The paths of the kernels."""
        return frozenset(use.path for use in self.uses if use.is_kernel)

    @property
    def stacks(self) -> dict[str, "Stack"]:
        """The leaves that hold several layers, with their numbers of layers."""
        found = [use for use in self.uses if use.layers]
        counts = [math.prod(use.shape[axis] for axis in use.layers) for use in found]
        pairs = zip(found, counts, strict=True)
        return {use.path: Stack(count, use.layers) for use, count in pairs}

    @property
    def order(self) -> tuple[str, ...]:
        """The paths of the leaves that meet a signal, in the order in which they do."""
        met = [use for use in self.uses if use.order is not None]
        return tuple(use.path for use in sorted(met, key=lambda use: use.order or 0))

    def breaks_of(self, paths: Any) -> tuple[Break, ...]:
        """List the breaks behind which one of these leaves lies."""
        return tuple(one for one in self.breaks if one.paths & frozenset(paths))


def read_network(fn: ApplyFn, params: Params, inputs: Inputs) -> Reading:
    """Trace a network on ones, at |θ|, and read its structure.

    Args:
      fn: fn(params, x) -> y, the user's own function.
      params: any pytree of arrays; only shapes and dtypes are read.
      inputs: the inputs of one example.
    """
    named_leaves(params)  # refuses what is no array
    wide, called = jax.eval_shape(widen, params), as_function(fn, "apply_fn")
    x = jax.eval_shape(lambda: inputs.ones(floating_dtype(wide)))
    with jax.default_matmul_precision("highest"):  # as in scoring, so that both share one trace
        closed = jax.make_jaxpr(partial(call_network, partial(call_traced, called)))(wide, x)
    return read_trace(closed, params)


def read_loss(loss_fn: Function, params: Params, batch: Any) -> Reading:
    """Trace loss_fn(params, batch), and read how it uses the leaves."""
    with jax.default_matmul_precision("highest"):
        shapes = jax.eval_shape(widen, (params, batch))
        closed = jax.make_jaxpr(partial(call_traced, loss_fn))(*shapes)
    return read_trace(closed, params)


def read_trace(closed: Any, params: Params) -> Reading:
    """Follow a trace of which the first inputs are the leaves, and the others the data."""
    pairs = named_leaves(params)
    walk, marks = _walked(closed, params)
    pairs_out = zip(marks, closed.out_avals, strict=True)
    outputs = [mark for mark, aval in pairs_out if is_weight(aval)]
    for mark in outputs:  # leaves that are returned meet no signal
        for leaf in mark.parts:
            walk.found[leaf].roles.add("table" if mark.kind is Kind.ROUTED else "added")
    out = join(outputs)
    uses = tuple(
        _use(*pair, one, bool(out.leaves >> bit & 1), bool(out.needed >> bit & 1))
        for bit, (pair, one) in enumerate(zip(pairs, walk.found, strict=True))
    )
    paths = [path for path, _ in pairs]
    notes = list(enumerate(walk.notes.values()))
    reached = [one for bit, one in notes if out.breaks >> bit & 1]
    below = [one for _, one in notes if one.breaks in ("subtraction", "centring")]
    shut = out.leaves & ~out.attached
    detached = [one for _, one in notes if one.breaks == "detached" and one.leaves & shut]
    return Reading(
        uses,
        tuple(_as_break(one, paths) for one in reached),
        tuple(_as_break(one, paths) for one in below),
        frozenset(path for bit, path in enumerate(paths) if shut >> bit & 1),
        tuple(_as_break(one, paths) for one in detached),
        frozenset(paths[bit] for bit in walk.first),
        frozenset(path for bit, path in enumerate(paths) if out.kernels >> bit & 1),
    )


def find_lookups(closed: Any, params: Params) -> dict[int, set[int]]:
    """Return the numbers of the leaves that equations of a trace look up, by id(equation)."""
    return _walked(closed, params)[0].lookups


def _walked(closed: Any, params: Params) -> tuple[Walk, list[Mark]]:
    """Follow a trace; return the pass, and the marks of the outputs."""
    leaves = jax.tree.leaves(params)
    walk = Walk(RULES, [leaf.ndim for leaf in leaves], [Found() for _ in leaves])
    marks = [leaf_mark(k, leaf) for k, leaf in enumerate(leaves)]
    data = [input_mark(var.aval) for var in closed.jaxpr.invars[len(leaves) :]]
    return walk, walk.run_closed(closed, marks + data)


def _as_break(noted: Noted, paths: list[str]) -> Break:
    behind = frozenset(path for bit, path in enumerate(paths) if noted.leaves >> bit & 1)
    return Break(noted.breaks, noted.operation, noted.where, behind, noted.of_weights)


def _use(path: str, leaf: Any, found: Found, reached: bool, needed: bool) -> Use:
    """Describe the use of a leaf; `reached`: whether an output depends on it."""
    role = next((role for role in ROLES if role in found.roles), "unclear" if reached else "unused")
    role = "added" if role == "summand" else role
    layers = found.layers
    known = found.looked_up if role == "table" else found.sides
    if role == "kernel" and leaf.ndim == 2 and layers == (1,):  # each column by itself
        layers, known = (), flax_sides(2, ())
    inputs, outputs = known or flax_sides(leaf.ndim, layers)
    sums = found.sums if found.sides else inputs
    if role == "kernel" and leaf.ndim - len(layers) < 2:
        role = "vector"
    if not leaf.size:
        role = "empty"
    elif not is_weight(leaf):
        role = "type"
    shape = tuple(leaf.shape)
    roles = frozenset("added" if one == "summand" else one for one in found.roles)
    met = (roles, found.order, found.where, found.bent, needed)
    return Use(path, shape, role, layers, inputs, outputs, sums, *met)


def flax_sides(rank: int, layers: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes of inputs and outputs of a leaf in Flax's layout, (…, in, out)."""
    axes = [axis for axis in range(rank) if axis not in layers]
    return tuple(axes[-2:-1]), tuple(axes[-1:])
