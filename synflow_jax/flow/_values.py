"""Intermediate values of flow mode: an array, its kind, and how a signal was computed.

A signal is a value that depends on the network's input. It is represented as an elementwise
function of a root, y = φ(r): `plain` is φ(r) as the network computes it, with constants and signs,
and `line` is the flow while φ is linear or a ReLU. `Walk.flow` returns the line, or r·sg(|φ(r)/r|)
if there is none, where sg stops the gradient.
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

TINY = 1e-30  # stands for a root of 0 in φ(r)/r; its square is 0, as that of 0 is
freeze = jax.lax.stop_gradient


class Kind(IntEnum):
    """What a value depends on; a result has the largest kind of its operands, unless ruled less."""

    CONSTANT = 0  # neither params nor input
    WEIGHT = 1  # params, or frozen statistics of a signal
    DISCRETE = 2  # integers or bools of the input: token ids, masks
    ROUTED = 3  # integers and bools computed from a signal: argmax, top-k
    SIGNAL = 4  # floating, and dependent on the input


class Root:
    """A signal whose flow is decided; `images` holds its reshaped copies, by key."""

    def __init__(self, array: jax.Array) -> None:
        self.array = array
        self.images: dict[Any, Root] = {}

    @cached_property
    def safe(self) -> jax.Array:
        """The root with TINY in place of 0, without gradient: the r of φ(r)/r."""
        return freeze(jnp.where(jnp.abs(self.array) > TINY, self.array, TINY))


@dataclass(frozen=True, eq=False)
class Value:
    """An array and what flow mode knows of it.

    Which rules set and which read what is known of a signal:

      reduced, maxed: set by `reduced` (sums, maxima); read by `add` (centring), `div`, powers.
      frozen: set by negative powers, `rsqrt` and `div`; read by `Walk.settle`, which turns the
        signal into a factor, and by `mul` and `div`, where it meets its own root.
      shifted: set by `add` where a maximum is subtracted; read by `elementwise` at exp (softmax).
      line, offset, exponent, at: set by `chain`; read by `Walk.flow`, which decides and notes.
      count: set by products of two signals; read by `balanced`.
      terms, behind: set by sums, products of signals and whatever combines signals; read by sums.

    Attributes:
      kind: what the value depends on.
      array: the array; None for a signal.
      origin: an object shared by all values that were computed from the same signal alone.
      reduced: the number of reductions since the origin.
      maxed: whether the last of them was a maximum.
      ways: the number of experts of a routed one-hot, otherwise 0.
      root: of a signal, the `Root` r.
      plain: of a signal, φ(r) as the network computes it.
      line: of a signal, the flow while φ is linear or a ReLU, otherwise None.
      count: the number of factors that share the flow of a product.
      terms: of a signal, as how many terms it counts in a sum with a signal that was not computed
        from it: 1 behind a kernel, the number of terms of a sum; a number or a floating scalar.
      behind: of a signal, the origins of the signals that it was computed from, its own left out.
      frozen: whether a signal is a negative power of a reduced signal: a factor, unless it meets
        its own root.
      shifted: whether its own maximum was subtracted from a signal: its exp begins a softmax.
      offset: the equation that added a constant to the line.
      exponent: the equation of an exp for which a gate stands in the line.
      at: the equation after which there was no line any more.
      decided: the flow or the factor, in a list, once it is computed.
    """

    kind: Kind
    array: Any
    origin: Any = field(default_factory=object)
    reduced: int = 0
    maxed: bool = False
    ways: int = 0
    root: Any = None
    plain: Any = None
    line: Any = None
    count: int = 1
    terms: Any = 1.0
    behind: frozenset[Any] = frozenset()
    frozen: bool = False
    shifted: bool = False
    offset: Any = None
    exponent: Any = None
    at: Any = None
    decided: list[Any] = field(default_factory=list)

    @property
    def is_signal(self) -> bool:
        """Whether the value carries flow."""
        return self.kind is Kind.SIGNAL

    @property
    def dtype(self) -> Any:
        """The dtype of the value in the network."""
        return self.plain.dtype if self.is_signal else self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value in the network."""
        return self.plain.shape if self.is_signal else jnp.shape(self.array)

    @property
    def raw(self) -> Any:
        """The value in the network: φ(r) of a signal, the array of any other."""
        return self.plain if self.is_signal else self.array


LINEAGE = ("origin", "reduced", "maxed", "count", "terms", "behind")


def signal(array: jax.Array, like: Value | None = None, **changes: Any) -> Value:
    """Make a signal that is its own root; the attributes in LINEAGE are those of `like`."""
    root = Root(array)
    new = {"root": root, "plain": root.safe, "line": array, **changes}
    if like is None:
        return Value(Kind.SIGNAL, None, **new)
    kept = {name: getattr(like, name) for name in LINEAGE}
    return Value(Kind.SIGNAL, None, **{**kept, **new})


def carried(value: Value) -> dict[str, Any]:
    """Return what linear functions of a signal keep of it besides its array."""
    return {"count": value.count, "terms": value.terms, "behind": all_behind(value)}


def all_behind(*values: Value) -> frozenset[Any]:
    """Return the origins of all signals that a result of these signals is computed from."""
    return frozenset().union(*(value.behind | {value.origin} for value in values))


def uniform_value(value: Value) -> np.ndarray | None:
    """Return the one number of a constant whose entries are all equal; None for any other value.

    Traced constants have no known entries. Entries that are all NaN count as equal.
    """
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
    """Return |c| with derivative 1 at 0; leave arrays of whole numbers and bools unchanged."""
    if jnp.iscomplexobj(array):
        return jnp.where(array == 0, array, jnp.abs(array).astype(array.dtype))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return jnp.where(array < 0, -array, array)


def reciprocal(array: jax.Array) -> jax.Array:
    """Return 1/c, and 0 where c is 0."""
    positive = jnp.abs(array) > 2 * TINY
    return jnp.where(positive, 1 / jnp.where(positive, array, 1), 0)


def gate(root: Root, plain: jax.Array) -> jax.Array:
    """Return |φ(r)/r| without gradient: at most 1e6 at r = 0, and 1 where it is not finite."""
    ratio = jnp.abs(plain.astype(root.array.dtype) / root.safe)
    ratio = jnp.where(root.array == 0, jnp.minimum(ratio, 1e6), ratio)
    return freeze(jnp.where(jnp.isfinite(ratio), ratio, 1)).astype(root.array.dtype)


def balanced(f: Value, g: Value, flows: tuple[Any, Any], multiply: Callable[..., Any]) -> Any:
    """Multiply two signals, sharing the flow by count: (a·f·sg(g) + b·sg(f)·g)/(a + b)."""
    first = multiply(flows[0], freeze(flows[1]))
    second = multiply(freeze(flows[0]), flows[1])
    share = f.count / (f.count + g.count)
    return share * first + (1 - share) * second


def in_shape(value: Value, key: Any, move: Callable[[Any], Any]) -> Value:
    """Apply a change of shape or dtype, `move`, to a signal and to its root.

    The same root and key give the same new root, so that signals of one root can still be combined.
    """
    image = value.root.images.get(key)
    if image is None:
        image = value.root.images[key] = Root(move(value.root.array))
    line = None
    if value.line is not None:
        line = image.array if value.line is value.root.array else move(value.line)
    plain = image.safe if value.plain is value.root.safe else move(value.plain)
    return replace(value, root=image, plain=plain, line=line, decided=[])
