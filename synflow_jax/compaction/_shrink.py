"""Run a function that was written for whole arrays on what is left of them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import float0

from synflow_jax.compaction._follow import follow
from synflow_jax.compaction._primitives import primitive_of
from synflow_jax.compaction._units import WHOLE, Axes, Stays, taken, whole_axis
from synflow_jax.jaxpr import Step, bind, listed
from synflow_jax.trees import Params, named_leaves


class Shrunk:
    """A function of whole arrays, traced once, that runs on the positions that stay."""

    def __init__(self, fn: Callable[..., Any], args: Any, gone: Sequence[Axes | None]) -> None:
        """Trace fn, and find out which positions of each value stay.

        Args:
          fn: the function of whole arrays.
          args: whole arrays, or their shapes.
          gone: of each leaf of args, the units of the removed positions along each axis, and WHOLE
            for those that stay; None for a leaf of which all stays.
        """
        self.listing = listed(fn, *args)
        inputs: list[Axes] = []
        for number, axes in zip(self.listing.inputs, gone, strict=True):
            inputs.append(axes or tuple(map(whole_axis, self.listing.avals[number].shape)))
        self.state = follow(self.listing, inputs)
        self.kept = np.ones(len(self.state.units.parents), bool)
        dead = [ids[ids != WHOLE] for axes in inputs for ids in axes]
        self.kept[self.state.units.find(np.concatenate([np.zeros(0, int), *dead]))] = False
        if not self.kept[WHOLE]:
            raise ValueError(
                "fn must treat units as the function that was compacted does: it joins positions "
                "that were removed with others that were not"
            )

    def stays(self, number: int) -> Stays:
        """Return which positions stay along each axis of a value."""
        return self.state.stays(number, self.kept)

    def __call__(self, *leaves: Any) -> list[Any]:
        """Run on what is left of the leaves of the arguments; return the leaves of the results."""
        env = dict(zip(self.listing.inputs, leaves, strict=True))
        self._run(self.listing.steps, env)
        return [self._read(number, env) for number in self.listing.outputs]

    def _read(self, number: int, env: dict[int, Any]) -> Any:
        if number not in env:
            env[number] = taken(self.listing.known[number], self.stays(number))
        return env[number]

    def _run(self, steps: Sequence[Step], env: dict[int, Any]) -> None:
        for step in steps:
            operands = [self._read(number, env) for number in step.operands]
            env.update(zip(step.results, self._step(step, operands), strict=True))

    def _step(self, step: Step, operands: list[Any]) -> list[Any]:
        inside = [self.stays(number) for number in step.operands]
        outside = [self.stays(number) for number in step.results]
        if all(stay.all() for axes in (*inside, *outside) for stay in axes):
            return bind(step.eqn, operands)
        if step.inner:
            return self._custom(step, operands)
        return primitive_of(step).shrink(step, operands, inside, outside)

    def _custom(self, step: Step, operands: list[Any]) -> list[Any]:
        """Run the body of a function with a derivative of its own, and keep that derivative."""
        backward = "vjp" in step.name
        ins, outs = self._inexact(step.operands), self._inexact(step.results)
        rule = self._derivative(step, ins, outs, backward)

        def body(*args: Any) -> Any:
            env = dict(zip(step.operands, args, strict=True))
            self._run(step.body, env)
            return [self._read(number, env) for number in step.inner]

        def pushed(primals: Any, tangents: Any) -> Any:
            results = body(*primals)
            found = dict(zip(outs, rule(*primals, *[tangents[k] for k in ins]), strict=True))
            still = (np.zeros(y.shape, float0) for y in results)
            return results, [found.get(k, zero) for k, zero in enumerate(still)]

        def pulled(args: Any, cotangents: Any) -> Any:
            found = dict(zip(ins, rule(*args, *[cotangents[k] for k in outs]), strict=True))
            return tuple(found.get(k) for k in range(len(args)))

        if backward:
            pull = jax.custom_vjp(body)
            pull.defvjp(lambda *args: (body(*args), args), pulled)
            return pull(*operands)
        push = jax.custom_jvp(body)
        push.defjvp(pushed)
        return push(*operands)

    def _inexact(self, numbers: Sequence[int]) -> list[int]:
        """Return the places of values that have derivatives: whole numbers have none."""
        dtypes = [self.listing.avals[number].dtype for number in numbers]
        return [k for k, dtype in enumerate(dtypes) if jnp.issubdtype(dtype, jnp.inexact)]

    def _derivative(self, step: Step, ins: list[int], outs: list[int], backward: bool) -> "Shrunk":
        """Trace the derivative of the whole equation, and shrink it."""

        def derivative(primals: Any, moves: Any) -> Any:
            def moving(*values: Any) -> Any:
                new = dict(zip(ins, values, strict=True))
                results = bind(step.eqn, [new.get(k, x) for k, x in enumerate(primals)])
                return [results[k] for k in outs]

            start = tuple(primals[k] for k in ins)
            if backward:
                return jax.vjp(moving, *start)[1](list(moves))
            return jax.jvp(moving, start, tuple(moves))[1]

        given = [step.results[k] for k in outs] if backward else [step.operands[k] for k in ins]
        numbers = [*step.operands, *given]
        shapes = [self.listing.avals[number] for number in numbers]
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in shapes]
        cut = len(step.operands)
        gone = [self.state.removed(number, self.kept) for number in numbers]
        return Shrunk(derivative, (shapes[:cut], shapes[cut:]), gone)


class Wrapped:
    """A function of whole params that takes small ones.

    It is traced once for each shape of its other arguments.
    """

    def __init__(self, fn: Any, outline: Any, gone: Sequence[Axes]) -> None:
        """Keep fn, the shapes of the whole params, and the units that each leaf has removed."""
        self.fn, self.outline, self.gone = fn, outline, gone
        self.traced: dict[Any, Any] = {}

    def __call__(self, params: Params, *rest: Any) -> Any:
        """Run on small params."""
        leaves, treedef = jax.tree.flatten((params, *rest))
        check_small(params, self.outline, self.gone)
        others = [jax.typeof(x) for x in jax.tree.leaves(rest)]
        key = (treedef, *((x.shape, x.dtype, x.weak_type) for x in others))
        if key not in self.traced:
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in others]
            args = (self.outline, *jax.tree.structure(rest).unflatten(shapes))
            small = Shrunk(self.fn, args, [*self.gone, *([None] * len(others))])
            self.traced[key] = jax.jit(small.__call__), small.listing.out_tree
        run, out_tree = self.traced[key]
        return out_tree.unflatten(run(*leaves))


def check_small(params: Params, outline: Any, gone: Sequence[Axes]) -> None:
    """Check that params have the structure and shapes of the small params."""
    wanted = [tuple(int((ids == WHOLE).sum()) for ids in axes) for axes in gone]
    what = "params must be the small params, as compact returns them"
    _check_shapes(params, outline, wanted, what, "is left of it")


def check_whole(tree: Any, outline: Any) -> None:
    """Check that a tree has the structure and shapes of the whole params."""
    wanted = [tuple(leaf.shape) for leaf in jax.tree.leaves(outline)]
    what = "tree must have the structure and shapes of the whole params"
    _check_shapes(tree, outline, wanted, what, "is its shape there")


def _check_shapes(tree: Any, outline: Any, wanted: list[Any], what: str, there: str) -> None:
    same = jax.tree.structure(tree) == jax.tree.structure(outline)
    found = [tuple(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree)] if same else []
    if found != wanted:
        paths = [path for path, _ in named_leaves(outline)]
        bad = next(
            (row for row in zip(paths, found, wanted, strict=False) if row[1] != row[2]), None
        )
        said = f"{bad[0]!r} is {bad[1]}, and {bad[2]} {there}" if bad else "the trees differ"
        raise ValueError(f"{what}: {said}")
