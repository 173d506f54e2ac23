"""Progress on standard error: of rounds inside a compiled loop, and of a loop on the host."""

import sys
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

PATIENCE = 20  # tenths of a second before the first line is printed
DAY = 864_000  # tenths of a second


def start_clock() -> jax.Array:
    """Read the host's clock as the program runs: int32, tenths of a second, modulo a day."""
    return io_callback(_now, jax.ShapeDtypeStruct((), jnp.int32))


def _now() -> np.ndarray:
    return np.array(time.monotonic() * 10 % DAY, np.int32)


def tell(start: jax.Array, k: Any, last: Any, row: Any, rounds: int | None, size: int) -> None:
    """Print, from inside a compiled loop, the state after round k.

    Args:
      start: what `start_clock` returned.
      k: the round, from 1.
      last: whether it is the last round.
      row: with `kept` (counts a layer) and `log2_flow` after the round, None if not measured.
      rounds: the number of rounds, None if it is not known beforehand.
      size: the number of prunable weights or units.
    """
    kept = jnp.sum(row.kept.astype(jnp.float32))  # three digits of it are printed
    jax.debug.callback(partial(_print, rounds, size), start, k, last, kept, row.log2_flow)


def _print(
    rounds: int | None, size: int, start: Any, k: Any, last: Any, kept: Any, log2_flow: Any
) -> None:
    """Print one line on the first process, once PATIENCE has passed since `start`."""
    tenths = int(_now() - start) % DAY
    if tenths < PATIENCE or jax.process_index() != 0:
        return
    of = "" if rounds is None else f" of {rounds}"
    parts = [f"round {int(k)}{of}", f"density {float(kept) / size:.3g}"]
    if log2_flow is not None:
        parts.append(f"log2 flow {float(log2_flow):.1f}")
    parts.append(f"{tenths / 10:.0f} s")
    if rounds and not last:
        parts.append(f"about {tenths / 10 * (rounds - int(k)) / int(k):.0f} s left")
    # Each line overwrites the one before; the last one stays.
    end = "\n" if last else ""
    print(f"\r{', '.join(parts)}".ljust(79), end=end, file=sys.stderr, flush=True)


def track(items: Iterable[Any], name: str) -> Iterable[Any]:
    """Iterate over items with a progress bar, which disappears at the end."""
    from rich.progress import track

    return track(items, name, transient=True)
