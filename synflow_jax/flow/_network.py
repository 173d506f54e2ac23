"""What a network is to those who score it: a function that may prepare its params first."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from synflow_jax.trees import ApplyFn, Function, Params, as_function


class Network(abc.ABC):
    """A network as scoring sees it: called as apply_fn(params, x), with two things more.

    A plain function needs none of this: `as_network` wraps it. A network that is evaluated in
    another way than it was written, as in flow mode, derives from this class.

    Attributes:
      sources: whether leaves that are added to a signal (biases, means) start flow of their own.
    """

    sources: bool = True

    @property
    @abc.abstractmethod
    def plain(self) -> ApplyFn:
        """The network as its user wrote it."""

    @abc.abstractmethod
    def __call__(self, params: Params, x: Any) -> Any:
        """Return the outputs that are scored."""

    def prepare(self, params: Params) -> Params:
        """Change params before masks close what is pruned; by default they stay as they are."""
        return params


@partial(jax.tree_util.register_dataclass, data_fields=["apply_fn"], meta_fields=[])
@dataclass(frozen=True)
class PlainNetwork(Network):
    """A function of the user's, evaluated as it is."""

    apply_fn: Function

    @property
    def plain(self) -> ApplyFn:
        """The function."""
        return self.apply_fn.fn

    def __call__(self, params: Params, x: Any) -> Any:
        """Return the outputs of the function."""
        return self.apply_fn(params, x)


def as_network(apply_fn: Callable[..., Any]) -> Network:
    """Wrap a plain function; a `Network` is returned as it is."""
    if isinstance(apply_fn, Network):
        return apply_fn
    return PlainNetwork(as_function(apply_fn, "apply_fn"))
