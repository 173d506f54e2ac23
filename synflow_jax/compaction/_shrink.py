"""Run a function that was written for whole arrays on what is left of them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.dtypes import float0

from synflow_jax.compaction._follow import Followed, follow, zeros
from synflow_jax.compaction._reshape import Axes
from synflow_jax.compaction._units import WHOLE
from synflow_jax.jaxpr import Step, bind, listed

Stays = tuple[np.ndarray, ...]  # for each axis of a value, which positions stay


class Shrunk:
    """A function of whole arrays, traced once, that runs on the parts that stay."""

    def __init__(self, fn: Callable[..., Any], args: Any, gone: Sequence[Axes | None]) -> None:
        """Trace fn on args, arrays or shapes; gone has the units of what is removed of each leaf.

        Positions that stay have WHOLE there; None is for a leaf of which all stays.
        """
        self.listing = listed(fn, *args)
        inputs: list[Axes] = []
        for number, mine in zip(self.listing.inputs, gone, strict=True):
            inputs.append(mine or tuple(map(zeros, self.listing.avals[number].shape)))
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
        """Say of each axis of a value which positions stay."""
        return tuple(self.kept[self.state.units.find(ids)] for ids in self.state.of(number))

    def __call__(self, *leaves: Any) -> list[Any]:
        """Run on what is left of the leaves of the arguments; give the leaves of the results."""
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
        special = SPECIAL.get(step.name)
        if special is not None:
            return special(step.eqn, operands, inside, outside)
        results = bind(step.eqn, operands)
        if all(stay.all() for axes in inside for stay in axes):  # a source: made whole, then cut
            return [taken(r, axes) for r, axes in zip(results, outside, strict=True)]
        return results

    def _custom(self, step: Step, operands: list[Any]) -> list[Any]:
        """Give the body of a function the derivative that the function has."""
        backward = "vjp" in step.name
        ins, outs = self._moving(step.operands), self._moving(step.results)
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

    def _moving(self, numbers: Sequence[int]) -> list[int]:
        """Say which places have derivatives: whole numbers have none."""
        dtypes = [self.listing.avals[number].dtype for number in numbers]
        return [k for k, dtype in enumerate(dtypes) if jnp.issubdtype(dtype, jnp.inexact)]

    def _derivative(self, step: Step, ins: list[int], outs: list[int], backward: bool) -> "Shrunk":
        """Trace the derivative of the whole equation, and shrink that."""

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
        gone = [removed(self.state, n, self.kept) for n in numbers]
        return Shrunk(derivative, (shapes[:cut], shapes[cut:]), gone)


def removed(state: Followed, number: int, kept: np.ndarray) -> Axes:
    """Name the units of a value that are gone, and the others as what stays."""
    names = [state.units.find(ids) for ids in state.of(number)]
    return tuple(np.where(kept[ids], WHOLE, ids) for ids in names)


def taken(array: Any, stays: Stays) -> Any:
    """Take what stays of a whole array."""
    for axis, stay in enumerate(stays):
        if not stay.all():
            places = np.flatnonzero(stay)
            if isinstance(array, Tracer):
                array = jnp.take(array, places, axis, unique_indices=True, mode="clip")
            else:
                array = np.take(np.asarray(array), places, axis)
    return array


def _counts(stays: Stays) -> tuple[int, ...]:
    return tuple(int(stay.sum()) for stay in stays)


def _broadcast(eqn: Any, operands: Any, inside: Any, outside: Any) -> list[Any]:
    places = eqn.params["broadcast_dimensions"]
    return [lax.broadcast_in_dim(operands[0], _counts(outside[0]), places)]


def _reshape(eqn: Any, operands: Any, inside: Any, outside: Any) -> list[Any]:
    return [lax.reshape(operands[0], _counts(outside[0]))]


def _conv(eqn: Any, operands: Any, inside: Any, outside: Any) -> list[Any]:
    p, numbers, (x, kernel) = eqn.params, eqn.params["dimension_numbers"], operands
    groups = p["feature_group_count"]
    if not x.size or not kernel.size:  # an empty sum
        dtype = p["preferred_element_type"] or x.dtype
        return [jnp.zeros(_counts(outside[0]), dtype)]
    left = inside[0][numbers.lhs_spec[1]].reshape(groups, -1)[:, 0].sum() if groups > 1 else 1
    return [
        lax.conv_general_dilated(
            x,
            kernel,
            window_strides=p["window_strides"],
            padding=p["padding"],
            lhs_dilation=p["lhs_dilation"],
            rhs_dilation=p["rhs_dilation"],
            dimension_numbers=numbers,
            feature_group_count=int(left),
            precision=p["precision"],
            preferred_element_type=p["preferred_element_type"],
        )
    ]


def _pad(eqn: Any, operands: Any, inside: Any, outside: Any) -> list[Any]:
    config = []
    for (low, high, within), stay in zip(eqn.params["padding_config"], outside[0], strict=True):
        known = stay.all()
        ends = (low, high) if known else (stay[:low].sum(), stay[len(stay) - high :].sum())
        config.append((int(ends[0]), int(ends[1]), within))
    x, value = operands
    return [lax.pad(x, value, config)]


def _slice(eqn: Any, operands: Any, inside: Any, outside: Any) -> list[Any]:
    p, x = eqn.params, operands[0]
    strides = p["strides"] or (1,) * x.ndim
    for axis, stay in enumerate(inside[0]):
        asked = slice(p["start_indices"][axis], p["limit_indices"][axis], strides[axis])
        places = (np.cumsum(stay) - 1)[asked][stay[asked]]
        if len(places) and len(places) == places[-1] - places[0] + 1:
            x = lax.slice_in_dim(x, int(places[0]), int(places[-1]) + 1, axis=axis)
        else:
            x = jnp.take(x, places, axis, unique_indices=True, mode="clip")
    return [x]


def _split(eqn: Any, operands: Any, inside: Any, outside: Any) -> list[Any]:
    axis = eqn.params["axis"]
    ends = np.cumsum([axes[axis].sum() for axes in outside])[:-1]
    return list(jnp.split(operands[0], [int(end) for end in ends], axis))


def _dynamic_slice(eqn: Any, operands: Any, inside: Any, outside: Any) -> list[Any]:
    return [lax.dynamic_slice(operands[0], operands[1:], _counts(outside[0]))]


def _gather(eqn: Any, operands: Any, inside: Any, outside: Any) -> list[Any]:
    p = eqn.params
    sizes = [
        int(stay.sum()) if size == len(stay) else size
        for size, stay in zip(p["slice_sizes"], inside[0], strict=True)
    ]
    rest = {
        name: p[name] for name in ("unique_indices", "indices_are_sorted", "mode", "fill_value")
    }
    table, places = operands
    return [lax.gather(table, places, p["dimension_numbers"], tuple(sizes), **rest)]


SPECIAL: dict[str, Callable[..., list[Any]]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "conv_general_dilated": _conv,
    "pad": _pad,
    "slice": _slice,
    "split": _split,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
}
