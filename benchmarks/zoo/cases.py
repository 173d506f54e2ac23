"""A network of another package, with its own training loop, and the list of all of them."""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from synflow_jax.plan import channels

VOCABULARY = 48  # of every network of tokens here
STEPS = 5
BATCH = 4


@dataclass(frozen=True)
class Case:
    """A network as the library takes it, and five steps of training as its package has it.

    Attributes:
      params: any pytree of arrays.
      apply_fn: apply_fn(params, x) -> y, in evaluation mode.
      shape: one example without the batch axis.
      train: train(masks) -> params after five steps with keep_masks, in the structure of params.
      keep: patterns of leaves that are not pruned by channel: the layers of the output.
      pattern: what a channel is: output channels are last in Flax, and first in Equinox.
    """

    params: Any
    apply_fn: Callable[[Any, Any], Any]
    shape: Any
    train: Callable[[Any], Any]
    keep: tuple[str, ...] = ()
    pattern: Any = channels


@dataclass(frozen=True)
class Network:
    """How a network is built: `build()` makes the Case, `glue` are the functions that turn it."""

    name: str
    package: str
    build: Callable[[], Case]
    glue: tuple[Callable[..., Any], ...] = field(default=(), repr=False)

    @property
    def lines(self) -> int:
        """Count the lines between the package's own model and (params, apply_fn, shape)."""
        return sum(map(code_lines, self.glue))


def code_lines(fn: Callable[..., Any]) -> int:
    """Count the lines of a function's body without docstring, imports, comments and blank lines."""
    tree: Any = ast.parse(inspect.getsource(fn)).body[0]
    tree.body = [part for part in tree.body if not isinstance(part, ast.Import | ast.ImportFrom)]
    tree.body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    return sum(1 for line in ast.unparse(tree).splitlines()[1:] if line.strip())


def listed() -> dict[str, Network]:
    """Import all files of networks that can be imported, and list their networks by name."""
    found: dict[str, Network] = {}
    for module in MODULES:
        networks = import_module(f"benchmarks.zoo.{module}").NETWORKS
        found |= {network.name: network for network in networks}
    return found


MODULES = (
    "zoo_linen",
    "zoo_nnx",
    "zoo_haiku",
    "zoo_equinox",
    "zoo_keras",
    "zoo_hugging_face",
    "zoo_tunix",
    "zoo_others",
)


def ones(shape: Any) -> Any:
    """Make a batch of one example of ones, of any pytree of shapes."""
    if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape):
        return jnp.ones((1, *shape))
    return jax.tree.map(lambda one: jnp.ones((1, *one.shape), one.dtype), shape)


def draw(seed: int, shape: Any, batch: int = BATCH) -> Any:
    """Draw inputs: normal numbers, and tokens where the dtype is of whole numbers."""
    rng = np.random.default_rng(seed)  # NumPy: nothing to compile

    def one(leaf: Any) -> Any:
        size = (batch, *leaf.shape)
        whole = jnp.issubdtype(leaf.dtype, jnp.integer)
        drawn = rng.integers(0, VOCABULARY, size) if whole else rng.normal(size=size)
        return jnp.asarray(drawn, leaf.dtype)

    if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape):
        return one(jax.ShapeDtypeStruct(shape, jnp.float32))
    return jax.tree.map(one, shape)


def loss_of(outputs: Any) -> Any:
    """Sum the mean squared distances of all floating outputs from fixed random numbers."""
    leaves = [one for one in jax.tree.leaves(outputs) if jnp.issubdtype(one.dtype, jnp.floating)]
    rng = np.random.default_rng(0)
    return sum(
        jnp.mean((one - rng.normal(size=one.shape).astype(one.dtype)) ** 2) for one in leaves
    )


def tokens(length: int) -> jax.ShapeDtypeStruct:
    """Describe one example of token ids."""
    return jax.ShapeDtypeStruct((length,), jnp.int32)
