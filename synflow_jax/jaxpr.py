"""The equations of a function, in a row: shared by all that reads or interprets a trace.

Knows JAX's jaxprs, where releases of JAX write them differently, and nothing of pruning. A `Step`
is an equation whose operands and results are numbered across all calls, so that a function reads as
one list, whatever it calls.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal

CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
CALLS = CUSTOM | {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}

# Functions of single entries; each interpreter treats arithmetic (add, mul, …) by itself.
_FUNCTIONS = """
    tanh logistic exp exp2 log log1p expm1 erf erfc erf_inv sin cos tan asin acos atan sinh cosh
    asinh acosh atanh sqrt cbrt square integer_pow pow sign abs floor ceil round is_finite not
    lgamma digamma clamp rem atan2 nextafter min and or xor eq ne lt le gt ge eq_to lt_to le_to
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
ARITHMETIC = frozenset({"add", "add_any", "sub", "mul", "div", "neg", "max", "rsqrt", "select_n"})
CASTS = frozenset({
    "convert_element_type", "reduce_precision", "copy", "copy_p", "name", "stop_gradient", "real",
    "imag",
})  # fmt: skip
SHIFTS = frozenset({"shift_left", "shift_right_logical", "shift_right_arithmetic"})
ELEMENTWISE = FUNCTIONS | ARITHMETIC | CASTS | SHIFTS


@dataclass(frozen=True)
class Step:
    """An equation whose operands and results are numbered across all calls.

    A function with a derivative of its own has the steps of its body (none, where it returns its
    operands), which end in the numbers `inner`; only a `Listing` fills these two in.
    """

    eqn: Any
    operands: tuple[int, ...]
    results: tuple[int, ...]
    body: tuple["Step", ...] = ()
    inner: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return self.eqn.primitive.name


@dataclass
class Listing:
    """The steps of a function, and what their numbers stand for."""

    avals: list[Any] = field(default_factory=list)
    known: dict[int, Any] = field(default_factory=dict)  # constants, by number
    steps: list[Step] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    out_tree: Any = None

    def number(self, aval: Any, value: Any = None) -> int:
        """Number a value."""
        self.avals.append(aval)
        if value is not None:
            self.known[len(self.avals) - 1] = value
        return len(self.avals) - 1

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of a value."""
        return tuple(getattr(self.avals[number], "shape", ()))

    def every_step(self) -> list[Step]:
        """List the steps, with a function's body in the place of one that has a body."""
        return _opened(self.steps)

    def used(self) -> set[int]:
        """Find the numbers that some output depends on."""
        found = set(self.outputs)
        for step in reversed(self.steps):
            if found.intersection(step.results):
                found.update(step.operands)
        return found


def bind(eqn: Any, arrays: Sequence[Any]) -> list[Any]:
    """Run the primitive of an equation on these arrays."""
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
    """Return the jaxpr that a call runs."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    body = next(eqn.params[name] for name in names if name in eqn.params)
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())


def flatten(
    closed: ClosedJaxpr, operands: Iterable[int], number: Callable[..., int]
) -> tuple[list[Step], list[int]]:
    """List the equations of a jaxpr, those inside of calls among them, and number its outputs.

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


def listed(fn: Callable[..., Any], *args: Any) -> Listing:
    """Trace a function on arrays or their shapes, and list its steps."""
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    listing = Listing(out_tree=jax.tree.structure(out))
    listing.inputs = [listing.number(v.aval) for v in closed.jaxpr.invars]
    steps, listing.outputs = flatten(closed, listing.inputs, listing.number)
    listing.steps = [_with_body(step, listing) for step in steps]
    return listing


def _with_body(step: Step, listing: Listing) -> Step:
    """Add the steps of the body, where a function has a derivative of its own."""
    if step.name not in CUSTOM:
        return step
    body, inner = flatten(body_of(step.eqn), step.operands, listing.number)
    # A body that returns an operand still has results of its own.
    steps = tuple(_with_body(one, listing) for one in body)
    return Step(step.eqn, step.operands, step.results, steps, tuple(inner))


def _opened(steps: Sequence[Step]) -> list[Step]:
    return [one for step in steps for one in (_opened(step.body) if step.inner else [step])]
