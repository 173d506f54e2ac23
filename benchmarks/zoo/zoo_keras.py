"""Keras 3 on JAX: its applications without weights, and layers of its own put together."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from benchmarks.zoo.cases import BATCH, STEPS, VOCABULARY, Case, Network, draw, loss_of, tokens
from synflow_jax import apply_masks, keep_masks


def glue(model: Any) -> Any:
    """Name the variables by their paths, and call the model without state."""
    params = {variable.path: variable.value for variable in model.trainable_variables}
    paths = list(params)  # Keras's order: JAX sorts the keys of a dict
    rest = [variable.value for variable in model.non_trainable_variables]

    def apply_fn(params: Any, x: Any) -> Any:
        weights = [params[path] for path in paths]
        return model.stateless_call(weights, rest, x, training=False)[0]

    return params, apply_fn


def as_transform(optimizer: Any, variables: Any) -> optax.GradientTransformation:
    """Make a transform of Optax from an optimizer of Keras."""
    optimizer.build(variables)
    paths = [variable.path for variable in variables]

    def init(params: Any) -> Any:
        del params
        return [variable.value for variable in optimizer.variables]

    def update(grads: Any, state: Any, params: Any) -> Any:
        flat = [[tree[path] for path in paths] for tree in (grads, params)]
        new, state = optimizer.stateless_apply(state, *flat)
        return {p: a - b for p, a, b in zip(paths, new, flat[1], strict=True)}, state

    return optax.GradientTransformation(init, update)


def train(model: Any, params: Any, shape: Any, masks: Any) -> Any:
    """Take five steps with Keras's AdamW in training mode."""
    import keras

    variables, paths = model.trainable_variables, [one.path for one in model.trainable_variables]
    tx = keep_masks(as_transform(keras.optimizers.AdamW(1e-3), variables), masks)
    params = apply_masks(params, masks)
    state, rest = tx.init(params), [one.value for one in model.non_trainable_variables]

    @jax.jit
    def step(params: Any, rest: Any, state: Any, x: Any) -> Any:
        def loss(params: Any) -> Any:
            weights = [params[path] for path in paths]
            out, new = model.stateless_call(weights, rest, x, training=True)
            return loss_of(out), new

        grads, rest = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), rest, state

    for seed in range(STEPS):
        params, rest, state = step(params, rest, state, draw(seed, shape, BATCH))
    return params


def build(make: Callable[[], Any], shape: Any) -> Case:
    """Build a model and adapt it."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    keras.utils.set_random_seed(0)
    model = make()
    params, apply_fn = glue(model)
    return Case(params, apply_fn, shape, partial(train, model, params, shape))


IMAGES = (32, 32, 3)
LOGITS = {"weights": None, "classes": 10, "classifier_activation": None}


def mobilenet() -> Any:
    """MobileNet of a quarter of the width."""
    import keras

    return keras.applications.MobileNet(IMAGES, alpha=0.25, **LOGITS)


def resnet() -> Any:
    """The blocks of ResNet50V2 with few channels, two a stage."""
    from keras.src.applications import resnet

    def stack(x: Any) -> Any:
        x = resnet.stack_residual_blocks_v2(x, 8, 2, name="conv2")
        return resnet.stack_residual_blocks_v2(x, 16, 2, name="conv3")

    return resnet.ResNet(stack, True, True, input_shape=IMAGES, **LOGITS)


def efficientnet() -> Any:
    """EfficientNetV2 of a fifth of the width and the depth."""
    from keras.src.applications.efficientnet_v2 import EfficientNetV2

    return EfficientNetV2(
        0.2,
        0.2,
        32,
        input_shape=IMAGES,
        name="efficientnetv2-b0",
        include_preprocessing=False,
        **LOGITS,
    )


def layers() -> Any:
    """Embedding, attention, LSTM and a Dense head."""
    import keras

    ids = keras.Input((8,), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, 32)(ids)
    y = keras.layers.LayerNormalization()(x)
    x = x + keras.layers.MultiHeadAttention(4, 8)(y, y)
    x = keras.layers.LSTM(32)(x)
    return keras.Model(ids, keras.layers.Dense(10)(x))


NETWORKS = [
    Network(f"keras {name}", "keras", partial(build, make, shape), (glue,))
    for name, make, shape in (
        ("MobileNet", mobilenet, IMAGES),
        ("ResNetV2", resnet, IMAGES),
        ("EfficientNetV2", efficientnet, IMAGES),
        ("attention and LSTM", layers, tokens(8)),
    )
]
