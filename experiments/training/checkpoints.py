"""Checkpoints of a training, so that a killed run continues and ends with the same result.

A checkpoint has the whole state of a training (params, statistics, the optimiser's state with masks
and counts, the random keys), the scores of all epochs so far and the settings. It is written
atomically, and older ones are removed afterwards.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from experiments.records.rows import Row


class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    Args:
      folder: where they are stored; created with the first one.
      settings: everything that decides the training, as JSON.
      every: epochs from one checkpoint to the next.

    Raises:
      ValueError: every is below 1.
    """

    def __init__(self, folder: Path, settings: Row, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.folder, self.every = folder.absolute(), every
        self.settings: Row = json.loads(json.dumps(settings))  # a tuple reads back as a list

    def save(self, state: Any, history: list[Any]) -> None:
        """Store a training if its number of epochs is a multiple of `every`.

        Args:
          state: a named tuple of arrays with a random key in `key`.
          history: one tree of scores an epoch.
        """
        if len(history) % self.every:
            return
        held = state._replace(key=jax.random.key_data(state.key))
        stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *history)
        with self._manager() as manager:
            args = ocp.args.Composite(
                settings=ocp.args.JsonSave(self.settings),
                state=ocp.args.StandardSave(held),
                history=ocp.args.StandardSave(stacked),
            )
            manager.save(len(history), args=args)

    def load(self, state: Any, scores: Any) -> tuple[Any, list[Any]]:
        """Read the last checkpoint.

        Args:
          state: the state before the first epoch, for its structure, shapes and dtypes.
          scores: one epoch's scores, as arrays or their shapes and dtypes.

        Returns:
          State and history; where nothing is stored, the given state and an empty history.

        Raises:
          ValueError: the checkpoint was made under other settings; the message names them.
        """
        if not self.folder.exists():
            return state, []
        with self._manager() as manager:
            epochs = manager.latest_step()
            if epochs is None:
                return state, []
            self._check(manager, epochs)
            held, stacked = self._read(manager, epochs, state, scores)
        key = jax.random.wrap_key_data(held.key, impl=jax.random.key_impl(state.key))
        rows = [jax.tree.map(lambda column, row=row: column[row], stacked) for row in range(epochs)]
        return held._replace(key=key), rows

    def clear(self) -> None:
        """Remove the checkpoints; call it once the result is stored as a row."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, cleanup_tmp_directories=True, enable_async_checkpointing=False
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def _check(self, manager: ocp.CheckpointManager, epochs: int) -> None:
        args = ocp.args.Composite(settings=ocp.args.JsonRestore())
        stored = dict(manager.restore(epochs, args=args)["settings"])
        names = sorted(stored.keys() | self.settings.keys())
        other = [
            f"{name} is {stored.get(name)!r} there and {self.settings.get(name)!r} here"
            for name in names
            if stored.get(name) != self.settings.get(name)
        ]
        if other:
            raise ValueError(
                f"{self.folder} holds a checkpoint of other settings: {', '.join(other)}"
            )

    def _read(
        self, manager: ocp.CheckpointManager, epochs: int, state: Any, scores: Any
    ) -> tuple[Any, Any]:
        like = jax.tree.map(
            lambda one: jax.ShapeDtypeStruct((epochs, *one.shape), one.dtype), scores
        )
        held = state._replace(key=jax.random.key_data(state.key))
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(held), history=ocp.args.StandardRestore(like)
        )
        found = manager.restore(epochs, args=args)
        return found["state"], found["history"]
