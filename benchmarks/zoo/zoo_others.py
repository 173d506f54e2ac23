"""Graphs, state-space models, Fourier operators, flows, and JAX's own stax."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.zoo import zoo_equinox, zoo_linen
from benchmarks.zoo.cases import STEPS, VOCABULARY, Case, Network, draw, loss_of, tokens
from synflow_jax import apply_masks, keep_masks
from synflow_jax.nnx import from_nnx
from synflow_jax.plan import slices

NODES = 6
EDGES = np.array([[0, 1, 2, 3, 4, 5, 1, 2], [1, 2, 3, 4, 5, 0, 0, 1]])  # senders, receivers


def first_graph(params: Any, call: Any) -> Any:
    """Drop the batch axis: a graph has none."""

    def apply_fn(params: Any, x: Any) -> Any:
        return jax.vmap(lambda nodes: call(params, nodes))(x)

    return params, apply_fn


def optax_steps(params: Any, apply_fn: Any, shape: Any, masks: Any) -> Any:
    """Take five steps with Optax alone."""
    tx, params = keep_masks(optax.adamw(1e-3), masks), apply_masks(params, masks)
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any, x: Any) -> Any:
        grads = jax.grad(lambda params: loss_of(apply_fn(params, x)))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for seed in range(STEPS):
        params, state = step(params, state, draw(seed, shape))
    return params


def plain(params: Any, apply_fn: Any, shape: Any, **options: Any) -> Case:
    """Make a case that is trained by Optax."""
    return Case(params, apply_fn, shape, partial(optax_steps, params, apply_fn, shape), **options)


def jraph_network() -> Case:
    """Jraph's GraphConvolution and GraphNetwork around Linen's Dense."""
    import flax.linen as nn
    import jraph

    class Graph(nn.Module):
        @nn.compact
        def __call__(self, nodes: Any) -> Any:
            def dense(size: int) -> Any:
                return jraph.concatenated_args(nn.Sequential([nn.Dense(size), nn.relu]))

            graph = jraph.GraphsTuple(
                nodes=nn.Dense(16)(nodes),
                edges=jnp.ones((EDGES.shape[1], 4)),
                senders=jnp.asarray(EDGES[0]),
                receivers=jnp.asarray(EDGES[1]),
                globals=jnp.ones((1, 4)),
                n_node=jnp.array([NODES]),
                n_edge=jnp.array([EDGES.shape[1]]),
            )
            graph = jraph.GraphConvolution(nn.Dense(32), add_self_edges=True)(graph)
            graph = jraph.GraphNetwork(dense(16), dense(32), dense(32))(graph)
            return nn.Dense(10)(graph.globals)[0]

    model = Graph()
    variables = model.init(jax.random.key(0), jnp.ones((NODES, 12)))
    params, call = zoo_linen.glue(model, variables)
    params, apply_fn = first_graph(params, call)
    return plain(params, apply_fn, (NODES, 12))


def jraphx_network(name: str) -> Case:
    """A network of JraphX (NNX) of three layers."""
    from flax import nnx
    from jraphx.nn import models

    model = getattr(models, name)(12, 32, 3, 10, rngs=nnx.Rngs(0))
    weights, function = from_nnx(model)

    def call(params: Any, nodes: Any) -> Any:
        return function(params, nodes, jnp.asarray(EDGES))

    params, apply_fn = first_graph(weights, call)
    return plain(params, apply_fn, (NODES, 12))


def logits_alone(model: Any) -> Any:
    """Choose the logits: the cache and the hidden states are outputs otherwise."""
    params, function = from_nnx(model)

    def apply_fn(params: Any, x: Any) -> Any:
        return function(params, x)["logits"]

    return params, apply_fn


def mamba2() -> Case:
    """Mamba 2 as a language model, with tied embeddings."""
    from flax import nnx
    from mamba2_jax import modeling

    sizes = {"state_size": 8, "head_dim": 8, "chunk_size": 4, "num_hidden_layers": 2}
    config = modeling.Mamba2Config(vocab_size=VOCABULARY, hidden_size=32, **sizes)
    params, apply_fn = logits_alone(modeling.Mamba2ForCausalLM(config, rngs=nnx.Rngs(0)))
    return plain(params, apply_fn, tokens(8))


def mamba(key: Any) -> Any:
    """The first Mamba, a scan with a learned A."""
    from jaxonmodels.models.mamba import Mamba

    return Mamba(32, VOCABULARY, 2, d_state=8, key=key)


def fourier(key: Any) -> Any:
    """A Fourier neural operator: its spectral weights are complex or pairs."""
    from pdequinox.arch import ClassicFNO

    sizes = {"hidden_channels": 16, "num_modes": 4, "num_blocks": 2}
    return ClassicFNO(1, 2, 1, **sizes, key=key)


def unet(key: Any) -> Any:
    """A U-Net for fields with periodic boundaries."""
    from pdequinox.arch import ClassicUNet

    return ClassicUNet(2, 2, 1, hidden_channels=8, num_levels=2, key=key)


def unwrapped(model: Any) -> Any:
    """Unwrap the weights that FlowJAX parametrises, and map over the batch."""
    import equinox as eqx
    import paramax

    params, static = eqx.partition(model, eqx.is_inexact_array, is_leaf=_frozen)

    def apply_fn(params: Any, x: Any) -> Any:
        return paramax.unwrap(eqx.combine(params, static, is_leaf=_frozen)).log_prob(x)

    return params, apply_fn


def _frozen(leaf: Any) -> bool:
    import paramax

    return isinstance(leaf, paramax.NonTrainable)


def autoregressive() -> Case:
    """A masked autoregressive flow; its output is a log-probability."""
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow

    base = Normal(jnp.zeros(6))
    sizes = {"flow_layers": 2, "nn_width": 24}
    flow = masked_autoregressive_flow(jax.random.key(0), base_dist=base, **sizes)
    params, apply_fn = unwrapped(flow)
    return plain(params, apply_fn, (6,), pattern=slices(0))


def image_and_noise(model: Any, params: Any) -> Any:
    """Call the network at a fixed time, without a text, and return the sample alone."""

    def apply_fn(params: Any, x: Any) -> Any:
        steps, text = jnp.ones(len(x), jnp.int32), jnp.ones((len(x), 4, 16))
        return model.apply({"params": params}, x, steps, text).sample

    return params, apply_fn


def diffusion() -> Case:
    """The U-Net of Stable Diffusion with two levels."""
    import diffusers

    model = diffusers.FlaxUNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        down_block_types=("FlaxCrossAttnDownBlock2D", "FlaxDownBlock2D"),
        up_block_types=("FlaxUpBlock2D", "FlaxCrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=16,
    )
    params, apply_fn = image_and_noise(model, model.init_weights(jax.random.key(0)))
    return plain(params, apply_fn, (4, 8, 8))


def stax_network() -> Case:
    """A convolutional network of jax.example_libraries.stax."""
    from jax.example_libraries import stax

    init, apply_fn = stax.serial(
        stax.Conv(16, (3, 3), padding="SAME"),
        stax.BatchNorm(),
        stax.Relu,
        stax.FanOut(2),
        stax.parallel(stax.Conv(16, (3, 3), padding="SAME"), stax.Identity),
        stax.FanInSum,
        stax.MaxPool((2, 2), strides=(2, 2)),
        stax.Flatten,
        stax.Dense(10),
    )
    params = init(jax.random.key(0), (-1, 12, 12, 3))[1]
    return plain(params, apply_fn, (12, 12, 3))


EQUINOX = (zoo_equinox.glue,)
GRAPH = (first_graph,)
NETWORKS = [
    Network("jraph GraphNetwork", "jraph", jraph_network, (zoo_linen.glue, *GRAPH)),
    Network("jraphx GAT", "jraphx", partial(jraphx_network, "GAT"), GRAPH),
    Network("mamba2-jax", "mamba2-jax", mamba2, (logits_alone,)),
    Network(
        "jaxonmodels Mamba", "jaxonmodels", partial(zoo_equinox.build, mamba, tokens(8)), EQUINOX
    ),
    Network("pdequinox FNO", "pdequinox", partial(zoo_equinox.build, fourier, (2, 16)), EQUINOX),
    Network("pdequinox U-Net", "pdequinox", partial(zoo_equinox.build, unet, (2, 8, 8)), EQUINOX),
    Network("flowjax MAF", "flowjax", autoregressive, (unwrapped,)),
    Network("diffusers U-Net", "diffusers", diffusion, (image_and_noise,)),
    Network("stax", "jax", stax_network),
]
