"""Meshes of eight devices, ways to lay params out over them, and networks that run on any."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

WIDTHS = (8, 64, 4)
KINDS = {
    "auto": (AxisType.Auto, AxisType.Auto),
    "explicit": (AxisType.Explicit, AxisType.Explicit),
    "mixed": (AxisType.Explicit, AxisType.Auto),
}
LAYOUTS = {  # of a kernel, and of a bias
    "columns": ((None, "a"), ("a",)),
    "rows": (("a", None), (None,)),
    "both": (("a", "b"), ("b",)),
    "flat": ((None, ("a", "b")), (("a", "b"),)),
    "whole": ((None, None), (None,)),
}


def mesh_of(kind, shape=(4, 2)):
    """Make a mesh of one or two axes."""
    return jax.make_mesh(shape, ("a", "b")[: len(shape)], axis_types=KINDS[kind][: len(shape)])


def spread(tree, mesh, layout):
    """Lay a tree out; an axis that the mesh does not divide stays whole."""

    def put(leaf):
        names = LAYOUTS[layout][leaf.ndim == 1] if leaf.ndim else ()
        spec = [_fitting(n, s, mesh) for n, s in zip(names, leaf.shape, strict=True)]
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    return jax.tree.map(put, tree)


def _fitting(name, size, mesh):
    names = [n for n in ((name,) if isinstance(name, str) else name or ()) if n in mesh.shape]
    fits = names and size % np.prod([mesh.shape[n] for n in names]) == 0
    return tuple(names) if fits else None


def on_explicit(leaf):
    """Whether a leaf lies over Explicit axes."""
    return AxisType.Explicit in jax.typeof(leaf).sharding.mesh.axis_types


def whole(leaf):
    """Bring an activation or a bias to all devices."""
    return jax.sharding.reshard(leaf, PartitionSpec()) if on_explicit(leaf) else leaf


def product(x, kernel):
    """Multiply a whole activation by a kernel; it is the activation that moves, both times."""
    if not on_explicit(kernel):
        return x @ kernel
    rows, columns = jax.typeof(kernel).sharding.spec
    x = jax.sharding.reshard(x, PartitionSpec(None, rows))
    return whole(jnp.einsum("bi,io->bo", x, kernel, out_sharding=PartitionSpec(None, columns)))


def any_mlp(params, x):
    """A ReLU network with biases, whose activations are whole on every device."""
    for i in range(len(params)):
        layer = params[f"layer{i}"]
        x = product(x, layer["kernel"]) + whole(layer["bias"])[None, :]
        x = jax.nn.relu(x) if i + 1 < len(params) else x
    return x


def same_layout(tree, masks):
    """Whether every mask lies as its leaf does."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(masks), strict=True)
    return all(mask.sharding.is_equivalent_to(leaf.sharding, leaf.ndim) for leaf, mask in pairs)


def on_host(tree):
    """Bring a tree to the host, to compare trees that lie on different devices."""
    return jax.tree.map(np.asarray, tree)


def differ(one, other):
    """Count the entries in which two trees differ."""
    pairs = zip(jax.tree.leaves(on_host(one)), jax.tree.leaves(on_host(other)), strict=True)
    return sum(int((a != b).sum()) for a, b in pairs)
