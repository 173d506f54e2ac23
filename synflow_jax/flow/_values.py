"""What flow mode knows of an intermediate value: its kind, and of a signal how it was made.

A signal depends on the network's input. It is an elementwise function of a root, y = φ(r), kept
undecided: `plain` is φ at the root, constants and signs included, and `line` is the flow as long as
φ is linear or a ReLU. `Walk.flow` decides: the line, or r·sg(|φ(r)/r|).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

TINY = 1e-30  # where φ(r)/r is read at a root of 0; its square is 0, as that of 0 is
MASKED = -1e4  # a summand this low is no bias: it forbids the place, as masks of attention do
freeze = jax.lax.stop_gradient


class Kind(IntEnum):
    """What a value depends on; of two that meet, the larger is the kind of the result."""

    CONSTANT = 0  # neither params nor input
    WEIGHT = 1  # params, or statistics of a signal that are frozen
    DISCRETE = 2  # the integers or truth values of the input: token ids, masks
    ROUTED = 3  # whole numbers and truth values chosen by a signal: argmax, top-k
    SIGNAL = 4


class Root:
    """A signal with its flow settled; `images` are the shapes that it was brought into."""

    def __init__(self, array: jax.Array) -> None:
        self.array = array
        self.images: dict[Any, Root] = {}

    @cached_property
    def safe(self) -> jax.Array:
        """The root away from 0, without gradient: where its elementwise functions are read."""
        return freeze(jnp.where(jnp.abs(self.array) > TINY, self.array, TINY))


@dataclass(frozen=True, eq=False)
class Value:
    """An array and what is known of it; the fields after `ways` speak of signals alone."""

    kind: Kind
    array: Any  # of a signal: None
    origin: Any = field(default_factory=object)  # the same for all that was made of one signal
    reduced: int = 0  # reductions since the origin
    maxed: bool = False  # the last of them a maximum
    ways: int = 0  # of a routed one-hot: the number of experts
    root: Any = None
    plain: Any = None
    line: Any = None
    count: int = 1  # factors that share the flow of a product
    frozen: bool = False  # a power below 0 of a reduced signal: a factor, unless it meets its root
    shifted: bool = False  # less its own maximum: exp of it begins a softmax
    offset: Any = None  # the equation that added a constant
    at: Any = None  # the equation that left the line
    settled: list[Any] = field(default_factory=list)  # the flow, once decided

    @property
    def is_signal(self) -> bool:
        """Whether the value carries flow."""
        return self.kind is Kind.SIGNAL

    @property
    def dtype(self) -> Any:
        """Of the array, or of the elementwise function."""
        return self.plain.dtype if self.is_signal else self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array, or of the elementwise function."""
        return self.plain.shape if self.is_signal else jnp.shape(self.array)

    @property
    def raw(self) -> Any:
        """The value as the network has it, without gradient where it is a signal."""
        return self.plain if self.is_signal else self.array


def signal(array: jax.Array, like: Value | None = None, **changes: Any) -> Value:
    """Make a signal that is its own root; the lineage is that of `like`."""
    root = Root(array)
    new = {"root": root, "plain": root.safe, "line": array, **changes}
    if like is None:
        return Value(Kind.SIGNAL, None, **new)
    kept = {name: getattr(like, name) for name in ("origin", "reduced", "maxed", "count")}
    return Value(Kind.SIGNAL, None, **{**kept, **new})


def known(value: Value) -> np.ndarray | None:
    """Give the number of a constant whose entries are all alike and known while tracing."""
    if value.kind is not Kind.CONSTANT or isinstance(value.array, Tracer):
        return None
    array = value.array
    if jnp.issubdtype(getattr(array, "dtype", np.float32), jax.dtypes.prng_key):
        return None
    found = np.asarray(array)
    if not found.size or not (found == found.flat[0]).all():
        return found.flat[0] if found.size and (found != found).all() else None
    return found.flat[0]


def coefficient(array: jax.Array) -> jax.Array:
    """Take |c|, with slope 1 at 0: a flow has absolute coefficients."""
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return jnp.where(array < 0, -array, array)


def reciprocal(array: jax.Array) -> jax.Array:
    """Take 1/c, and 0 where c is 0: nothing is there to be divided."""
    positive = jnp.abs(array) > 2 * TINY
    return jnp.where(positive, 1 / jnp.where(positive, array, 1), 0)


def gate(root: Root, plain: jax.Array) -> jax.Array:
    """Freeze |φ(r)/r|: finite at r = 0, and 1 where φ is beyond the dtype."""
    ratio = jnp.abs(plain.astype(root.array.dtype) / root.safe)
    ratio = jnp.where(root.array == 0, jnp.minimum(ratio, 1e6), ratio)
    return freeze(jnp.where(jnp.isfinite(ratio), ratio, 1))


def balanced(f: Value, g: Value, flows: tuple[Any, Any], multiply: Callable[..., Any]) -> Any:
    """Multiply two signals so that each factor gets its share: (a f·sg(g) + b sg(f)·g)/(a + b)."""
    first = multiply(flows[0], freeze(flows[1]))
    second = multiply(freeze(flows[0]), flows[1])
    share = f.count / (f.count + g.count)
    return share * first + (1 - share) * second


def in_shape(value: Value, key: Any, move: Callable[[Any], Any]) -> Value:
    """Bring a signal and its root into another shape: the same one for the same root and key."""
    image = value.root.images.get(key)
    if image is None:
        image = value.root.images[key] = Root(move(value.root.array))
    line = None
    if value.line is not None:
        line = image.array if value.line is value.root.array else move(value.line)
    plain = image.safe if value.plain is value.root.safe else move(value.plain)
    return replace(value, root=image, plain=plain, line=line, settled=[])
