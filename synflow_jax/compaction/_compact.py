"""A pruned network without its dead units: smaller arrays, the same function."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax._table import Shown, new_table
from synflow_jax.compaction._constants import emit_constants
from synflow_jax.compaction._cost import Network, cost_of, multiply_adds
from synflow_jax.compaction._follow import follow, zeros
from synflow_jax.compaction._moving import may_move
from synflow_jax.compaction._needed import needed
from synflow_jax.compaction._reshape import Axes
from synflow_jax.compaction._shrink import Stays, removed, taken
from synflow_jax.compaction._units import WHOLE, Units
from synflow_jax.compaction._wrapped import Wrapped, check_small, check_whole
from synflow_jax.compaction._zeros import Entries, may_be_nonzero
from synflow_jax.flow import as_network
from synflow_jax.jaxpr import listed
from synflow_jax.trees import (
    ApplyFn,
    Masks,
    Params,
    apply_masks,
    check_masks,
    floating_dtype,
    is_traced,
    named_leaves,
    read_shape,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Compact(Shown):
    """A network without its dead units; prints as a table.

    Attributes:
      params: what is left of the params, pruned weights at zero.
      masks: what is left of the masks.
      apply_fn: apply_fn(params, x), the network on what is left, for any batch.
      multiply_adds: of one example, dense and on what is left.
      lost: operations that could not be followed, so that all that they touch is whole.
      constant: leaves with units that nothing of the input reaches, and how many: they stay for the
        constant that they emit, which their biases may train.
    """

    params: Params
    masks: Masks
    apply_fn: ApplyFn
    multiply_adds: tuple[int, int]
    lost: tuple[str, ...]
    constant: dict[str, int]
    _outline: Any = dataclasses.field(repr=False)
    _gone: tuple[Axes, ...] = dataclasses.field(repr=False)

    @property
    def _stays(self) -> list[Stays]:
        return [tuple(ids == WHOLE for ids in axes) for axes in self._gone]

    def wrap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Let fn(params, *rest), written for whole params, take what is left of them.

        Args:
          fn: any function of the params and other arguments, such as a training loss; traced anew
            for each shape of these.

        Returns:
          The function of small params and the same other arguments. What it returns has the
          removed positions left out where it has any.
        """
        return Wrapped(fn, self._outline, self._gone)

    def take(self, tree: Any) -> Any:
        """Take what is left of a tree with the structure and shapes of the whole params.

        Args:
          tree: gradients, moments, or other params.

        Returns:
          The same of the small params.

        Raises:
          ValueError: tree is built otherwise, or has other shapes.
        """
        check_whole(tree, self._outline)
        leaves, treedef = jax.tree.flatten(tree)
        pairs = zip(leaves, self._stays, strict=True)
        return treedef.unflatten([taken(leaf, stay) for leaf, stay in pairs])

    def expand(self, params: Params) -> Params:
        """Put small params back in their places among zeros.

        Args:
          params: of the structure and shapes of `.params`, trained or not.

        Returns:
          Whole params.

        Raises:
          ValueError: params are not as the small ones.
        """
        check_small(params, self._outline, self._gone)
        leaves, treedef = jax.tree.flatten(params)
        outline = jax.tree.leaves(self._outline)
        triples = zip(leaves, outline, self._stays, strict=True)
        return treedef.unflatten([_expanded(*triple) for triple in triples])

    def __rich__(self) -> Any:
        """Lay the leaves out for rich."""
        before, after = self.multiply_adds
        table = new_table(caption=f"multiply-adds an example: {before:,} before, {after:,} after")
        for name in ("leaf", "shape", "small", "entries", "small", "kept"):
            table.add_column(name, justify="left" if name == "leaf" else "right", overflow="fold")
        rows = []
        triples = zip(
            named_leaves(self._outline),
            jax.tree.leaves(self.params),
            jax.tree.leaves(self.masks),
            strict=True,
        )
        for (path, whole), small, mask in triples:
            shapes = ["×".join(map(str, leaf.shape)) for leaf in (whole, small)]
            counts = (whole.size, small.size, int(np.count_nonzero(mask)))
            rows.append(counts)
            table.add_row(path, *shapes, *(f"{count:,}" for count in counts))
        table.add_section()
        sums = [f"{sum(column):,}" for column in zip(*rows, strict=True)]
        table.add_row("total", "", "", *sums, style="bold")
        return table


def _expanded(small: Any, whole: Any, stay: Stays) -> Any:
    if all(one.all() for one in stay):
        return small
    places = np.ix_(*[np.flatnonzero(one) for one in stay])
    return jnp.zeros(whole.shape, small.dtype).at[places].set(small)


def compact(params: Params, masks: Masks, apply_fn: ApplyFn, shape: Any) -> Compact:
    """Remove the units that a pruned network does not use, so that it is smaller and faster.

    A unit (a channel, a neuron, a whole head) is removed where nothing that may be other than 0
    flows in, or where nothing of it reaches the output: from every array it stands in, through the
    unchanged apply_fn, residual sums, concatenation, flattening, pooling, normalisation, grouped
    convolution. What is left computes the same, for any batch: biases that are 0 count as 0 only
    where their gradient is 0, too, so that training follows the masked network. An axis that is
    sorted or accumulated along stays whole; what cannot be followed (loops, operations without a
    rule) stays whole in all its axes and is named in `lost`. An axis of which every unit is dead
    has size 0.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params, True = keep.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode; arrays that it holds (statistics) are
        cut along; of `flow_mode(f)` it is f that is made smaller. To train statistics on, have them
        in params: a tree of all variables.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      A Compact, with `.params`, `.masks` and `.apply_fn`; `.wrap` for other functions of params,
      such as a loss in training mode; `.expand` for the way back; `print` shows a table.

    Raises:
      ValueError: masks does not fit params.
      TypeError: masks is not bool, or masks or params are traced.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = {"w": jnp.ones((2, 3)), "v": jnp.ones((3, 1))}
      >>> masks = {"w": jnp.ones((2, 3), bool), "v": jnp.array([[True], [False], [False]])}
      >>> small = compact(weights, masks, lambda p, x: x @ p["w"] @ p["v"], (2,))
      >>> small.params["w"].shape, small.params["v"].shape, small.multiply_adds
      ((2, 1), (1, 1), (9, 3))
    """
    check_masks(params, masks)
    if is_traced(params, masks):
        raise TypeError("params and masks must be of known value: call compact outside of jit")
    pruned, apply_fn = apply_masks(params, masks), as_network(apply_fn).plain
    x = read_shape(shape).ones(floating_dtype(params))
    network = network_of(pruned, apply_fn, x)
    listing = network.state.listing
    outputs = [listing.avals[number] for number in listing.outputs]
    nonzero = nonzero_of(network, may_move(pruned, masks, apply_fn, x, outputs))
    kept = needed(network.state, nonzero)
    return without(network, pruned, masks, apply_fn, kept, nonzero)


def network_of(params: Params, apply_fn: ApplyFn, x: Any) -> Network:
    """Follow the units of the params through the network; those of the output stay."""
    listing = listed(apply_fn, params, x)
    count, units = len(jax.tree.leaves(params)), Units()
    inputs = [
        tuple(map(units.fresh if place < count else zeros, listing.avals[n].shape))
        for place, n in enumerate(listing.inputs)
    ]
    state = follow(listing, inputs, keep_outputs=True)
    for number in set(listing.inputs) - listing.used():
        state.whole(number)  # another function than this one may use it
    return Network(state, tuple(listing.inputs[:count]))


def nonzero_of(network: Network, leaves: list[np.ndarray]) -> Entries:
    """Say where every value may be other than 0, for bool arrays that say so of the leaves."""
    return may_be_nonzero(network.state.listing, dict(zip(network.leaves, leaves, strict=True)))


def without(
    network: Network,
    pruned: Params,
    masks: Masks,
    apply_fn: ApplyFn,
    kept: np.ndarray,
    nonzero: Entries,
) -> Compact:
    """Take the units out that are not kept."""
    state, inputs = network.state, network.state.listing.inputs[len(network.leaves) :]
    gone = tuple(removed(state, number, kept) for number in network.leaves)
    outline = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), pruned)
    terms, wrapped = multiply_adds(network), Wrapped(apply_fn, outline, gone)
    costs = cost_of(terms, np.ones_like(kept)), cost_of(terms, kept)
    lost = tuple(dict.fromkeys(eqn.primitive.name for eqn in state.lost))
    alone = _counted(pruned, network, emit_constants(state, nonzero, inputs, kept))
    small = Compact(None, None, wrapped, costs, lost, alone, outline, gone)
    return dataclasses.replace(small, params=small.take(pruned), masks=small.take(masks))


def _counted(params: Params, network: Network, units: np.ndarray) -> dict[str, int]:
    """Count the positions of these units in each leaf that has any."""
    pairs = zip(named_leaves(params), network.leaves, strict=True)
    found = {
        path: sum(int(units[ids].sum()) for ids in network.names(number))
        for (path, _), number in pairs
    }
    return {path: count for path, count in found.items() if count}
