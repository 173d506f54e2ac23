"""Language models of Tunix (Flax NNX), which return logits and a cache."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.zoo.cases import BATCH, STEPS, VOCABULARY, Case, Network, draw, tokens
from synflow_jax import apply_masks, keep_masks
from synflow_jax.nnx import from_nnx

LENGTH = 8


def glue(model: Any) -> Any:
    """Call the model with positions and a causal mask, and return the logits without the cache."""
    params, call = from_nnx(model)

    def apply_fn(params: Any, x: Any) -> Any:
        places = jnp.broadcast_to(jnp.arange(LENGTH), x.shape)
        causal = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
        return call(params, x, places, None, jnp.broadcast_to(causal, (len(x), LENGTH, LENGTH)))[0]

    return params, apply_fn


def train(make: Any, shape: Any, masks: Any) -> Any:
    """Take five steps with Tunix's PeftTrainer."""
    from flax import nnx
    from tunix.sft import peft_trainer as sft

    model = make(nnx.Rngs(0))
    nnx.update(model, apply_masks(from_nnx(model)[0], masks))
    tx = keep_masks(optax.adamw(1e-3), masks)
    trainer = sft.PeftTrainer(
        model, tx, sft.TrainingConfig(eval_every_n_steps=100, max_steps=STEPS)
    )

    def inputs(batch: Any) -> dict[str, Any]:
        causal = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
        return {
            "input_tokens": batch.input_tokens,
            "input_mask": batch.input_mask,
            "positions": jnp.broadcast_to(jnp.arange(LENGTH), batch.input_tokens.shape),
            "attention_mask": jnp.broadcast_to(causal, (BATCH, LENGTH, LENGTH)),
        }

    trainer = trainer.with_gen_model_input_fn(inputs)
    batches = [np.asarray(draw(seed, shape)) for seed in range(STEPS)]
    trainer.train([sft.TrainingInput(input_tokens=x, input_mask=np.ones_like(x)) for x in batches])
    return from_nnx(model)[0]


def build(make: Any) -> Case:
    """Build a model and adapt it."""
    from flax import nnx

    params, apply_fn = glue(make(nnx.Rngs(0)))
    return Case(params, apply_fn, tokens(LENGTH), partial(train, make, tokens(LENGTH)))


SIZES: dict[str, Any] = {"num_layers": 2, "embed_dim": 32, "hidden_dim": 64, "num_heads": 4}
HEADS: dict[str, Any] = {"head_dim": 8, "num_kv_heads": 2}
ROTARY: dict[str, Any] = {"rope_theta": 10_000, "norm_eps": 1e-6}


def gemma(rngs: Any) -> Any:
    """Gemma 2: caps, norms on both sides, tied embeddings."""
    from tunix.models.gemma import model as gemma

    local, all_of = gemma.AttentionType.LOCAL_SLIDING, gemma.AttentionType.GLOBAL
    config = gemma.ModelConfig(
        num_embed=VOCABULARY,
        **SIZES,
        **HEADS,
        final_logit_softcap=30.0,
        attn_logits_soft_cap=50.0,
        use_post_attn_norm=True,
        use_post_ffw_norm=True,
        attention_types=(local, all_of),
        sliding_window_size=4,
    )
    return gemma.Gemma(config, rngs=rngs)


def llama(rngs: Any) -> Any:
    """Llama 3."""
    from tunix.models.llama3 import model as llama3

    config = llama3.ModelConfig(vocab_size=VOCABULARY, **SIZES, **HEADS, **ROTARY)
    return llama3.Llama3(config, rngs=rngs)


def qwen(rngs: Any) -> Any:
    """Qwen 3 with tied embeddings."""
    from tunix.models.qwen3 import model as qwen3

    config = qwen3.ModelConfig(
        vocab_size=VOCABULARY, **SIZES, **HEADS, **ROTARY, use_tied_embedding=True
    )
    return qwen3.Qwen3(config, rngs=rngs)


NETWORKS = [
    Network(f"tunix {name}", "google-tunix", partial(build, make), (glue,))
    for name, make in (("Gemma", gemma), ("Llama3", llama), ("Qwen3", qwen))
]
