"""What crosses devices, read in the compiled programs: numbers, and activations."""

import math
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import synflow_jax as sf
from synflow_jax.selection import select
from tests.support.meshes import any_mlp, mesh_of, spread
from tests.support.nets import mlp_params

FULLY_COMPILED = True  # it reads compiled programs
COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter",
    "collective-broadcast", "ragged-all-to-all",
)  # fmt: skip
BITS = {"pred": 8, "bf16": 16, "f16": 16}
WIDTHS = (256, 512, 256)
NUMBERS = 256  # bytes: counts at a few pivots, or one whole number a shard, and no more
LAYOUTS = [("auto", "columns"), ("auto", "rows"), ("explicit", "columns"), ("explicit", "rows")]


def operations(compiled):
    """List (operation, bytes of its result) of an optimised program."""
    line = re.compile(r"= (\(.*?\)|\S+) ([\w-]+?)(?:-start)?\(")
    found = (line.search(text) for text in compiled.as_text().splitlines())
    return [(m[2], sum(map(size, re.findall(r"\w+\[[\d,]*\]", m[1])))) for m in found if m]


def size(shape):
    """Count the bytes of a shape such as f32[3,4]."""
    dtype, dims = re.fullmatch(r"(\w+)\[([\d,]*)\]", shape).groups()
    bits = BITS.get(dtype) or int(re.sub(r"\D", "", dtype))
    return math.prod(int(n) for n in dims.split(",") if n) * bits // 8


def crossing(compiled):
    """List the collectives of a program, with the bytes of their results."""
    return [(name, size) for name, size in operations(compiled) if name in COLLECTIVES]


def sorts(compiled):
    return [name for name, _ in operations(compiled) if name in ("sort", "topk")]


def test_the_reader_sees_a_sort_and_what_it_gathers():
    mesh = mesh_of("auto", (8,))
    scores = jax.device_put(jnp.ones(4096), NamedSharding(mesh, PartitionSpec("a")))
    compiled = jax.jit(jnp.sort).lower(scores).compile()
    assert sorts(compiled)
    assert max(bytes_ for _, bytes_ in crossing(compiled)) >= 4 * 4096
    whole = NamedSharding(mesh, PartitionSpec())
    gathered = jax.jit(lambda x: x, out_shardings=whole).lower(scores).compile()
    assert crossing(gathered) == [("all-gather", 4 * 4096)]


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
def test_selection_exchanges_numbers(kind, layout):
    mesh = mesh_of(kind)
    layers = mlp_params(0, widths=WIDTHS).values()
    scores = spread([layer["kernel"] for layer in layers], mesh, layout)
    kept = [jnp.ones_like(score, dtype=bool) for score in scores]
    with jax.set_mesh(mesh):
        compiled = jax.jit(select).lower(scores, kept, jnp.int32(1000)).compile()
    found = crossing(compiled)
    # A gather here is of one whole number a shard, which is then added up everywhere.
    assert {name for name, _ in found} <= {"all-reduce", "all-gather"}
    assert max(bytes_ for _, bytes_ in found) <= NUMBERS
    assert not sorts(compiled)


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
@pytest.mark.parametrize("method", ["magnitude", "random", "synflow"])
def test_the_whole_loop_exchanges_numbers_and_activations(method, kind, layout):
    mesh = mesh_of(kind)
    params = spread(mlp_params(0, widths=WIDTHS), mesh, layout)
    shards = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(params)]
    run = {
        "magnitude": lambda p: sf.magnitude(p, 10.0),
        "random": lambda p: sf.random(jax.random.key(0), p, 10.0),
        "synflow": lambda p: sf.synflow(p, any_mlp, WIDTHS[:1], 10.0),
    }[method]
    with jax.set_mesh(mesh):
        compiled = jax.jit(run).lower(params).compile()
    largest = max(bytes_ for _, bytes_ in crossing(compiled))
    # A float32 activation is as long as a layer is wide; a kernel's shard has 131,072 bytes.
    assert largest <= (4 * max(WIDTHS) if method == "synflow" else NUMBERS)
    assert largest < max(shards) / 50
    assert not sorts(compiled)
