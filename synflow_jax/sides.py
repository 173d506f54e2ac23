"""Which axes of a kernel are units that feed it, and which are units that it feeds."""

from typing import Any, NamedTuple

from synflow_jax._types import ApplyFn, Params
from synflow_jax.compact.listing import Step, listed
from synflow_jax.inputs import read_shape
from synflow_jax.tree import floating_dtype, named_leaves

AS_IT_IS = frozenset({"convert_element_type", "mul", "copy", "abs", "stop_gradient"})


class Sides(NamedTuple):
    """Axes of one leaf."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def find_sides(params: Params, apply_fn: ApplyFn, shape: Any) -> dict[str, Sides]:
    """Read from the products and convolutions of a network how its leaves are laid out.

    A leaf that meets none, or is reshaped before, is read as Flax lays kernels out: (…, in, out).
    """
    x = read_shape(shape).ones(floating_dtype(params))
    listing = listed(apply_fn, params, x)
    leaves = named_leaves(params)
    # number -> the leaf, and which of its axes stand where
    known = {
        number: (path, tuple(range(leaf.ndim)))
        for number, (path, leaf) in zip(listing.inputs, leaves, strict=False)
    }
    found: dict[str, Sides] = {}
    for step in listing.every_step():
        for place, number in enumerate(step.operands):
            if number in known:
                path, axes = known[number]
                if step.name in MET:
                    sides = [
                        tuple(sorted(axes[k] for k in side)) for side in MET[step.name](step, place)
                    ]
                    found.setdefault(path, Sides(*sides))
                elif step.name in AS_IT_IS and _shape(listing, step.results[0]) == len(axes):
                    known.setdefault(step.results[0], known[number])
                elif step.name == "transpose":
                    order = step.eqn.params["permutation"]
                    known[step.results[0]] = path, tuple(axes[k] for k in order)
    flax = {path: Sides((leaf.ndim - 2,), (leaf.ndim - 1,)) for path, leaf in leaves}
    return flax | found


def _shape(listing: Any, number: int) -> int:
    return len(getattr(listing.avals[number], "shape", ()))


def _of_product(step: Step, place: int) -> tuple[Any, Any]:
    contracted, batch = (pair[place] for pair in step.eqn.params["dimension_numbers"])
    others = [k for k in range(step.eqn.invars[place].aval.ndim) if k not in contracted]
    return (*batch, *contracted), others


def _of_convolution(step: Step, place: int) -> tuple[Any, Any]:
    del place
    out, inside, *_ = step.eqn.params["dimension_numbers"].rhs_spec
    # A group sees its own inputs alone; there are as many in all as there are outputs, mostly.
    grouped = step.eqn.params["feature_group_count"] > 1
    return (out if grouped else inside,), (out,)


MET = {"dot_general": _of_product, "conv_general_dilated": _of_convolution}
