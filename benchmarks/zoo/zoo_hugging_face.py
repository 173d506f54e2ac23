"""Flax models of Hugging Face Transformers, with tiny configurations and random weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax
from flax.training.train_state import TrainState

from benchmarks.zoo.cases import BATCH, STEPS, VOCABULARY, Case, Network, draw, loss_of, tokens
from synflow_jax import apply_masks, keep_masks


def glue(model: Any) -> Any:
    """Choose the logits among the outputs."""

    def apply_fn(params: Any, x: Any) -> Any:
        return model(x, params=params).logits

    return model.params, apply_fn


def by_name(model: Any) -> Any:
    """Choose the logits of a model of several arguments."""

    def apply_fn(params: Any, x: Any) -> Any:
        return model(**x, params=params).logits

    return model.params, apply_fn


def both_logits(model: Any) -> Any:
    """Choose the logits of images among texts: those of texts are their transpose."""

    def apply_fn(params: Any, x: Any) -> Any:
        return model(**x, params=params).logits_per_image

    return model.params, apply_fn


def train(adapt: Callable[..., Any], params: Any, apply_fn: Any, shape: Any, masks: Any) -> Any:
    """Take five steps with Flax's TrainState, as its examples do."""
    del adapt
    tx = keep_masks(optax.adamw(1e-3), masks)
    state = TrainState.create(apply_fn=apply_fn, params=apply_masks(params, masks), tx=tx)

    @jax.jit
    def step(state: TrainState, x: Any) -> TrainState:
        grads = jax.grad(lambda params: loss_of(state.apply_fn(params, x)))(state.params)
        return state.apply_gradients(grads=grads)

    for seed in range(STEPS):
        state = step(state, draw(seed, shape, BATCH))
    return state.params


def build(make: Callable[[Any], Any], shape: Any, adapt: Callable[..., Any]) -> Case:
    """Build a model and adapt it."""
    import transformers

    transformers.logging.set_verbosity_error()
    params, apply_fn = adapt(make(transformers))
    return Case(params, apply_fn, shape, partial(train, adapt, params, apply_fn, shape))


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SIZES, "intermediate_size": 64}
TEXT = {**WIDE, "vocab_size": VOCABULARY, "max_position_embeddings": 16}


def bert(hf: Any) -> Any:
    """BERT for classification."""
    return hf.FlaxBertForSequenceClassification(hf.BertConfig(**TEXT))


def roberta(hf: Any) -> Any:
    """RoBERTa for masked words, with tied embeddings."""
    return hf.FlaxRobertaForMaskedLM(hf.RobertaConfig(**{**TEXT, "pad_token_id": 0}))


def gpt2(hf: Any) -> Any:
    """GPT-2 with tied embeddings."""
    sizes = {"n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return hf.FlaxGPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCABULARY, **sizes))


def llama(hf: Any) -> Any:
    """Llama with grouped queries."""
    return hf.FlaxLlamaForCausalLM(hf.LlamaConfig(**TEXT, num_key_value_heads=2))


def vit(hf: Any) -> Any:
    """A vision transformer for classification."""
    config = hf.ViTConfig(**WIDE, image_size=16, patch_size=4, num_labels=10)
    return hf.FlaxViTForImageClassification(config, input_shape=(1, 16, 16, 3))


def resnet(hf: Any) -> Any:
    """A residual network with bottlenecks; its params hold statistics, too."""
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}
    config = hf.ResNetConfig(**sizes, num_labels=10)
    return hf.FlaxResNetForImageClassification(config, input_shape=(1, 32, 32, 3))


def bart(hf: Any) -> Any:
    """BART, encoder and decoder with attention between them."""
    sizes = {"d_model": 32, "max_position_embeddings": 16, "vocab_size": VOCABULARY}
    layers = {f"{side}_layers": 1 for side in ("encoder", "decoder")}
    heads = {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    wide = {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")}
    return hf.FlaxBartForConditionalGeneration(hf.BartConfig(**sizes, **layers, **heads, **wide))


def clip(hf: Any) -> Any:
    """CLIP, two towers and a product of their outputs."""
    config = hf.CLIPConfig(
        text_config={**TEXT, "eos_token_id": 2},
        vision_config={**WIDE, "image_size": 16, "patch_size": 4},
        projection_dim=16,
    )
    return hf.FlaxCLIPModel(config, input_shape=((1, 8), (1, 16, 16, 3)))


PAIR = {"input_ids": tokens(8), "pixel_values": jax.ShapeDtypeStruct((3, 16, 16), "float32")}
TWO_TEXTS = {"input_ids": tokens(8), "decoder_input_ids": tokens(6)}
NETWORKS = [
    Network(f"Flax{name}", "transformers", partial(build, make, shape, adapt), (adapt,))
    for name, make, shape, adapt in (
        ("BertForSequenceClassification", bert, tokens(8), glue),
        ("RobertaForMaskedLM", roberta, tokens(8), glue),
        ("GPT2LMHeadModel", gpt2, tokens(8), glue),
        ("LlamaForCausalLM", llama, tokens(8), glue),
        ("ViTForImageClassification", vit, (3, 16, 16), glue),
        ("ResNetForImageClassification", resnet, (3, 32, 32), glue),
        ("BartForConditionalGeneration", bart, TWO_TEXTS, by_name),
        ("CLIPModel", clip, PAIR, both_logits),
    )
]
