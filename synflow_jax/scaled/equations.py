"""Equations of a jaxpr, where releases of JAX write them differently."""

from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr

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
