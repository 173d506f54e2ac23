"""Equinox: its own layers, equimo's vision models, and others that are Equinox modules."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from benchmarks.zoo.cases import STEPS, Case, Network, draw, loss_of
from synflow_jax import apply_masks, keep_masks
from synflow_jax.plan import slices


def glue(model: Any) -> Any:
    """Separate the arrays, and map over the batch."""
    import equinox as eqx

    params, static = eqx.partition(eqx.nn.inference_mode(model), eqx.is_inexact_array)

    def apply_fn(params: Any, x: Any) -> Any:
        return jax.vmap(eqx.combine(params, static))(x)

    return params, apply_fn


def _call(model: Any, x: Any, key: Any) -> Any:
    """Call a module, with a key where it takes one, as for dropout."""
    takes = "key" in inspect.signature(type(model).__call__).parameters
    return model(x, key=key) if takes else model(x)


def train(model: Any, params: Any, shape: Any, masks: Any) -> Any:
    """Take five steps with eqx.filter_jit and eqx.apply_updates."""
    import equinox as eqx

    static = eqx.partition(model, eqx.is_inexact_array)[1]
    model = eqx.combine(apply_masks(params, masks), static)
    tx = keep_masks(optax.adamw(1e-3), masks)
    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model: Any, opt_state: Any, x: Any, keys: Any) -> Any:
        def loss(model: Any) -> Any:
            return loss_of(jax.vmap(partial(_call, model))(x, keys))

        grads = eqx.filter_grad(loss)(model)
        weights = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = tx.update(grads, opt_state, weights)
        return eqx.apply_updates(model, updates), opt_state

    for seed in range(STEPS):
        x = draw(seed, shape)
        keys = jax.random.split(jax.random.key(seed), len(jax.tree.leaves(x)[0]))
        model, opt_state = step(model, opt_state, x, keys)
    return eqx.filter(model, eqx.is_inexact_array)


def build(make: Callable[[Any], Any], shape: Any) -> Case:
    """Build a model and adapt it."""
    model = make(jax.random.key(0))
    params, apply_fn = glue(model)
    fit = partial(train, model, params, shape)
    return Case(params, apply_fn, shape, fit, pattern=slices(0))


def mlp(key: Any) -> Any:
    """Two hidden layers."""
    import equinox as eqx

    return eqx.nn.MLP(12, 10, 32, 2, key=key)


def vit(key: Any) -> Any:
    """A vision transformer with registers."""
    from equimo.models import VisionTransformer

    sizes = {"dim": 32, "num_heads": [4], "depths": [2], "patch_size": 4}
    return VisionTransformer(img_size=16, in_channels=3, num_classes=10, **sizes, key=key)


def convnext(key: Any) -> Any:
    """ConvNeXt, whose layer scales start at 1e-6."""
    from equimo.models import ConvNeXt

    return ConvNeXt(depths=[1, 1], dims=[16, 32], num_classes=10, key=key)


def mlla(key: Any) -> Any:
    """Linear attention in the manner of Mamba."""
    from equimo.models import Mlla

    sizes = {"dim": 16, "depths": [1, 1], "num_heads": [2, 4]}
    return Mlla(img_size=16, in_channels=3, patch_size=4, num_classes=10, **sizes, key=key)


def vssd(key: Any) -> Any:
    """Mixers of Mamba 2."""
    from equimo.models import Vssd

    sizes = {"dim": 16, "d_state": 8, "depths": [1, 1], "num_heads": [2, 4]}
    mixers = ("mamba2mixer", "attention")
    return Vssd(
        img_size=16, in_channels=3, num_classes=10, attentions_layers=mixers, **sizes, key=key
    )


NETWORKS = [
    Network("equinox MLP", "equinox", partial(build, mlp, (12,)), (glue,)),
    *(
        Network(f"equimo {name}", "equimo", partial(build, make, shape), (glue,))
        for name, make, shape in (
            ("VisionTransformer", vit, (3, 16, 16)),
            ("ConvNeXt", convnext, (3, 32, 32)),
            ("MLLA", mlla, (3, 16, 16)),
            ("VSSD", vssd, (3, 16, 16)),
        )
    ),
]
