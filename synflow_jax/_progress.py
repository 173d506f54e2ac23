"""Progress of a run of rounds, told from inside the compiled loop once it takes long."""

import sys
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

PATIENCE = 20  # tenths of a second before anything is said
DAY = 864_000  # tenths of a second


def start_clock() -> jax.Array:
    """Read the host's clock when the program runs, in tenths of a second of a day."""
    return io_callback(_now, jax.ShapeDtypeStruct((), jnp.int32))


def _now() -> np.ndarray:
    return np.array(time.monotonic() * 10 % DAY, np.int32)


def tell(start: jax.Array, k: Any, last: Any, row: Any, rounds: int | None, size: int) -> None:
    """Say how far round k of `rounds` got; None where their number is not known beforehand."""
    kept = jnp.sum(row.kept.astype(jnp.float32))  # it is told to three digits
    jax.debug.callback(partial(_say, rounds, size), start, k, last, kept, row.log2_flow)


def _say(
    rounds: int | None, size: int, start: Any, k: Any, last: Any, kept: Any, log2_flow: Any
) -> None:
    tenths = int(_now() - start) % DAY
    if tenths < PATIENCE or jax.process_index() != 0:
        return
    of = "" if rounds is None else f" of {rounds}"
    said = [f"round {int(k)}{of}", f"density {float(kept) / size:.3g}"]
    if log2_flow == log2_flow:
        said.append(f"log2 flow {float(log2_flow):.1f}")
    said.append(f"{tenths / 10:.0f} s")
    if rounds and not last:
        said.append(f"about {tenths / 10 * (rounds - int(k)) / int(k):.0f} s left")
    # One line that is written over; the last one stays.
    end = "\n" if last else ""
    print(f"\r{', '.join(said)}".ljust(79), end=end, file=sys.stderr, flush=True)


def track(items: Iterable[Any], name: str) -> Iterable[Any]:
    """Go through items behind a bar of progress, which is taken away at the end."""
    from rich.progress import track

    return track(items, name, transient=True)
