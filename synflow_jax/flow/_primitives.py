"""The table of flow mode: the rule of each primitive of JAX.

A primitive without a rule is evaluated unchanged, and named in a warning if a signal passes through
it. To support a primitive, write its rule and add it to RULES.
"""

from synflow_jax.flow._loops import cond, scan
from synflow_jax.flow._mixing import (
    argmax,
    concatenate,
    div,
    linear,
    lookup,
    maximum,
    mul,
    neg,
    ordered,
    pad,
    product,
    reduced,
    scattered,
    select,
    top_k,
)
from synflow_jax.flow._rules import (
    add,
    convert,
    elementwise,
    fourier,
    joined,
    part,
    passed_on,
    reshaped,
    rsqrt,
    split,
    stopped,
)
from synflow_jax.flow._walk import Rule, walk_through
from synflow_jax.jaxpr import CALLS, FUNCTIONS

SHAPES = (
    *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "rev", "tile"),
    *("copy", "copy_p", "conj", "name", "reduce_precision"),
    *("sharding_constraint", "reshard", "mesh_cast", "layout_constraint"),
)
LINEAR = (
    *("cumsum", "cummax", "cummin", "reduce_min", "reduce_window_sum", "reduce_window_min"),
    *("reduce_window", "select_and_gather_add", "dynamic_update_slice"),
    *("scatter", "scatter-max"),
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(CALLS, walk_through),
    **dict.fromkeys(FUNCTIONS, elementwise),
    **dict.fromkeys(SHAPES, reshaped),
    **dict.fromkeys(LINEAR, linear),
    **dict.fromkeys(("optimization_barrier", "device_put"), passed_on),
    **dict.fromkeys(("add", "add_any", "sub"), add),
    **dict.fromkeys(("dot_general", "conv_general_dilated"), product),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_window_max"), reduced),
    **dict.fromkeys(("concatenate", "stack"), concatenate),
    **dict.fromkeys(("real", "imag"), part),
    **dict.fromkeys(("split", "unstack"), split),
    **dict.fromkeys(("argmax", "argmin"), argmax),
    **dict.fromkeys(("gather", "dynamic_slice"), lookup),
    **dict.fromkeys(("scatter_add", "scatter-add"), scattered),
    "complex": joined,
    "cond": cond,
    "convert_element_type": convert,
    "div": div,
    "fft": fourier,
    "max": maximum,
    "mul": mul,
    "neg": neg,
    "pad": pad,
    "rsqrt": rsqrt,
    "scan": scan,
    "select_n": select,
    "sort": ordered,
    "stop_gradient": stopped,
    "top_k": top_k,
}
