"""The four reference networks in JAX layout, and the stored answers of the PyTorch reference.

Images are (batch, height, width, channel), convolution kernels (height, width, in, out) and dense
kernels (in, out). The reference stores (out, in, ...) tensors and flattens images channel first;
`to_flat` and `from_flat` translate between a tree and its one flat vector over all pruned tensors.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

FIXTURES = Path(__file__).parents[1] / "fixtures"
REFERENCE: dict[str, dict[str, Any]] = json.loads((FIXTURES / "reference.json").read_text())
LEAF = {"running_mean": "mean", "running_var": "var", "bias": "bias"}
TO_JAX = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
# 0 to 11 are the reference's positions; at the others it keeps a 2x2 max-pool.
VGG11_LAYERS = ("0", "pool", "2", "pool", "4", "5", "pool", "7", "8", "pool", "10", "11")

Params = dict[str, Any]


def patches(x: Array, size: int, stride: int) -> Array:
    """Lay the size x size neighbourhoods of x side by side on the channel axis."""
    margin = size // 2
    x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    rows, columns = ((side - size) // stride * stride + 1 for side in x.shape[1:3])
    x = jnp.concatenate([x[:, :, j : j + columns : stride] for j in range(size)], axis=-1)
    return jnp.concatenate([x[:, i : i + rows : stride] for i in range(size)], axis=-1)


def conv(layer: Params, x: Array, stride: int = 1) -> Array:
    """Convolve with (size - 1) / 2 zeros on both sides, as a matrix product.

    XLA's own convolutions are 10 to 100 times slower inside loops on a CPU.
    """
    kernel = layer["kernel"]
    y = patches(x, kernel.shape[0], stride) @ kernel.reshape(-1, kernel.shape[-1])
    return y + layer["bias"][None, None, None] if "bias" in layer else y


def dense(layer: Params, x: Array) -> Array:
    """Apply x @ kernel + bias to a batch of vectors."""
    return x @ layer["kernel"] + layer["bias"][None]


def norm(layer: Params, x: Array) -> Array:
    """Apply BatchNorm with its running statistics."""
    factor = layer["scale"] / jnp.sqrt(layer["var"] + 1e-5)
    return (x - layer["mean"][None, None, None]) * factor[None, None, None] + layer["bias"][
        None, None, None
    ]


def max_pool(x: Array) -> Array:
    """Take the maximum of 2x2 windows; its gradient goes to the first of equal maxima."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def flatten(x: Array) -> Array:
    """Flatten images in the reference's order: channel, height, width."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def fc_digits(params: Params, x: Array) -> Array:
    """Five hidden layers of 100 units."""
    *hidden, last = sorted(params, key=int)
    x = flatten(x)
    for name in hidden:
        x = jax.nn.relu(dense(params[name], x))
    return dense(params[last], x)


def conv_digits(params: Params, x: Array) -> Array:
    """Two convolutions of 32 channels and a linear layer."""
    x = jax.nn.relu(conv(params["0"], x))
    x = jax.nn.relu(conv(params["2"], x))
    return dense(params["5"], flatten(x))


def block(params: Params, x: Array, stride: int) -> Array:
    """Apply a residual block of two convolutions; an identity shortcut has no params."""
    y = jax.nn.relu(norm(params["bn1"], conv(params["conv1"], x, stride)))
    y = norm(params["bn2"], conv(params["conv2"], y))
    if "shortcut" in params:
        x = norm(params["shortcut"]["1"], conv(params["shortcut"]["0"], x, stride))
    return jax.nn.relu(y + x)


def resnet20(params: Params, x: Array) -> Array:
    """ResNet-20 for CIFAR: nine blocks of 16, 32 and 64 channels."""
    x = jax.nn.relu(norm(params["bn"], conv(params["conv"], x)))
    for name in sorted(params["blocks"], key=int):
        x = block(params["blocks"][name], x, stride=2 if name in ("3", "6") else 1)
    return dense(params["fc"], x.mean((1, 2)))


def vgg11_bn(params: Params, x: Array) -> Array:
    """VGG-11 for CIFAR with BatchNorm, an average pool and one linear layer."""
    for name in VGG11_LAYERS:
        if name == "pool":
            x = max_pool(x)
        else:
            layer = params["layers"][name]
            x = jax.nn.relu(norm(layer["bn"], conv(layer["conv"], x)))
    return dense(params["fc"], x.mean((1, 2)))


def jax_path(name: str) -> tuple[str, ...]:
    """Translate the reference's name of a tensor, "fc.weight", to a path, ("fc", "kernel")."""
    *parents, leaf = name.split(".")
    return *parents, LEAF.get(leaf, leaf)


def put(tree: Params, path: Sequence[str], leaf: Any) -> None:
    """Store a leaf in a nested dict, making its parents."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = leaf


def get(tree: Mapping[str, Any], path: Sequence[str]) -> Any:
    """Read a leaf of a nested dict."""
    for part in path:
        tree = tree[part]
    return tree


@dataclasses.dataclass(frozen=True)
class Network:
    """A reference network: its function, its weights from their seed, its stored answers."""

    name: str
    apply: Callable[[Params, Array], Array]

    @property
    def spec(self) -> dict[str, Any]:
        """What `reference.json` says."""
        return REFERENCE[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, (height, width, channel)."""
        return tuple(self.spec["shape"])

    @cached_property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """Path of every tensor of the reference that is a leaf here; identity shortcuts are not."""
        shapes = {name: shape for name, shape, *_ in self.spec["state"]}
        paths = {name: jax_path(name) for name, shape in shapes.items() if len(shape) != 3}
        kinds = {1: "scale", 2: "kernel", 4: "kernel"}
        return {
            name: (*path[:-1], kinds[len(shapes[name])]) if path[-1] == "weight" else path
            for name, path in paths.items()
        }

    def params(self, dtype: Any = np.float32) -> Params:
        """Draw the weights in float32, cast them and lay them out as a nested dict."""
        rng, tree = np.random.default_rng(self.spec["seed"]), {}
        for name, shape, kind, value in self.spec["state"]:
            draw = rng.standard_normal(shape) * value if kind == "normal" else np.full(shape, value)
            if name in self.paths:
                leaf = draw.astype(np.float32).transpose(TO_JAX[draw.ndim])
                put(tree, self.paths[name], jnp.asarray(leaf.astype(dtype)))
        return tree

    def to_flat(self, tree: Params, names: Sequence[str] | None = None) -> np.ndarray:
        """Concatenate the pruned leaves of a tree of masks or scores in the reference's order."""
        leaves = [
            np.asarray(get(tree, self.paths[name])) for name in names or self.spec["prunable"]
        ]
        return np.concatenate([leaf.transpose(TO_TORCH[leaf.ndim]).ravel() for leaf in leaves])

    def from_flat(self, flat: np.ndarray, names: Sequence[str] | None = None) -> Params:
        """Cut a vector in the reference's order into a nested dict of the pruned leaves."""
        shapes, tree = {name: shape for name, shape, *_ in self.spec["state"]}, {}
        names = names or self.spec["prunable"]
        ends = np.cumsum([np.prod(shapes[name]) for name in names])
        for name, part in zip(names, np.split(flat, ends[:-1]), strict=True):
            put(
                tree,
                self.paths[name],
                part.reshape(shapes[name]).transpose(TO_JAX[len(shapes[name])]),
            )
        return tree

    @cached_property
    def answers(self) -> Mapping[str, np.ndarray]:
        """The stored arrays of the reference."""
        files = sorted(FIXTURES.glob(f"{self.name}*.npz"))
        return {key: value for file in files for key, value in np.load(file).items()}

    def case(self, name: str) -> dict[str, Any]:
        """The settings of a stored case, with the names of its pruned tensors."""
        cases = {**self.spec["cases"], **self.spec["data_cases"]}
        return {"names": self.spec["prunable"], **cases[name]}

    def mask(self, case: str) -> np.ndarray:
        """The reference's float64 mask of a case, flat, True = kept."""
        shapes = {name: shape for name, shape, *_ in self.spec["state"]}
        size = sum(int(np.prod(shapes[name])) for name in self.case(case)["names"])
        return np.unpackbits(self.answers[f"{case}_mask"], count=size).astype(bool)


NETWORKS = {
    function.__name__: Network(function.__name__, function)
    for function in (fc_digits, conv_digits, resnet20, vgg11_bn)
}
