"""Is flow conserved in networks of other libraries, and are all of their operations recognised?

Puts models of Hugging Face Transformers that have a Flax version, with tiny configurations and
random weights, into flow mode. Needs transformers 4.57, which the library does not need:
`python -m benchmarks.third_party --out benchmarks/results/third_party.json`
"""

import argparse
import json
import time
from typing import Any

import jax
import jax.numpy as jnp

import synflow_jax as sf

TEXT = jax.ShapeDtypeStruct((6,), jnp.int32)
SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def networks() -> dict[str, tuple[Any, Any, tuple[str, ...]]]:
    """Build (model, shape of an input, layers that all flow crosses)."""
    import transformers as hf

    gpt = hf.GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    more = {"intermediate_size": 64, "max_position_embeddings": 16}
    llama = hf.LlamaConfig(**SMALL, **more, num_key_value_heads=2)
    image = {k: v for k, v in SMALL.items() if k != "vocab_size"}
    vit = hf.ViTConfig(**image, intermediate_size=64, image_size=8, patch_size=4)
    return {
        "gpt2": (hf.FlaxGPT2Model(gpt), TEXT, ("wte/embedding", "ln_f/scale")),
        "llama": (hf.FlaxLlamaModel(llama), TEXT, ("embed_tokens/embedding", "norm/weight")),
        "bert": (
            hf.FlaxBertModel(hf.BertConfig(**SMALL, **more)),
            TEXT,
            ("embeddings/word_embeddings/embedding", "embeddings/LayerNorm/scale"),
        ),
        "vit": (
            hf.FlaxViTModel(vit, input_shape=(1, 8, 8, 3)),
            (3, 8, 8),
            ("embeddings/patch_embeddings/projection/kernel", "layernorm/scale"),
        ),
    }


def measure(model: Any, shape: Any, cuts: tuple[str, ...]) -> dict[str, Any]:
    """Compare the flow through each such layer with the flow of the network."""

    def apply_fn(params: Any, x: Any) -> Any:
        return model(x, params=params)[0]

    start = time.perf_counter()
    found = sf.flow.homogeneity_report(model.params, apply_fn, shape)
    seconds = time.perf_counter() - start
    flow = sf.flow_mode(apply_fn)
    total = 2.0 ** float(sf.log2_flow(model.params, flow, shape))
    sums = {k: float(v) for k, v in sf.measure.layer_flow(model.params, flow, shape).items()}
    return {
        "flow": total,
        "largest error of a cut": max(abs(sums[path] / total - 1) for path in cuts),
        "smallest sum of a layer": min(sums.values()),
        "seconds to trace": round(seconds, 2),
        "replaced": sorted({row.breaks for row in found.rows}),
        "not recognised": [row.operation for row in found.unrecognised],
    }


def main() -> None:
    """Write one row a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="benchmarks/results/third_party.json")
    rows = {name: measure(*parts) for name, parts in networks().items()}
    text = json.dumps(rows, indent=2)
    print(text)
    with open(parser.parse_args().out, "w") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main()
