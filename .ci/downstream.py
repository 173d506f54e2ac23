"""A project that uses the library: must pass a strict type checker against the installed wheel."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import synflow_jax
from synflow_jax import (
    PruneInfo,
    apply_masks,
    certified,
    erk,
    gradient_saliency,
    keep_masks,
    prune,
    random,
    report,
    synflow,
)
from synflow_jax.show import Report

Params = dict[str, jax.Array]


def network(params: Params, x: jax.Array) -> jax.Array:
    """Two layers."""
    return jax.nn.relu(x @ params["up"]) @ params["down"]


def energy(params: Params) -> jax.Array:
    """An objective of one's own."""
    return sum((jnp.sum(leaf**2) for leaf in params.values()), jnp.zeros(()))


def main() -> None:
    """Prune in several ways, and train a step."""
    keys = jax.random.split(jax.random.key(0))
    params: Params = {
        "up": jax.random.normal(keys[0], (8, 16)),
        "down": jax.random.normal(keys[1], (16, 4)),
    }
    masks: Params = synflow(params, network, (8,), rho=4, schedule=certified())
    table: Report = report(params, masks)
    found: tuple[Any, PruneInfo] = prune(params, gradient_saliency(energy), 2.0, rounds=1)
    control: Params = random(jax.random.key(1), params, 4, densities=erk)
    tx: optax.GradientTransformationExtraArgs = keep_masks(optax.sgd(0.1), masks)
    state: Any = tx.init(params)
    updates: Any = tx.update(apply_masks(params, masks), state, params)[0]
    params = jax.tree.map(jnp.add, params, updates)
    kept = [sum(int((leaf != 0).sum()) for leaf in tree.values()) for tree in (params, control)]
    print("synflow_jax", synflow_jax.__version__, "keeps", table.kept, *kept, found[1].sizes)


if __name__ == "__main__":
    main()
