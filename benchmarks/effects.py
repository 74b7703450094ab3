"""Seconds per steering vector: the effects engine beside the naive way with public parts, in one
run.

The naive way (`effects_naive.py`, in a process of its own) is what loose scripts do: one vector at
a time, a linear scan of 11 scales with whole forward passes of the model as `transformers` loads
it, `generate` with one hook in batches of at most 64, and a second pass over the generated text for
the activations.

Three models: `stories`, a trained Llama of 260k parameters named by SAEFLOW_MODEL; `gpt2`, random
weights in GPT-2's shape (6 layers, d_model 256, vocabulary 5,000, 4,096 latents); `gemma`, random
weights in the exact shape of Gemma-2-2B (16,384 latents), for a GPU.

    python benchmarks/effects.py [--model gpt2] [--samples 64] [--dtype float32] [--vectors 64]
    [--rounds 3]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from apart import Apart, Cost, cost, medians
from torch import Tensor
from torch.nn.functional import normalize
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.modeling_utils import PreTrainedModel

from saeflow.analyses.effects.measure import (
    Baseline,
    Experiment,
    losses_of,
    measure_baseline,
    measure_block,
    prepare,
)
from saeflow.analyses.effects.scale import find_scales
from saeflow.analyses.effects.settings import Measurement, Scale
from saeflow.corpora.tales import tokenizer
from saeflow.decoding.generation import generate
from saeflow.decoding.rollouts import BATCH_ROWS
from saeflow.models.families import FAMILIES
from saeflow.models.fast_layers import with_fast_layers
from saeflow.models.hooks import parse_hook
from saeflow.models.language_model import LanguageModel, load_tokenizer
from saeflow.models.running import capture
from saeflow.products import linear
from saeflow.saes.sae import SAE
from saeflow.saes.subject import Subject
from saeflow.seeds import row_keys


class Shape(NamedTuple):
    """A model and the SAE at its hook."""

    make: Callable[[], PreTrainedModel]
    layer: int
    latents: int


class World(NamedTuple):
    """What both ways are given."""

    lm: LanguageModel
    plain: LanguageModel
    """The same model as `transformers` loads it, for the naive way."""
    sae: SAE
    hook: str
    text: Tensor
    """Evaluation text, ``[64, 64]``, written by the model itself so that its loss is that of a
    language model."""
    mean_norm: float
    settings: Measurement


def gpt2(d_model: int = 256, layers: int = 6, vocabulary: int = 5000) -> PreTrainedModel:
    """Random weights, strong enough that the model's text is no noise to it."""
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=d_model,
        n_layer=layers,
        n_head=8,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.08)
    return model


def gemma() -> PreTrainedModel:
    """Random weights in the shape of Gemma-2-2B."""
    return Gemma2ForCausalLM(Gemma2Config(bos_token_id=0, eos_token_id=1))


def stories() -> PreTrainedModel:
    """The trained model that SAEFLOW_MODEL names."""
    return AutoModelForCausalLM.from_pretrained(os.environ["SAEFLOW_MODEL"], local_files_only=True)


SHAPES = {
    "tiny": Shape(lambda: gpt2(32, 3, 1500), 1, 64),
    "gpt2": Shape(gpt2, 2, 4096),
    "gemma": Shape(gemma, 12, 16_384),
    "stories": Shape(stories, 2, 512),
}


def make_world(name: str, samples: int, dtype: torch.dtype, device: str = "cpu") -> World:
    """A model with an SAE of random unit decoder rows."""
    torch.manual_seed(0)
    shape = SHAPES[name]
    with torch.device(device):
        model = shape.make().eval().requires_grad_(False).to(device, dtype)
    words = load_tokenizer(Path(os.environ["SAEFLOW_MODEL"])) if name == "stories" else tokenizer()
    plain = LanguageModel(model, words, FAMILIES[model.config.model_type])
    lm = replace(plain, model=with_fast_layers(copy.deepcopy(model)))
    rows = normalize(torch.randn(shape.latents, lm.d_model, device=device), dim=1)
    hook = f"blocks.{shape.layer}.hook_resid_post"
    zeros = torch.zeros(shape.latents, device=device), torch.zeros(lm.d_model, device=device)
    start = torch.zeros(64, 1, dtype=torch.long, device=device)
    settings = Measurement(samples=samples, baseline_samples=128, scale=Scale())
    keys = row_keys(0, "text", [(i,) for i in range(64)])
    text = torch.cat([start, generate(lm, start, None, hook, settings.sampling, keys, 63)], 1)
    activations = capture(lm, text, [hook])[hook][:, 1:].float()
    threshold = torch.full(
        (shape.latents,), (activations.norm(dim=-1).mean() / lm.d_model**0.5).item(), device=device
    )
    sae = SAE("jumprelu", rows.T.contiguous(), rows, *zeros, threshold)
    return World(lm, plain, sae, hook, text, activations.norm(dim=-1).mean().item(), settings)


def hand_over(world: World, vectors: Tensor, unsteered_loss: float, folder: Path) -> None:
    """Write what the naive way is given."""
    lm, settings = world.plain, world.settings
    lm.model.save_pretrained(folder)
    tensors = {
        "W_enc": world.sae.W_enc,
        "b_enc": world.sae.b_enc,
        "threshold": world.sae.threshold,
        "text": world.text[: settings.scale.tokens // world.text.shape[1]],
        "vectors": vectors,
    }
    torch.save({name: tensor.cpu() for name, tensor in tensors.items()}, folder / "tensors.pt")
    block = lm.blocks[parse_hook(world.hook).layer]
    handed = {
        "layer": next(name for name, module in lm.model.named_modules() if module is block),
        "largest_scale": settings.scale.maximum * world.mean_norm,
        "wanted_loss": unsteered_loss + settings.scale.value,
        "prompts": [lm.tokenize(prompt) for prompt in settings.prompts],
        "samples": settings.samples,
        "new_tokens": settings.new_tokens,
    }
    (folder / "settings.json").write_text(json.dumps(handed))


def seconds(call: Callable[[], object], device: str) -> float:
    """Wall time of one call."""
    synchronise = torch.cuda.synchronize if device != "cpu" else lambda: None
    synchronise()
    start = time.perf_counter()
    call()
    synchronise()
    return time.perf_counter() - start


def layer_products(lm: LanguageModel) -> list[tuple[int, int]]:
    """Inputs and outputs of every weight matrix of one layer."""
    matrices = [parameter for parameter in lm.blocks[0].parameters() if parameter.ndim == 2]
    return [(matrix.shape[1], matrix.shape[0]) for matrix in matrices]


def matmul_rate(lm: LanguageModel, device: str) -> float:
    """GFLOP/s of the products of one decode step, each as often as it occurs in one; median of 20
    rounds."""
    shapes = layer_products(lm) * lm.n_layers + [(lm.d_model, lm.d_vocab)]
    weights = {
        shape: torch.randn(shape[1], shape[0], dtype=lm.dtype, device=device)
        for shape in set(shapes)
    }
    inputs = {n: torch.randn(BATCH_ROWS, n, dtype=lm.dtype, device=device) for n, _ in shapes}

    def step() -> None:
        for n, m in shapes:
            linear(inputs[n], weights[n, m])

    times = [seconds(step, device) for _ in range(25)][5:]
    return 2 * BATCH_ROWS * sum(n * m for n, m in shapes) / statistics.median(times) / 1e9


def work(world: World, evaluations: float) -> float:
    """GFLOP of the matrix products of one vector: rollouts, SAE, losses of the search. Attention is
    not counted."""
    lm, settings = world.lm, world.settings
    layer, unembedding = sum(n * m for n, m in layer_products(lm)), lm.d_vocab * lm.d_model
    above = lm.n_layers - parse_hook(world.hook).layer - 1
    tokens = settings.samples * len(settings.prompts) * settings.new_tokens
    rollouts = tokens * (lm.n_layers * layer + unembedding + lm.d_model * world.sae.d_sae)
    return (
        2 * (rollouts + evaluations * settings.scale.tokens * (above * layer + unembedding)) / 1e9
    )


def evaluations_per_vector(experiment: Experiment, vectors: Tensor, start: object) -> float:
    """Losses of the whole evaluation text that a search takes, the first look included as its
    share."""
    on_all, look = losses_of(experiment, vectors)
    calls = 0

    def counted(indices: np.ndarray, scales: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += len(indices)
        return on_all(indices, scales)

    find_scales(counted, len(vectors), experiment.scale_search, start, look)  # type: ignore[arg-type]
    share = experiment.evaluation_part.tokens.numel() / experiment.evaluation.tokens.numel()
    return calls / len(vectors) + share


def in_turn(
    experiment: Experiment, vectors: Tensor, baseline: Baseline, naive: Apart, rounds: int
) -> tuple[list[Cost], list[Cost]]:
    """What a vector takes the naive way and the engine's, in rounds of one vector and all of
    them."""
    device = experiment.subject.lm.device.type

    def engine(these: Tensor) -> Cost:
        ids = range(len(these))
        wait = torch.cuda.synchronize if device != "cpu" else lambda: None
        taken = cost(lambda: measure_block(experiment, these, ids, baseline), wait)
        return Cost(taken.wall / len(these), taken.cpu / len(these))

    naive(vector=0)  # warm
    engine(vectors[:1])
    taken = [(naive(vector=number), engine(vectors)) for number in range(rounds)]
    return [slow for slow, _ in taken], [fast for _, fast in taken]


def main() -> None:
    """Measure both ways and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=tuple(SHAPES), default="gpt2")
    parser.add_argument("--vectors", type=int, default=64, help="given to the engine per round")
    parser.add_argument("--rounds", type=int, default=3, help="each of one vector the naive way")
    parser.add_argument(
        "--samples", type=int, default=64, help="rollouts per vector and prompt (3 prompts)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    world = make_world(options.model, options.samples, getattr(torch, options.dtype), device)
    text = world.text.cpu().numpy().astype("int32")
    experiment = prepare(
        Subject(world.lm, world.sae, world.hook, 0), world.settings, text, world.mean_norm
    )
    baseline = measure_baseline(experiment)
    vectors = world.sae.W_dec[: options.vectors].cpu()
    with tempfile.TemporaryDirectory() as name:
        hand_over(world, vectors, baseline.loss, Path(name))
        with Apart("effects_naive.py", name, str(options.threads), device) as naive:
            costs = in_turn(experiment, vectors, baseline, naive, options.rounds)
    slow, fast = (medians(each) for each in costs)
    ratios = [a.wall / b.wall for a, b in zip(*costs, strict=True)]
    of_cpu = [a.cpu / b.cpu for a, b in zip(*costs, strict=True)]
    evaluations = evaluations_per_vector(experiment, vectors[:16], baseline.start)
    rate, lm, settings = matmul_rate(world.lm, device), world.lm, world.settings
    gflop = work(world, evaluations)
    rollouts = settings.samples * len(settings.prompts)
    result = {
        "machine": torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()}, CPU",
        "threads": options.threads,
        "model": f"{lm.n_layers} layers, d_model {lm.d_model}, vocabulary {lm.d_vocab}, "
        f"{world.sae.d_sae} latents",
        "dtype": options.dtype,
        "rollouts_per_vector": rollouts,
        "naive_seconds_per_vector": round(slow.wall, 3),
        "engine_seconds_per_vector": round(fast.wall, 4),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "naive_cpu_seconds_per_vector": round(slow.cpu, 3),
        "engine_cpu_seconds_per_vector": round(fast.cpu, 4),
        "ratio_of_cpu_seconds": round(statistics.median(of_cpu), 2),
        "ratios_of_cpu_seconds": [round(ratio, 2) for ratio in of_cpu],
        "generated_tokens_per_second": round(rollouts * settings.new_tokens / fast.wall),
        "losses_per_search": round(evaluations, 2),
        "gflop_per_vector": round(gflop, 1),
        "matmul_gflops": round(rate, 1),
        "floor_seconds_per_vector": round(gflop / rate, 4),
        "engine_gflops": round(gflop / fast.wall, 1),
        "share_of_matmul_rate": round(gflop / fast.wall / rate, 3),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
