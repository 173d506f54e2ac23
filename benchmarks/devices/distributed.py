"""Do several processes, joined by `jax.distributed`, find the masks that one process finds?

    python -m benchmarks.distributed              # 4 processes of 2 devices each
    python -m benchmarks.distributed 2 4          # 2 processes of 4 devices each

All processes run on this machine, with collectives by gloo. Each holds its shards of the params and
runs the same program. The masks of each, computed in float64, are compared entry for entry with
those of one process on one device. Writes the counts and times to
benchmarks/results/distributed.json.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import synflow_jax as sf

WIDTHS = (64, 256, 16)
RHO = 10.0
METHODS = 4
RESULT = Path(__file__).parents[1] / "results" / "distributed.json"


def network(params: Any, x: Any) -> Any:
    """Apply a ReLU network with biases."""
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None, :])
    return x @ params[-1]["kernel"]


def host_params() -> list[dict[str, np.ndarray]]:
    """Draw the weights, the same in every process."""
    rng = np.random.default_rng(0)
    return [
        {"kernel": rng.standard_normal((i, o)) / np.sqrt(i), "bias": rng.standard_normal(o)}
        for i, o in itertools.pairwise(WIDTHS)
    ]


def spread(params: Any, mesh: Mesh) -> Any:
    """Place on every device its columns; a process creates only those of its own devices."""

    def put(leaf: np.ndarray) -> jax.Array:
        spec = PartitionSpec(*[None] * (leaf.ndim - 1), "a")
        sharding = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, params)


def run(params: Any) -> dict[str, Any]:
    """Prune by each method; return the masks, their counts and flow, and the seconds of SynFlow."""
    shape = WIDTHS[:1]
    start = time.perf_counter()
    masks = {"synflow": sf.synflow(params, network, shape, RHO, rounds=20)}
    jax.block_until_ready(masks)
    seconds = time.perf_counter() - start
    masks["certified"] = sf.synflow(params, network, shape, RHO, schedule=sf.certified())
    masks["random"] = sf.random(jax.random.key(0), params, RHO)
    masks["shuffled"] = sf.pruning.shuffle(jax.random.key(1), masks["random"])
    table = sf.report(params, masks["synflow"])
    flow = float(sf.log2_flow(params, network, shape, masks["synflow"]))
    return {"masks": masks, "seconds": seconds, "kept": table.kept, "log2 flow": flow}


def worker(rank: int, processes: int, devices: int, port: int, folder: str) -> None:
    """Run one of the processes and write its results to files."""
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # One program after another: two at a time could each wait for the threads of the other.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_enable_x64", True)
    jax.distributed.initialize(f"localhost:{port}", processes, rank)
    mesh = jax.make_mesh((processes * devices,), ("a",), axis_types=(AxisType.Auto,))
    params = spread(host_params(), mesh)
    found = run(params)
    leaves = jax.tree.leaves(found.pop("masks"))
    pairs = zip(leaves, jax.tree.leaves([params] * METHODS), strict=True)
    alike = [mask.sharding.is_equivalent_to(leaf.sharding, leaf.ndim) for mask, leaf in pairs]
    whole = NamedSharding(mesh, PartitionSpec())
    everywhere = jax.jit(lambda masks: masks, out_shardings=whole)(leaves)
    found |= {"laid out as params": all(alike), "foreign": not leaves[0].is_fully_addressable}
    np.savez(Path(folder, f"{rank}.npz"), *map(np.asarray, everywhere))
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


def launch(processes: int, devices: int, limit: float) -> tuple[list[Any], list[dict[str, Any]]]:
    """Start the processes, wait for all, and return the results of each; kill any that is left."""
    ranks = range(processes)
    with tempfile.TemporaryDirectory() as folder:
        port, running = _free_port(), []
        try:
            running += [_start(rank, processes, devices, port, folder) for rank in ranks]
            _wait(running, time.monotonic() + limit)
        finally:
            for process in running:
                process.kill()
                process.wait()
        if any(process.returncode for process in running):
            said = [Path(folder, f"{rank}.log").read_text()[-3000:] for rank in ranks]
            raise RuntimeError("\n".join(f"process {i}:\n{text}" for i, text in enumerate(said)))
        masks = [list(np.load(Path(folder, f"{rank}.npz")).values()) for rank in ranks]
        return masks, [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in ranks]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _start(rank: int, *rest: Any) -> subprocess.Popen[bytes]:
    """Start one process, with its output in a file."""
    root = RESULT.parents[2]
    command = [sys.executable, "-m", "benchmarks.devices.distributed", "worker"]
    command += map(str, (rank, *rest))
    with Path(rest[-1], f"{rank}.log").open("w") as log:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=root, env=environment)


def _wait(running: list[subprocess.Popen[bytes]], deadline: float) -> None:
    """Wait until all are done, one has failed, or the time is up."""
    while time.monotonic() < deadline:
        states = [process.poll() for process in running]
        if all(state == 0 for state in states) or any(states):
            return
        time.sleep(0.05)


def compare(processes: int, devices: int, limit: float = 300.0) -> dict[str, Any]:
    """Compare the masks of several processes with those of this one."""
    masks, rows = launch(processes, devices, limit)
    with jax.enable_x64(True):
        alone = run(jax.tree.map(jnp.asarray, host_params()))
    want = [np.asarray(leaf) for leaf in jax.tree.leaves(alone["masks"])]
    differing = [
        sum(int((a != b).sum()) for a, b in zip(found, want, strict=True)) for found in masks
    ]
    return {
        "processes": processes,
        "devices each": devices,
        "weights": sum(i * o for i, o in itertools.pairwise(WIDTHS)),
        "differing entries": differing,
        "kept": [row["kept"] for row in rows] + [alone["kept"]],
        "log2 flow": [row["log2 flow"] for row in rows] + [alone["log2 flow"]],
        "laid out as params": all(row["laid out as params"] for row in rows),
        "shards of others": all(row["foreign"] for row in rows),
        "seconds of 20 rounds, compiling": [round(row["seconds"], 2) for row in rows],
    }


def main(arguments: list[str]) -> None:
    """Run the processes, compare their masks, and write the result."""
    from experiments.records.files import replacing

    processes, devices = map(int, arguments or ("4", "2"))
    row = compare(processes, devices) | {"jax": jax.__version__, "cores": os.cpu_count()}
    print(json.dumps(row, indent=2))
    with replacing(RESULT) as path:
        path.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*map(int, sys.argv[2:6]), sys.argv[6])
    else:
        main(sys.argv[1:])
