"""A pruned network without its dead units: the same function on smaller arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax._table import Shown, new_table
from synflow_jax.compaction._alive import emit_constants, may_be_nonzero
from synflow_jax.compaction._cost import Network, cost_of, multiply_adds
from synflow_jax.compaction._follow import follow
from synflow_jax.compaction._needed import needed
from synflow_jax.compaction._primitives import Entries
from synflow_jax.compaction._shrink import Wrapped, check_small, check_whole
from synflow_jax.compaction._trainable import may_become_nonzero
from synflow_jax.compaction._units import WHOLE, Axes, Stays, Units, taken, whole_axis
from synflow_jax.flow import as_network
from synflow_jax.jaxpr import listed
from synflow_jax.trees import (
    ApplyFn,
    Masks,
    Params,
    apply_masks,
    check_masks,
    converted,
    floating_dtype,
    is_traced,
    named_leaves,
    read_shape,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Compact(Shown):
    """A network without its dead units; prints as a table.

    Attributes:
      params: the small params; pruned weights are 0.
      masks: the small masks.
      apply_fn: apply_fn(params, x), the network on small params, for any batch.
      multiply_adds: of one example, before and after.
      lost: names of the primitives that could not be followed; everything that they touch is whole.
      constant: by leaf, the number of its units that nothing of the input reaches. They stay for
        the constant that they emit, which training may change through their biases.
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
        """Return fn(params, *rest), written for whole params, as a function of small params.

        Args:
          fn: any function of the params and other arguments, such as a training loss. It is traced
            once for each shape of the other arguments.

        Returns:
          The function of small params and the same other arguments. Removed positions are left out
          of its results, too.
        """
        return Wrapped(fn, self._outline, self._gone)

    def take(self, tree: Any) -> Any:
        """Leave the removed positions out of a tree like the whole params.

        Args:
          tree: gradients, moments, or other params, with the structure and shapes of whole params.

        Returns:
          The tree with the shapes of the small params.

        Raises:
          ValueError: tree has another structure, or other shapes.
        """
        check_whole(tree, self._outline)
        leaves, treedef = jax.tree.flatten(tree)
        pairs = zip(leaves, self._stays, strict=True)
        return treedef.unflatten([taken(leaf, stay) for leaf, stay in pairs])

    def expand(self, params: Params) -> Params:
        """Return params of the original shapes, with 0 where units were removed.

        Args:
          params: of the structure and shapes of `.params`, trained or not.

        Returns:
          Whole params.

        Raises:
          ValueError: params have another structure, or other shapes.
        """
        check_small(params, self._outline, self._gone)
        leaves, treedef = jax.tree.flatten(params)
        outline = jax.tree.leaves(self._outline)
        triples = zip(leaves, outline, self._stays, strict=True)
        return treedef.unflatten([_expanded(*triple) for triple in triples])

    def __rich__(self) -> Any:
        """Return a table of the leaves for rich."""
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


@converted("params", "masks")
def compact(params: Params, masks: Masks, apply_fn: ApplyFn, shape: Any) -> Compact:
    """Remove the units that a pruned network does not use, so that it is smaller and faster.

    A unit (a channel, a neuron, a whole head) is dead where everything that flows into it is 0, or
    where nothing of it reaches the output. A dead unit is removed from every array in which it
    stands; apply_fn stays as it is. Units are followed through residual sums, concatenation,
    flattening, pooling, normalisation and grouped convolution. The small network computes the same
    as the masked one, for any batch, and trains alike: a bias of 0 counts as 0 only where its
    gradient is 0, too.

    An axis that is sorted or accumulated along stays whole. Loops, and primitives that are not in
    the table of `compaction/_primitives.py`, are not followed: every axis that they touch stays
    whole, and `lost` names them. An axis of which every unit is dead has size 0.

    Args:
      params: any pytree of arrays.
      masks: bool tree with the treedef of params, True = keep.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode. Arrays that it closes over, such as
        statistics, are cut as well; to train statistics further, pass all variables as params. Of
        `flow_mode(f)`, f is made smaller.
      shape: one example without the batch axis, or a pytree of jax.ShapeDtypeStruct.

    Returns:
      A Compact, with `.params`, `.masks` and `.apply_fn`; `.wrap` makes other functions of params,
      such as a loss in training mode, take small ones; `.expand` goes back; `print` shows a table.

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
    nonzero = nonzero_of(network, may_become_nonzero(pruned, masks, apply_fn, x, outputs))
    kept = needed(network.state, nonzero)
    return without(network, pruned, masks, apply_fn, kept, nonzero)


def network_of(params: Params, apply_fn: ApplyFn, x: Any) -> Network:
    """Follow the units of the params through the network, and keep those of the output whole."""
    listing = listed(apply_fn, params, x)
    count, units = len(jax.tree.leaves(params)), Units()
    inputs = [
        tuple(map(units.fresh if place < count else whole_axis, listing.avals[n].shape))
        for place, n in enumerate(listing.inputs)
    ]
    state = follow(listing, inputs, keep_outputs=True)
    for number in set(listing.inputs) - listing.used():
        state.keep_whole(number)  # another function of the params may use it
    return Network(state, tuple(listing.inputs[:count]))


def nonzero_of(network: Network, leaves: list[np.ndarray]) -> Entries:
    """Find where every value may be other than 0, given bool arrays of where the leaves may be."""
    return may_be_nonzero(network.state.listing, dict(zip(network.leaves, leaves, strict=True)))


def without(
    network: Network,
    pruned: Params,
    masks: Masks,
    apply_fn: ApplyFn,
    kept: np.ndarray,
    nonzero: Entries,
) -> Compact:
    """Remove the units that are not kept.

    Args:
      network: the network, with its units followed.
      pruned: its whole params, pruned weights at 0.
      masks: bool tree, True = keep.
      apply_fn: the network on whole params.
      kept: bool by number of unit.
      nonzero: where every value may be other than 0.
    """
    state, inputs = network.state, network.state.listing.inputs[len(network.leaves) :]
    gone = tuple(state.removed(number, kept) for number in network.leaves)
    outline = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), pruned)
    terms, wrapped = multiply_adds(network), Wrapped(apply_fn, outline, gone)
    costs = cost_of(terms, np.ones_like(kept)), cost_of(terms, kept)
    lost = tuple(dict.fromkeys(eqn.primitive.name for eqn in state.lost))
    alone = _counted(pruned, network, emit_constants(state, nonzero, inputs, kept))
    small = Compact(None, None, wrapped, costs, lost, alone, outline, gone)
    return dataclasses.replace(small, params=small.take(pruned), masks=small.take(masks))


def _counted(params: Params, network: Network, units: np.ndarray) -> dict[str, int]:
    """Count the positions of some units in each leaf, given a bool by number of unit."""
    pairs = zip(named_leaves(params), network.leaves, strict=True)
    found = {
        path: sum(int(units[ids].sum()) for ids in network.names(number))
        for (path, _), number in pairs
    }
    return {path: count for path, count in found.items() if count}
