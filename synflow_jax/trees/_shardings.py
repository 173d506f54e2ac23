"""How arrays lie across devices: what is made beside a leaf of the params lies as the leaf does.

Over mesh axes of type Explicit, the layout is part of an array's type and is asked for by name.
Over Auto axes the compiler chooses it, and is led by an operation that reads the leaf.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes, reshard


def explicit_sharding(leaf: Any) -> Any:
    """Name the sharding of an array over Explicit mesh axes; None where there is no such axis."""
    sharding = jax.typeof(leaf).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def as_if_auto(fn: Callable[..., jax.Array], *arrays: jax.Array, whole: bool = False) -> jax.Array:
    """Run a function that cuts axes apart, which Explicit mesh axes do not bear.

    The result lies as the first array does, or whole on every device.
    """
    sharding = explicit_sharding(arrays[0])
    if sharding is None:
        return fn(*arrays)
    out = NamedSharding(sharding.mesh, PartitionSpec()) if whole else sharding
    run: Any = auto_axes(fn, out_sharding=out)
    return run(*arrays)


def zeros_as(array: Any) -> jax.Array:
    """Make zeros laid out as an array: under a trace, zeros_like would forget a known array's."""
    return jnp.zeros_like(array, device=explicit_sharding(array))


def laid_as(array: jax.Array, leaf: Any) -> jax.Array:
    """Lay an array out across devices as a leaf of its shape, its values unchanged."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return array
    if isinstance(array, Tracer) or isinstance(leaf, Tracer):
        return _led(array, leaf)
    wanted = getattr(leaf, "sharding", None)
    spread = isinstance(wanted, NamedSharding)
    if not spread or array.sharding.is_equivalent_to(wanted, array.ndim):
        return array
    return jax.device_put(array, wanted)


def _led(array: jax.Array, leaf: Any) -> jax.Array:
    if not isinstance(leaf, Tracer) and len(jnp.asarray(leaf).devices()) == 1:
        return array
    sharding = explicit_sharding(leaf)
    array = array if sharding is None else reshard(array, sharding)
    # A choice between equals computes nothing, and the three of it are laid out alike.
    return jnp.where(leaf.astype(bool), array, array)


@partial(jax.jit, static_argnames=("low", "high"))
def uniform_like(key: Any, leaf: Any, low: float = 0.0, high: float = 1.0) -> jax.Array:
    """Draw a uniform float32 for each entry of a leaf, the same however the leaf is laid out."""
    sharding = explicit_sharding(leaf)
    drawn = jax.random.uniform(key, leaf.shape, jnp.float32, low, high, out_sharding=sharding)
    return laid_as(drawn, leaf)


@jax.jit
def permuted(key: Any, leaf: jax.Array) -> jax.Array:
    """Permute the entries of a leaf: the one operation here for which a device holds it whole."""

    def permute(key: Any, leaf: jax.Array) -> jax.Array:
        return jax.random.permutation(key, jnp.ravel(leaf)).reshape(leaf.shape)

    sharding = explicit_sharding(leaf)
    run: Any = permute if sharding is None else auto_axes(permute, out_sharding=sharding)
    return laid_as(run(key, leaf), leaf)
