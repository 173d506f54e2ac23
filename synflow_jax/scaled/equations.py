"""Equations of a jaxpr, where releases of JAX write them differently."""

from collections.abc import Sequence
from typing import Any


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
