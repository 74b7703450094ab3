"""SAELens' cache runner on a random GPT-2-shaped HookedTransformer; prints what its `run` took.

    activations_peer.py SHAPE_AS_JSON LAYER DTYPE TOKENS.npy OUTPUT_FOLDER THREADS

Runs in an environment of its own (benchmarks/activations.py --peer).
"""

import json
import sys

import numpy as np
import torch
from apart import cost
from datasets import Dataset
from sae_lens import cache_activations_runner as runner
from sae_lens.config import CacheActivationsRunnerConfig
from transformer_lens import HookedTransformer, HookedTransformerConfig


def main() -> None:
    """Cache the tokens."""
    shape, layer, dtype, file, out, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    size = json.loads(shape)
    tokens = np.load(file)
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=size["n_layer"],
            d_model=size["n_embd"],
            n_ctx=size["n_positions"],
            d_head=size["n_embd"] // size["n_head"],
            n_heads=size["n_head"],
            d_mlp=4 * size["n_embd"],
            d_vocab=size["vocab_size"],
            act_fn="gelu_new",
            normalization_type="LN",
            device="cpu",
            dtype=getattr(torch, dtype),
        )
    )
    runner.load_model = lambda **_: model
    settings = CacheActivationsRunnerConfig(
        dataset_path="tokens",
        model_name="random",
        model_batch_size=4096 // tokens.shape[1],
        hook_name=f"blocks.{layer}.hook_resid_post",
        d_in=size["n_embd"],
        training_tokens=tokens.size,
        context_size=tokens.shape[1],
        new_cached_activations_path=out,
        shuffle=False,
        streaming=False,
        prepend_bos=False,
        buffer_size_gb=0.05,
        device="cpu",
    )
    job = runner.CacheActivationsRunner(
        settings, override_dataset=Dataset.from_dict({"tokens": tokens.tolist()})
    )
    print(json.dumps(cost(job.run)))


if __name__ == "__main__":
    main()
