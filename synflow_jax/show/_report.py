"""The table of a pruned network: one row a layer, with what is kept and how much flow it has."""

import math
from dataclasses import dataclass
from typing import Any

import jax

from synflow_jax._table import Shown, new_table
from synflow_jax.flow import Outputs, choose_outputs
from synflow_jax.measure import (
    any_log2_flow,
    dead_branches,
    each_layer,
    flow_shares,
    layers_of,
)
from synflow_jax.plan import Layers, choose, find_layers, read_structure
from synflow_jax.selection import count_kept
from synflow_jax.structure import Reading
from synflow_jax.trees import (
    ApplyFn,
    Masks,
    Params,
    Prunable,
    check_masks,
    converted,
    is_weight,
    named_leaves,
    pick,
)


@dataclass(frozen=True)
class Row:
    """One prunable layer.

    Attributes:
      layer: its path.
      shape: of the kernel.
      weights: the number of its weights.
      kept: the number of its kept weights.
      flow: ΣS of the layer over R_SF, both of the pruned network; None if it was not measured.
      state: "collapsed", "dead" or empty.
    """

    layer: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    flow: float | None = None
    state: str = ""

    @property
    def density(self) -> float:
        """Kept over all weights of the layer, between 0 and 1."""
        return self.kept / max(self.weights, 1)


@dataclass(frozen=True)
class Left:
    """A leaf of two or more axes that was not pruned.

    Attributes:
      path: where it stands.
      shape: of the leaf.
      why: why it was left whole.
    """

    path: str
    shape: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class Report(Shown):
    """What `report` returns; prints as a table.

    Attributes:
      rows: one a prunable layer.
      left: the leaves of two or more axes that were left whole, and why.
      log2_flow: log2 R_SF of the dense and of the pruned network; None if it was not measured.
    """

    rows: tuple[Row, ...]
    log2_flow: tuple[float, float] | None = None
    left: tuple[Left, ...] = ()

    @property
    def weights(self) -> int:
        """The number of prunable weights."""
        return sum(row.weights for row in self.rows)

    @property
    def kept(self) -> int:
        """The number of kept weights."""
        return sum(row.kept for row in self.rows)

    def _caption(self) -> str:
        """Write the compression ratio, and the flow if it was measured."""
        rho = f"ρ = {self.weights / self.kept:.4g}" if self.kept else "nothing kept"
        if self.log2_flow is None:
            return rho
        dense, pruned = self.log2_flow
        cut = "" if any(row.kept and not row.state for row in self.rows) else "; no path is left"
        return f"{rho} · log2 flow {dense:.2f} dense, {pruned:.2f} as pruned{cut}"

    def __rich__(self) -> Any:
        """Build the rich table."""
        flows = self.log2_flow is not None
        table = new_table(caption=self._caption())
        table.add_column("layer", overflow="fold")
        for name in ("shape", "weights", "kept", "density", *(["flow"] if flows else []), ""):
            table.add_column(name, justify="right")
        total = Row("total", (), self.weights, self.kept)
        for row in self.rows:
            table.add_row(*_cells(row, flows), style="red" if row.state else None)
        table.add_section()
        table.add_row(*_cells(total, flows), style="bold")
        if self.left:
            table.add_section()
        for leaf in self.left:
            shape, size = "×".join(map(str, leaf.shape)), f"{math.prod(leaf.shape):,}"
            blank = [""] * (3 if flows else 2)
            why = f"left whole: {leaf.why}"
            table.add_row(leaf.path, shape, size, *blank, why, style="dim")
        return table


@converted("params", "masks", shapes=True)
def report(
    params: Params,
    masks: Masks,
    apply_fn: ApplyFn | None = None,
    shape: Any = None,
    *,
    outputs: Outputs | None = None,
    prunable: Prunable | None = None,
    stacked: Any = (),
) -> Report:
    """Make a table of what is kept in each layer, and of the flow through it.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params.
      apply_fn: apply_fn(params, x) -> y; with it and shape, flow is measured as well.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.
      outputs: y -> the outputs whose flow is measured, or their weights by path; None for all.
      prunable: (path, leaf) -> bool, the layers to list.
      stacked: leaves that hold several layers: what `measure.stacked_layers` returns, or a list of
        paths of leaves of shape [layers, …]. By default those that the trace of apply_fn shows.

    Returns:
      A Report, which prints as a table; `.rows` has the numbers. A layer is marked collapsed if it
      has no kept weight, and dead if it has some but lies on no path from input to output, as all
      layers of a chain do where one has collapsed. A leaf that holds several layers is
      listed slice by slice, as path[i].

    Raises:
      ValueError: masks does not fit params, or only one of apply_fn and shape is given.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.ones((2, 2))}
      >>> table = report(weights, {"w": jnp.array([[True, False], [False, False]])})
      >>> table.rows[0].density
      0.25
    """
    check_masks(params, masks)
    if (apply_fn is None) != (shape is None):
        raise ValueError("report needs both apply_fn and shape to measure flow, or neither")
    reading = None
    if apply_fn is not None:
        apply_fn = choose_outputs(apply_fn, outputs)
        reading = read_structure(params, apply_fn, shape)
    listed = _with_pruned(params, masks, prunable, reading)
    layers = find_layers(params, listed, reading, stacked)
    flow, dead, shares = None, (), {}
    if apply_fn is not None:
        # Not log2_flow: the counts are useful even if the flow is not finite.
        dense, pruned = (any_log2_flow(params, apply_fn, shape, m) for m in (None, masks))
        flow = (float(dense), float(pruned))
        dead = dead_branches(params, masks, apply_fn, shape, prunable=listed, stacked=stacked)
        axes = dict(zip(layers.paths, layers.axes, strict=True))
        shares = _shares(params, apply_fn, shape, masks, axes)
    rows = [
        _row(name, mask, shares.get(name), dead)
        for name, mask in each_layer(layers, pick(masks, layers.prunable))
    ]
    return Report(tuple(rows), flow, _left(params, layers, prunable, reading))


def _with_pruned(
    params: Params, masks: Masks, prunable: Prunable | None, reading: Reading | None
) -> Prunable:
    """Choose the layers to list: those that are prunable, and by default those that were pruned."""
    chosen = choose(prunable, reading)
    if prunable is not None:
        return chosen
    pairs = zip(named_leaves(params), jax.tree.leaves(masks), strict=True)
    pruned = {path for (path, _), mask in pairs if not mask.all()}
    return lambda path, leaf: chosen(path, leaf) or path in pruned


def _left(
    params: Params, layers: Layers, prunable: Prunable | None, reading: Reading | None
) -> tuple[Left, ...]:
    """List the leaves of two or more axes that are no layers, and why."""
    pairs = [(path, leaf) for path, leaf in named_leaves(params) if leaf.ndim >= 2]
    return tuple(
        Left(path, tuple(leaf.shape), _why(path, leaf, prunable, reading))
        for path, leaf in pairs
        if path not in layers.paths
    )


def _why(path: str, leaf: Any, prunable: Prunable | None, reading: Reading | None) -> str:
    """Return the reason why a leaf was left whole."""
    if not is_weight(leaf):
        return f"its dtype is {leaf.dtype}"
    if not leaf.size:
        return "it is empty"
    if reading is not None and reading.by_path[path].why:
        return reading.by_path[path].why
    if prunable is not None:
        return "not chosen by prunable"
    return "by its name, a bias, a norm or a table"


def _shares(
    params: Params, apply_fn: ApplyFn, shape: Any, masks: Masks, axes: dict[str, tuple[int, ...]]
) -> dict[str, float]:
    """Sum the flow shares of the weights of each layer, and of each slice of a stacked leaf."""
    found = named_leaves(flow_shares(params, apply_fn, shape, masks)[1])
    parts = [part for path, share in found for part in layers_of(path, share, axes.get(path, ()))]
    return {name: float(share.sum()) for name, share in parts}


def _row(name: str, mask: Any, flow: float | None, dead: tuple[str, ...]) -> Row:
    """Make the row of one layer from its mask, its share of the flow and the names of dead ones."""
    size, kept = int(mask.size), int(count_kept([mask])[0])
    return Row(name, tuple(mask.shape), size, kept, flow, _state(name, size, kept, dead))


def _state(name: str, size: int, kept: int, dead: tuple[str, ...]) -> str:
    """Return "collapsed" for a layer without a kept weight, "dead" for one without flow, or ""."""
    if size and not kept:
        return "collapsed"
    return "dead" if name in dead else ""


def _cells(row: Row, flows: bool) -> list[str]:
    """Format a row; the flow is left out of a table that does not measure it."""
    flow = [] if not flows else ["" if row.flow is None else f"{row.flow:.3g}"]
    shape = "×".join(map(str, row.shape))
    return [
        row.layer,
        shape,
        f"{row.weights:,}",
        f"{row.kept:,}",
        f"{row.density:.3%}",
        *flow,
        row.state,
    ]
