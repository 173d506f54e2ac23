"""The protocol of networks: apply_fn(params, x) -> y, with the params prepared before scoring."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax

from synflow_jax.trees import ApplyFn, Function, Inputs, Params, as_function, call_traced


class Network(abc.ABC):
    """A network that can be scored: called as apply_fn(params, x), on params that it prepares.

    `as_network` wraps a plain function. Subclass this for a network that is not evaluated as it was
    written, as in flow mode. All but `plain` and the call has a default.

    Attributes:
      sources: whether flow starts at leaves that are added to a signal (biases, means).
      homogeneous: whether the network is evaluated so that the laws of flow hold.
    """

    sources: bool = True
    homogeneous: ClassVar[bool] = False

    @property
    def keeps_layers(self) -> bool:
        """Whether shares are even enough that certified rounds can keep flow in every layer."""
        return False

    @property
    @abc.abstractmethod
    def plain(self) -> ApplyFn:
        """The user's own function."""

    @abc.abstractmethod
    def __call__(self, params: Params, x: Any) -> Any:
        """Return the outputs whose sum is the flow."""

    def over(self, apply_fn: Callable[..., Any]) -> "Network":
        """Return a network of this kind around another function, for the scores of tables."""
        del apply_fn
        raise TypeError(
            f"prunable must choose no leaf that is looked up by whole numbers for a network of "
            f"type {type(self).__name__}, unless it defines over(apply_fn)"
        )

    def least_share(self, outputs: int) -> float:
        """Return the smallest share of the flow that an output array of the network has.

        1 where nothing is known of shares, so that an output may lose all of its flow.

        Args:
          outputs: the number of floating output arrays.
        """
        del outputs
        return 1.0

    def prepare(self, params: Params, inputs: Inputs | None = None) -> Params:
        """Return the params to score, before they are masked; by default unchanged."""
        del inputs
        return params

    def signed(self, params: Params, inputs: Inputs) -> tuple[bool, ...]:
        """Flag the leaves, in tree order, that enter with their sign; by default none do."""
        del inputs
        return (False,) * len(jax.tree.leaves(params))

    def closing(self, params: Params, inputs: Inputs) -> tuple[Any, ...] | None:
        """Return the factors by which prepared leaves become those of the network as initialised.

        An array for each leaf, in tree order, that multiplies it; None, the default, where
        `prepare` opens nothing.

        Args:
          params: the params before they are prepared.
          inputs: of one example.
        """
        del params, inputs


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=[])
@dataclass(frozen=True)
class PlainNetwork(Network):
    """A plain function, evaluated unchanged."""

    apply_fn: Function

    @property
    def plain(self) -> ApplyFn:
        """The wrapped function."""
        return self.apply_fn.fn

    def over(self, apply_fn: Callable[..., Any]) -> "PlainNetwork":
        """Wrap another function."""
        return PlainNetwork(as_function(apply_fn, "apply_fn"))

    def __call__(self, params: Params, x: Any) -> Any:
        """Call the wrapped function."""
        return call_traced(self.apply_fn, params, x)


def as_network(apply_fn: Callable[..., Any]) -> Network:
    """Wrap a plain function; return a `Network` unchanged."""
    if isinstance(apply_fn, Network):
        return apply_fn
    return PlainNetwork(as_function(apply_fn, "apply_fn"))
