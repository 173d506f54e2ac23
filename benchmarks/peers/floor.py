"""A lower bound on the time of a round: one gradient of the flow, and passes over the weights.

The gradient is that of the plain network, jitted, alone and outside of any loop, in the faster of
two forms: the network as it is, and with its convolutions written as matrix products. The passes
are those of a selection that needs no search: scores are read to find the threshold (4 bytes a
weight), and read again with the mask to write the next one (4 + 1 + 1), at the bandwidth of a copy.
Masking the weights and multiplying the scores are counted as free, as parts of the gradient.
"""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.peers import Contender
from benchmarks.peers.naive_jax import all_kept, by_path
from benchmarks.shared.networks import convolving, plain_flow
from benchmarks.speed.timed_networks import loaded
from experiments.models import layers

BYTES_A_WEIGHT = 4 + (4 + 1 + 1)
COPIED = {"cpu": 2**28, "gpu": 2**30}  # bytes: far beyond any cache
FORMS = {"as it is": lax.conv_general_dilated, "as matrix products": layers.patch_conv}


def least(run: Any, times: int) -> float:
    """Time a call several times and return the least, in seconds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(run())
        found.append(time.perf_counter() - start)
    return min(found)


def copy_bandwidth(device: str) -> float:
    """Copy a large array by XLA or NumPy, the faster; return bytes read and written a second."""
    source = np.ones(COPIED[device] // 4, np.float32)
    target, array, copy = np.empty_like(source), jnp.asarray(source), jax.jit(jnp.negative)
    target[:] = 0
    ways = [lambda: copy(array)]
    if device == "cpu":
        ways.append(lambda: np.copyto(target, source))
    return 2 * source.nbytes / min(least(way, 5) for way in ways)


def passes(prunable: int, bandwidth: float) -> float:
    """Return the seconds of the passes over the weights, at a bandwidth in bytes a second."""
    return BYTES_A_WEIGHT * prunable / bandwidth


def contend(name: str, device: str) -> Contender:  # noqa: ARG001
    """Differentiate the flow once a round, and prune nothing."""
    params, apply_fn, shape = loaded(name)
    positive = jax.block_until_ready(jax.tree.map(jnp.abs, params))
    runs = {form: _gradient(form, positive, apply_fn, shape) for form in FORMS}
    seconds = {form: least(run, 3) for form, run in runs.items()}
    run = runs[min(seconds, key=lambda form: seconds[form])]

    def prune(rounds: int) -> None:
        for _ in range(rounds):
            jax.block_until_ready(run())

    weights = sum(leaf.size for leaf in by_path(params).values())
    prunable = sum(mask.size for mask in all_kept(params).values())
    return Contender(prune, lambda _: {}, weights, prunable, notes=lambda: {"forms": seconds})


@jax.default_matmul_precision("highest")
def _gradient(form: str, positive: Any, apply_fn: Any, shape: tuple[int, ...]) -> Any:
    """Compile the gradient with the convolutions of a form."""
    flow = partial(plain_flow, shape=shape)
    with convolving(FORMS[form]):
        compiled = jax.jit(jax.grad(lambda p: flow(p, apply_fn))).lower(positive).compile()
    run = partial(compiled, positive)
    jax.block_until_ready(run())
    return run
