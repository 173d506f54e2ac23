"""Equations of a jaxpr: in a row, and where releases of JAX write them differently."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Literal

CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
CALLS = CUSTOM | {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}


def bind(eqn: Any, arrays: Sequence[Any]) -> list[Any]:
    """Run the primitive of an equation as it is."""
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, params = found if isinstance(found, tuple) else ((), found)  # JAX below 0.10: both
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*functions, *arrays, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def scan_sizes(eqn: Any) -> tuple[int, int]:
    """Count the constants and the carried values among the operands of a scan."""
    params = eqn.params
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # JAX 0.12
    return len(consts), len(carry)


def body_of(eqn: Any) -> ClosedJaxpr:
    """Give the inside of a call."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    body = next(eqn.params[name] for name in names if name in eqn.params)
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())


class Step(NamedTuple):
    """An equation whose operands and results are numbered across all calls."""

    eqn: Any
    operands: tuple[int, ...]
    results: tuple[int, ...]


def flatten(
    closed: ClosedJaxpr, operands: list[int], number: Callable[..., int]
) -> tuple[list[Step], list[int]]:
    """List the equations of a jaxpr, those inside of calls among them; number what they pass on.

    Functions with a derivative of their own are not opened. `number(aval)` numbers a result and
    `number(aval, value)` a constant.
    """
    jaxpr = closed.jaxpr
    places = dict(zip(jaxpr.invars, operands, strict=True))
    for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
        places[var] = number(var.aval, value)

    def place(atom: Any) -> int:
        return number(atom.aval, atom.val) if isinstance(atom, Literal) else places[atom]

    steps: list[Step] = []
    for eqn in jaxpr.eqns:
        inside = [place(atom) for atom in eqn.invars]
        if eqn.primitive.name in CALLS - CUSTOM:
            more, results = flatten(body_of(eqn), inside, number)
            steps += more
        else:
            results = [number(var.aval) for var in eqn.outvars]
            steps.append(Step(eqn, tuple(inside), tuple(results)))
        places |= dict(zip(eqn.outvars, results, strict=True))
    return steps, [place(atom) for atom in jaxpr.outvars]
