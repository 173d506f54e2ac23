"""Shardings: an array made for a leaf of the params is laid out across devices as the leaf is.

Over mesh axes of type Explicit, the sharding is part of an array's type and is requested by name.
Over Auto axes the compiler chooses it, guided by an operation that reads the leaf.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes, reshard


def explicit_sharding(leaf: Any) -> Any:
    """Return the sharding of an array over Explicit mesh axes, None if it has no such axis."""
    sharding = jax.typeof(leaf).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def as_if_auto(
    fn: Callable[..., jax.Array], *arrays: jax.Array, replicated: bool = False
) -> jax.Array:
    """Call a function that splits axes, with Explicit mesh axes taken as Auto: they forbid that.

    The result is sharded as the first array is, or replicated on every device.
    """
    sharding = explicit_sharding(arrays[0])
    if sharding is None:
        return fn(*arrays)
    out = NamedSharding(sharding.mesh, PartitionSpec()) if replicated else sharding
    run: Any = auto_axes(fn, out_sharding=out)
    return run(*arrays)


def whole_everywhere(array: jax.Array) -> jax.Array:
    """Bring an array over Explicit mesh axes whole to every device; others are unchanged."""
    sharding = explicit_sharding(array)
    if sharding is None:
        return array
    return reshard(array, NamedSharding(sharding.mesh, PartitionSpec()))


def zeros_as(array: Any) -> jax.Array:
    """Make zeros sharded as an array is: under a trace, zeros_like drops Explicit shardings."""
    return jnp.zeros_like(array, device=explicit_sharding(array))


def lay_out_as(array: jax.Array, leaf: Any) -> jax.Array:
    """Shard an array as a leaf of the same shape is; its values stay the same."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return array
    if isinstance(array, Tracer) or isinstance(leaf, Tracer):
        return _guided_by(array, leaf)
    wanted = getattr(leaf, "sharding", None)
    named = isinstance(wanted, NamedSharding)
    if not named or array.sharding.is_equivalent_to(wanted, array.ndim):
        return array
    return jax.device_put(array, wanted)


def _guided_by(array: jax.Array, leaf: Any) -> jax.Array:
    """Ask the compiler, under a trace, to shard an array as the leaf is."""
    if not isinstance(leaf, Tracer) and len(jnp.asarray(leaf).devices()) == 1:
        return array
    sharding = explicit_sharding(leaf)
    array = array if sharding is None else reshard(array, sharding)
    # A `where` with twice the same array computes nothing and gives all its operands one sharding.
    return jnp.where(leaf.astype(bool), array, array)


@partial(jax.jit, static_argnames=("low", "high"))
def uniform_like(key: Any, leaf: Any, low: float = 0.0, high: float = 1.0) -> jax.Array:
    """Draw a uniform float32 for each entry of a leaf; the draw does not depend on its sharding."""
    sharding = explicit_sharding(leaf)
    drawn = jax.random.uniform(key, leaf.shape, jnp.float32, low, high, out_sharding=sharding)
    return lay_out_as(drawn, leaf)


@jax.jit
def permute_entries(key: Any, leaf: jax.Array) -> jax.Array:
    """Permute the entries of a leaf at random; one device must be able to hold all of it."""

    def permute(key: Any, leaf: jax.Array) -> jax.Array:
        return jax.random.permutation(key, jnp.ravel(leaf)).reshape(leaf.shape)

    sharding = explicit_sharding(leaf)
    run: Any = permute if sharding is None else auto_axes(permute, out_sharding=sharding)
    return lay_out_as(run(key, leaf), leaf)
