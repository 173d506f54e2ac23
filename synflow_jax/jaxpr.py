"""The equations of a traced function as one flat list, for whatever reads or interprets a trace.

A `Step` is an equation whose operands and results have numbers that are unique across all calls, so
that calls can be inlined. Knows jaxprs, and where releases of JAX differ in them. Knows nothing of
pruning.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Literal

from synflow_jax.trees import is_library

CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
CALLS = CUSTOM | {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}

# Elementwise functions without arithmetic (add, mul, …), which each interpreter treats by itself.
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

    Attributes:
      eqn: the equation of the jaxpr.
      operands: the numbers of its operands.
      results: the numbers of its results.
      body: the steps of a custom_jvp or custom_vjp function; empty if it returns its operands, and
        for every other primitive. Only a `Listing` has them.
      inner: the numbers of what the body returns; empty for every other primitive.
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
    """The steps of a function, and the types and constants that their numbers stand for.

    Attributes:
      avals: the type of each value; the index is its number.
      known: the constants, by number.
      steps: in the order of evaluation.
      inputs: the numbers of the flat arguments.
      outputs: the numbers of the flat results.
      out_tree: the treedef of the results.
    """

    avals: list[Any] = field(default_factory=list)
    known: dict[int, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    out_tree: Any = None

    def number(self, aval: Any, value: Any = None) -> int:
        """Register a value of this abstract type, known if it is a constant; return its number."""
        self.avals.append(aval)
        if value is not None:
            self.known[len(self.avals) - 1] = value
        return len(self.avals) - 1

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of a value, given its number."""
        return tuple(getattr(self.avals[number], "shape", ()))

    def every_step(self) -> list[Step]:
        """List the steps, with the bodies of custom_jvp and custom_vjp functions inlined."""
        return _inlined(self.steps)

    def used(self) -> set[int]:
        """Return the numbers that some output depends on."""
        found = set(self.outputs)
        for step in reversed(self.steps):
            if found.intersection(step.results):
                found.update(step.operands)
        return found


def bind(eqn: Any, arrays: Sequence[Any]) -> list[Any]:
    """Evaluate an equation's primitive on these arrays; the results are always a list."""
    found = eqn.primitive.get_bind_params(eqn.params)
    # Below JAX 0.10, the functions that the primitive takes come beside its parameters.
    functions, params = found if isinstance(found, tuple) else ((), found)
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*functions, *arrays, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def scan_sizes(eqn: Any) -> tuple[int, int]:
    """Return how many operands of a scan are constants, and how many are carried."""
    params = eqn.params
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # JAX 0.12
    return len(consts), len(carry)


def body_of(eqn: Any) -> ClosedJaxpr:
    """Return the closed jaxpr of a call."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    body = next(eqn.params[name] for name in names if name in eqn.params)
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())


def flatten(
    closed: ClosedJaxpr, operands: Iterable[int], number: Callable[..., int]
) -> tuple[list[Step], list[int]]:
    """List the steps of a jaxpr, with calls inlined, and the numbers of its outputs.

    Functions of custom_jvp and custom_vjp are not inlined: they stay one step.

    Args:
      closed: the jaxpr.
      operands: the numbers of its inputs.
      number: number(aval) returns the next number for a result, number(aval, value) for a constant.
    """
    jaxpr = closed.jaxpr
    numbers = dict(zip(jaxpr.invars, operands, strict=True))
    for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
        numbers[var] = number(var.aval, value)

    def number_of(atom: Any) -> int:
        return number(atom.aval, atom.val) if isinstance(atom, Literal) else numbers[atom]

    steps: list[Step] = []
    for eqn in jaxpr.eqns:
        inside = [number_of(atom) for atom in eqn.invars]
        if eqn.primitive.name in CALLS - CUSTOM:
            more, results = flatten(body_of(eqn), inside, number)
            steps += more
        else:
            results = [number(var.aval) for var in eqn.outvars]
            steps.append(Step(eqn, tuple(inside), tuple(results)))
        numbers |= dict(zip(eqn.outvars, results, strict=True))
    return steps, [number_of(atom) for atom in jaxpr.outvars]


def listed(fn: Callable[..., Any], *args: Any) -> Listing:
    """Trace a function on arrays, or on their shapes and dtypes, and list its steps."""
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    listing = Listing(out_tree=jax.tree.structure(out))
    listing.inputs = [listing.number(v.aval) for v in closed.jaxpr.invars]
    steps, listing.outputs = flatten(closed, listing.inputs, listing.number)
    listing.steps = [_with_body(step, listing) for step in steps]
    return listing


def _with_body(step: Step, listing: Listing) -> Step:
    """Add to a step of custom_jvp or custom_vjp the steps of its body."""
    if step.name not in CUSTOM:
        return step
    body, inner = flatten(body_of(step.eqn), step.operands, listing.number)
    # `inner` may hold numbers of operands; step.results are always new numbers.
    steps = tuple(_with_body(one, listing) for one in body)
    return Step(step.eqn, step.operands, step.results, steps, tuple(inner))


def _inlined(steps: Sequence[Step]) -> list[Step]:
    return [one for step in steps for one in (_inlined(step.body) if step.inner else [step])]


def source_line(eqn: Any) -> str:
    """Find the user's line that an equation comes from, as file:line (function)."""
    frames = getattr(getattr(eqn.source_info, "traceback", None), "frames", ())
    for frame in frames:
        if not is_library(frame.file_name):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return source_info_util.summarize(eqn.source_info)


def of_library(name: str) -> bool:
    """Whether a jitted function looks like JAX's own, by its name.

    Notes inside of such a function are recorded at its call. A user's function of the same name
    is taken for one, too.
    """
    return name.startswith("_") or any(hasattr(room, name) for room in (jax.nn, jnp))
