"""Seconds per steering vector: the effects engine beside the naive way with public parts, in one run.

The naive way is what loose scripts do: one vector at a time, a linear scan of 11 scales with whole forward passes,
`generate` with one hook in batches of at most 64, and a second pass over the generated text for the activations.

    python benchmarks/effects.py [--vectors 64] [--naive 3] [--samples 64] [--threads 2] [--dtype float32]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import GPT2Config, GPT2LMHeadModel

from saeflow.config import Effects
from saeflow.corpora.tales import tokenizer
from saeflow.effects.measure import measure_baseline, measure_block, prepare
from saeflow.models.hooks import FAMILIES, attach
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import capture
from saeflow.models.tuning import tuned
from saeflow.saes.sae import SAE
from saeflow.seeds import row_keys
from saeflow.steering.generation import generate

LAYERS, WIDTH, VOCABULARY, LATENTS, HOOK = 6, 256, 5000, 4096, "blocks.2.hook_resid_post"
SCAN = 11  # scales of the naive search
NAIVE_BATCH = 64


class World(NamedTuple):
    """What both ways are given."""

    lm: LanguageModel
    sae: SAE
    text: Tensor
    """Evaluation text, ``[64, 64]``, written by the model itself so that its loss is that of a language model."""
    mean_norm: float
    settings: Effects


def make_world(samples: int, dtype: torch.dtype) -> World:
    """A random GPT-2-shaped model with an SAE of random unit decoder rows."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=8, n_positions=128, bos_token_id=0, eos_token_id=1
    )
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.08)
    lm = LanguageModel(tuned(model.to(dtype)), tokenizer(), FAMILIES["gpt2"])
    rows = normalize(torch.randn(LATENTS, WIDTH), dim=1)
    threshold = torch.ones(LATENTS)
    sae = SAE("jumprelu", rows.T.contiguous(), rows, torch.zeros(LATENTS), torch.zeros(WIDTH), threshold)
    settings = Effects(samples=samples, baseline_samples=128)
    start = torch.zeros(64, 1, dtype=torch.long)
    written = generate(lm, start, None, HOOK, settings.sampling, row_keys(0, "text", [(i,) for i in range(64)]), 63)
    text = torch.cat([start, written], 1)
    norm = capture(lm, text, [HOOK])[HOOK][:, 1:].float().norm(dim=-1).mean().item()
    return World(lm, sae, text, norm, settings)


@torch.no_grad()
def naive(world: World, vector: Tensor, unsteered_loss: float) -> Tensor:
    """Mean latent activations under one vector, the way of loose scripts."""
    lm, settings, model = world.lm, world.settings, world.lm.model
    text = world.text[: settings.scale.tokens // world.text.shape[1]]
    scales = torch.linspace(0, settings.scale.maximum * world.mean_norm, SCAN).tolist()
    losses = []
    for scale in scales:
        with attach(lm, [(HOOK, _adds(scale * vector, lm.dtype))]):
            logits = model(text).logits[:, :-1].float()
        losses.append(cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten()).item())
    target = unsteered_loss + settings.scale.value
    above = next((i for i, loss in enumerate(losses) if loss > target), SCAN - 1)
    total, rows = torch.zeros(LATENTS), 0
    for prompt in settings.prompts:
        left = settings.samples
        while left:
            batch = min(left, NAIVE_BATCH)
            left -= batch
            tokens = torch.tensor([lm.tokenize(prompt)]).repeat(batch, 1)
            with attach(lm, [(HOOK, _adds(scales[above] * vector, lm.dtype))]):
                written = model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    do_sample=True,
                    top_k=0,
                    min_new_tokens=settings.new_tokens,
                    max_new_tokens=settings.new_tokens,
                    pad_token_id=1,
                )
            read = capture(lm, written, [HOOK])[HOOK][:, tokens.shape[1] :]
            total += world.sae.encode(read.float()).mean(1).sum(0)
            rows += batch
    return total / rows


def _adds(addition: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    addition = addition.to(dtype)
    return lambda resid: resid + addition


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def matmul_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of the matrix product of the model's MLP shape; median of 50."""
    left, right = torch.randn(2048, WIDTH, dtype=dtype), torch.randn(WIDTH, 4 * WIDTH, dtype=dtype)
    times = [seconds(lambda: left @ right) for _ in range(60)][10:]
    return 2 * 2048 * WIDTH * 4 * WIDTH / statistics.median(times) / 1e9


def rollout_work(settings: Effects) -> float:
    """GFLOP of the matrix products that the rollouts of one vector need, SAE included."""
    weights = 12 * LAYERS * WIDTH**2 + VOCABULARY * WIDTH
    tokens = settings.samples * len(settings.prompts) * settings.new_tokens
    return 2 * tokens * (weights + WIDTH * LATENTS) / 1e9


def main() -> None:
    """Measure both ways and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=64, help="vectors given to the engine")
    parser.add_argument("--naive", type=int, default=3, help="vectors done the naive way")
    parser.add_argument("--samples", type=int, default=64, help="rollouts per vector and prompt (3 prompts)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    world = make_world(options.samples, dtype)
    text = world.text.numpy().astype("int32")
    experiment = prepare(world.lm, world.sae, HOOK, world.settings, text, world.mean_norm, 0)
    baseline = measure_baseline(experiment)
    vectors = world.sae.W_dec[: options.vectors]
    naive(world, vectors[0], baseline.loss)  # warm
    slow = statistics.median(
        seconds(lambda vector=vector: naive(world, vector, baseline.loss)) for vector in vectors[: options.naive]
    )
    fast = seconds(lambda: measure_block(experiment, vectors, range(len(vectors)), baseline)) / len(vectors)
    rate = matmul_rate(dtype)
    achieved = rollout_work(world.settings) / fast
    result = {
        "machine": f"{platform.machine()}, {options.threads} threads",
        "model": f"{LAYERS} layers, d_model {WIDTH}, vocabulary {VOCABULARY}, {LATENTS} latents, {options.dtype}",
        "rollouts_per_vector": world.settings.samples * len(world.settings.prompts),
        "naive_seconds_per_vector": round(slow, 3),
        "engine_seconds_per_vector": round(fast, 4),
        "ratio": round(slow / fast, 2),
        "matmul_gflops": round(rate, 1),
        "engine_rollout_gflops": round(achieved, 1),
        "share_of_matmul_rate": round(achieved / rate, 3),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
