"""The protocol of networks: apply_fn(params, x) -> y, with the params prepared before scoring."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax

from synflow_jax.trees import ApplyFn, Function, Params, as_function


class Network(abc.ABC):
    """A network that can be scored: called as apply_fn(params, x), with `prepare` and `sources`.

    `as_network` wraps a plain function. Subclass this for a network that is not evaluated as it was
    written, as in flow mode.

    Attributes:
      sources: whether flow starts at leaves that are added to a signal (biases, means).
      opens: whether `prepare` opens closed branches, so that what has flow may have no signal.
    """

    sources: bool = True
    opens: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def plain(self) -> ApplyFn:
        """The user's own function."""

    @abc.abstractmethod
    def __call__(self, params: Params, x: Any) -> Any:
        """Return the outputs whose sum is the flow."""

    def prepare(self, params: Params) -> Params:
        """Return the params to score, before they are masked; by default unchanged."""
        return params


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=[])
@dataclass(frozen=True)
class PlainNetwork(Network):
    """A plain function, evaluated unchanged."""

    apply_fn: Function

    @property
    def plain(self) -> ApplyFn:
        """The wrapped function."""
        return self.apply_fn.fn

    def __call__(self, params: Params, x: Any) -> Any:
        """Call the wrapped function."""
        return self.apply_fn(params, x)


def as_network(apply_fn: Callable[..., Any]) -> Network:
    """Wrap a plain function; return a `Network` unchanged."""
    if isinstance(apply_fn, Network):
        return apply_fn
    return PlainNetwork(as_function(apply_fn, "apply_fn"))
