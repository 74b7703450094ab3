"""Whether a GPU computes what the CPU computes, and how fast: `make gpu-check`.

For a machine with an H100 or H200; at most eight minutes, 40 GB of its memory, no network. First
equality: effects, captured rows, one SAE per architecture, greedy completions, scale 0, the recorded
decode step, compiled sparse products, two devices leased by two jobs. Then rates: effects and
capture at the exact shape of Gemma-2-2B with random weights, training of TopK and BatchTopK SAEs
beside the dense product of their encoder. Prints two tables as docs/benchmarks.md has them, and ends
with 1 where something is not equal.

    python benchmarks/gpu_check.py [--device cuda] [--minutes 8] [--tiny]
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from effects import (
    World,
    evaluations_per_vector,
    gpt2,
    make_world,
    matmul_rate,
    seconds,
    work,
)
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.activations.capture import capture_rows
from saeflow.activations.sources import TextSource
from saeflow.analyses.effects.measure import (
    EffectBlock,
    Experiment,
    measure_baseline,
    measure_block,
    prepare,
)
from saeflow.analyses.effects.settings import Measurement, Scale
from saeflow.config.sections import Activations, SAETraining, Sampling
from saeflow.config.sections.architectures import ARCHITECTURES
from saeflow.corpora.tales import tokenizer
from saeflow.decoding.edits import Edit
from saeflow.decoding.generation import Memory, generate
from saeflow.decoding.recording import Recording
from saeflow.models.families import FAMILIES
from saeflow.models.fast_layers import with_fast_layers
from saeflow.models.language_model import LanguageModel
from saeflow.saes import gpu_kernels, sparse
from saeflow.saes.feeds import sae_feed
from saeflow.saes.sae import SAE
from saeflow.saes.subject import Subject
from saeflow.saes.training import Trained, train_saes
from saeflow.seeds import row_keys

HOOK = "blocks.2.hook_resid_post"
MOST_ROWS = 1024  # of a decode batch: bounds the memory of keys and values
ROWS = [(row,) for row in range(32)]
LEASE = """
import os, sys, time
from saeflow.devices import lease
lease(1)
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(5)
"""


class Equality(NamedTuple):
    """What was compared, whether it is equal, and how far apart it is."""

    what: str
    equal: bool | None
    """None where it could not be compared."""
    apart: str


class Rate(NamedTuple):
    """What was measured, in words for a table."""

    what: str
    value: str
    beside: str
    """What it is to be held against."""
    memory: str
    """The most that was held on the device."""


class Sizes(NamedTuple):
    """How large the rates' models are."""

    model: str
    vectors: int
    samples: int
    blocks: int
    context: int
    d_model: int
    widths: tuple[int, ...]
    batch: int
    steps: int


FULL = Sizes("gemma", 16, 64, 256, 128, 2304, (16_384, 65_536), 4096, 16)
TINY = Sizes("tiny", 2, 4, 8, 16, 32, (128,), 64, 4)


class Small(NamedTuple):
    """A small model on a device, an SAE at its hook, and text, all drawn on the CPU."""

    lm: LanguageModel
    sae: SAE
    text: Tensor
    mean_norm: float


def small(device: str, text: Tensor | None = None) -> Small:
    """The same model, SAE and text on any device.

    Args:
        text: that the model wrote on the CPU; None has it written.
    """
    torch.manual_seed(0)
    model = gpt2(64, 4, 1500).eval().requires_grad_(False).to(device)
    lm = LanguageModel(with_fast_layers(model), tokenizer(), FAMILIES["gpt2"])
    rows = normalize(torch.randn(256, lm.d_model), dim=1)
    zeros = torch.zeros(256), torch.zeros(lm.d_model)
    sae = SAE("jumprelu", rows.T.contiguous(), rows, *zeros, torch.full((256,), 0.5)).to(device)
    if text is None:
        start, keys = torch.zeros(32, 1, dtype=torch.long), row_keys(0, "text", ROWS)
        text = torch.cat([start, generate(lm, start, None, HOOK, Sampling(), keys, 31)], 1)
    return Small(lm, sae, text, 20.0)


def experiment_of(world: Small, rows: int) -> Experiment:
    """Effects of a small model."""
    settings = Measurement(
        prompts=["The", "I think"],
        samples=8,
        baseline_samples=16,
        new_tokens=8,
        scale=Scale(tokens=256, steps=4),
    )
    subject = Subject(world.lm, world.sae, HOOK, 0)
    tokens = world.text.cpu().numpy().astype("int32")
    return prepare(subject, settings, tokens, world.mean_norm, batch_rows=rows)


def effects_of(world: Small) -> EffectBlock:
    """Effects of eight vectors."""
    experiment = experiment_of(world, 32)
    baseline = measure_baseline(experiment)
    return measure_block(experiment, world.sae.W_dec[:8].cpu(), range(8), baseline)


def completions(
    world: Small, scale: float, sampling: Sampling, recorded: bool = False
) -> tuple[Tensor, Tensor]:
    """Tokens that are drawn under a vector, and the stream that is read on the way."""
    prompts = world.text[:8, :8].to(world.lm.device)
    vectors = world.sae.W_dec[:8]
    edit = Edit("add", vectors, torch.full((8,), scale, device=vectors.device))
    keys, seen = row_keys(0, "completions", ROWS), []
    memory = Memory(recording=Recording() if recorded else None)
    tokens = generate(
        world.lm,
        prompts,
        edit,
        HOOK,
        sampling,
        keys,
        12,
        lambda resid, _: seen.append(resid.cpu()),
        memory,
    )
    return tokens.cpu(), torch.cat(seen, dim=1)


def relative(a: Tensor, b: Tensor) -> float:
    """The length of a difference as a share of the length of ``b``."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))


def equalities(device: str) -> Iterator[Equality]:
    """Everything that must be the same on the device."""
    cpu = small("cpu")
    gpu = small(device, cpu.text)
    rows = [
        torch.cat([part[HOOK].activations for part in _captured(world)]) for world in (cpu, gpu)
    ]
    apart = relative(rows[1], rows[0])
    yield Equality("captured rows", apart < 1e-5, f"{apart:.1e} of their length")

    both = [completions(world, 4.0, Sampling(temperature=0))[0] for world in (cpu, gpu)]
    same = float((both[0] == both[1]).float().mean())
    yield Equality("greedy completions", same > 0.99, f"{same:.2%} of the tokens are the same")

    steered, unsteered = (completions(gpu, scale, Sampling()) for scale in (0.0, -0.0))
    zero = generate(
        gpu.lm,
        gpu.text[:8, :8].to(device),
        None,
        HOOK,
        Sampling(),
        row_keys(0, "completions", ROWS),
        12,
    ).cpu()
    exact = torch.equal(steered[0], zero) and torch.equal(steered[1], unsteered[1])
    yield Equality("scale 0 and no steering", exact, "the same tokens" if exact else "other tokens")

    eager, recorded = (completions(gpu, 4.0, Sampling(), again) for again in (False, True))
    same = float((eager[0] == recorded[0]).float().mean())
    apart = relative(recorded[1], eager[1]) if same == 1 else float("nan")
    kind = "a CUDA graph" if device != "cpu" else "the same memory, run again"
    yield Equality(
        "recorded and eager decode step", same > 0.99, f"{same:.2%} of the tokens; as {kind}"
    )

    blocks = [effects_of(world) for world in (cpu, gpu)]
    by_vector = [
        relative(ours, theirs)
        for ours, theirs in zip(blocks[1].effects, blocks[0].effects, strict=True)
    ]
    apart = statistics.median(by_vector)
    # Where two sums differ in the last bit a rollout may draw another token, and one of 16 goes
    # another way.
    yield Equality("effects", apart < 0.02, f"{apart:.1e} of a vector's effects, median")

    for name in ARCHITECTURES:
        ours, theirs = (trained(name, where, 64, 512, 256, 40) for where in (device, "cpu"))
        apart = max(
            abs(a - b) / b for a, b in zip(ours.curve["error"], theirs.curve["error"], strict=True)
        )
        yield Equality(
            f"training, {name}", apart < 0.02, f"error off by {apart:.1e} of itself at most"
        )
    yield compiled_products(device)
    yield two_devices()


def _captured(world: Small) -> Iterator[dict[str, Any]]:
    return capture_rows(TextSource(world.lm, world.text.cpu().numpy()), [HOOK], Activations())


def compiled_products(device: str) -> Equality:
    """The compiled sparse products and torch's own."""
    what = "compiled sparse products and torch's"
    if device == "cpu" or not gpu_kernels.available():
        return Equality(what, None, "no Triton for this device")
    torch.manual_seed(0)
    x, encoder = torch.randn(256, 300, device=device), torch.randn(1000, 300, device=device)
    entries = sparse.scan(x, encoder, torch.zeros(1000, device=device), sparse.Largest(16))
    fits, results = gpu_kernels.fits, []
    for use in (fits, lambda *_: False):
        gpu_kernels.fits = use  # type: ignore[assignment]
        weight = encoder.clone().requires_grad_()
        out = sparse.decoded(entries.values, entries, weight)
        out.square().sum().backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        results.append((out.detach(), weight.grad))
    gpu_kernels.fits = fits
    apart = max(relative(ours, theirs) for ours, theirs in zip(*results, strict=True))
    return Equality(what, apart < 1e-5, f"{apart:.1e} of their length")


def two_devices() -> Equality:
    """Two jobs at once, each on a device of its own."""
    what = "two jobs lease two devices"
    if torch.cuda.device_count() < 2:
        return Equality(what, None, f"{torch.cuda.device_count()} devices are here")
    environment = {k: v for k, v in os.environ.items() if k != "SAEFLOW_DEVICE_GRANTED"}
    jobs = [
        subprocess.Popen([sys.executable, "-c", LEASE], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    names = [job.communicate(timeout=60)[0].decode().strip() for job in jobs]
    return Equality(what, len(set(names)) == 2 and all(names), f"devices {' and '.join(names)}")


class Planted:
    """Batches of sums of planted directions, drawn on the CPU and lying on a device; they go
    round."""

    identity = None

    def __init__(self, device: str, d_model: int, batch: int) -> None:
        generator = torch.Generator().manual_seed(1)
        directions = normalize(torch.randn(2 * d_model, d_model, generator=generator), dim=1)
        self.batches = []
        for _ in range(4):
            chosen = torch.randint(2 * d_model, (batch, 16), generator=generator)
            values = 0.5 + torch.rand(batch, 16, generator=generator)
            x = (values[..., None] * directions[chosen]).sum(dim=1)
            self.batches.append((x * (d_model**0.5 / x.norm(dim=1).mean())).to(device))
        self.place = 0
        self.mean, self.variance = torch.zeros(d_model, dtype=torch.float64), float(d_model)

    def state(self) -> dict[str, int]:
        """The place of the next batch."""
        return {"place": self.place}

    def seek(self, state: dict[str, int]) -> None:
        """Go to a place."""
        self.place = state["place"]

    def __next__(self) -> Tensor:
        self.place += 1
        return self.batches[self.place % len(self.batches)]


def trained(
    architecture: str,
    device: str,
    d_model: int,
    d_sae: int,
    batch: int,
    steps: int,
    dtype: str = "float32",
    report: Callable[[object], None] | None = None,
) -> Trained:
    """An SAE after some steps."""
    batches = Planted(device, d_model, batch)
    takes_k = {"k": 32 if d_sae > 1024 else 8} if ARCHITECTURES[architecture].takes_k else {}
    settings = SAETraining(
        architecture=architecture,
        d_sae=d_sae,
        batch_size=batch,
        tokens=batch * steps,
        compute_dtype=dtype,
        **takes_k,
    )
    feed = sae_feed(batches, batches, {})
    [result] = train_saes(feed, [settings], seed=0, progress=report, device=device)
    return result


def rates(device: str, sizes: Sizes, deadline: float) -> Iterator[Rate]:
    """How fast the device is, as long as there is time."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    world = make_world(sizes.model, sizes.samples, dtype, device)
    yield from rates_of_a_model(world, device, sizes)
    del world
    for d_sae in sizes.widths:
        for narrow in ("float32", "bfloat16"):
            for architecture in ("topk", "batchtopk"):
                if time.monotonic() > deadline:
                    return
                yield rate_of_training(architecture, device, sizes, d_sae, narrow)


def rates_of_a_model(world: World, device: str, sizes: Sizes) -> Iterator[Rate]:
    """Generated tokens per second of the effects' engine, and captured ones."""
    fresh(device)
    world = world._replace(settings=replace_settings(world.settings, sizes.samples))
    text = world.text.cpu().numpy().astype("int32")
    subject = Subject(world.lm, world.sae, world.hook, 0)
    experiment = prepare(subject, world.settings, text, world.mean_norm, batch_rows=MOST_ROWS)
    baseline = measure_baseline(experiment)
    vectors = world.sae.W_dec[: sizes.vectors].cpu()
    tokens = sizes.samples * len(world.settings.prompts) * world.settings.new_tokens
    evaluations = evaluations_per_vector(experiment, vectors[:4], baseline.start)
    alone = matmul_rate(world.lm, device)
    for recorded in (False, True):
        chosen = replace(experiment, recorded=recorded)
        measure_block(chosen, vectors[:1], range(1), baseline)  # warm
        each = seconds(
            lambda chosen=chosen: measure_block(chosen, vectors, range(len(vectors)), baseline),
            device,
        ) / len(vectors)
        share = work(world, evaluations) / each / alone
        how = "recorded" if recorded else "eager"
        yield Rate(
            f"effects, {sizes.model}, {how}",
            f"{tokens / each:,.0f} generated tokens/s",
            f"{share:.0%} of the rate of its matrix products alone, {alone / 1000:.1f} TFLOP/s",
            peak(device),
        )
    fresh(device)
    blocks = torch.randint(world.lm.d_vocab, (sizes.blocks, sizes.context)).numpy()
    source = TextSource(world.lm, blocks)

    def capture() -> None:
        for _ in capture_rows(source, [world.hook], Activations(dtype="bfloat16")):
            pass

    capture()  # warm
    taken = seconds(capture, device)
    yield Rate(
        f"capture, {sizes.model}, {world.hook}",
        f"{blocks.size / taken:,.0f} tokens/s",
        "rows brought to the CPU",
        peak(device),
    )


def replace_settings(settings: Measurement, samples: int) -> Measurement:
    """The same with other numbers of rollouts."""
    return settings.model_copy(update={"samples": samples, "baseline_samples": max(16, samples)})


def rate_of_training(architecture: str, device: str, sizes: Sizes, d_sae: int, dtype: str) -> Rate:
    """Tokens per second of a training, beside its encoder's dense product alone."""
    fresh(device)
    times: list[float] = []
    trained(
        architecture,
        device,
        sizes.d_model,
        d_sae,
        sizes.batch,
        sizes.steps,
        dtype,
        lambda _: times.append(time.perf_counter()),
    )
    steps = [after - before for before, after in pairwise(times)]
    held = peak(device)
    x = torch.randn(sizes.batch, sizes.d_model, device=device).to(getattr(torch, dtype))
    weight = torch.randn(d_sae, sizes.d_model, device=device).to(x.dtype)
    bound = statistics.median(seconds(lambda: x @ weight.T, device) for _ in range(12))
    each = statistics.median(steps[len(steps) // 4 :])
    return Rate(
        f"training, {architecture}, {sizes.d_model}/{d_sae}, {dtype}",
        f"{sizes.batch / each:,.0f} tokens/s",
        f"{sizes.batch / bound:,.0f} tokens/s: its encoder's dense product alone",
        held,
    )


def fresh(device: str) -> None:
    """Count the device's memory from here."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> str:
    """The most memory of the device since `fresh`."""
    return "" if device == "cpu" else f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB"


def main() -> None:
    """Compare, measure, print, and end with 1 where something is not equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="rates stop in time for it")
    parser.add_argument("--tiny", action="store_true", help="small sizes, as a test of this script")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("gpu-check: torch finds no GPU here; --device cpu --tiny tests the script itself")
    if options.tiny:
        torch.set_num_threads(1)  # faster for tiny products
    begin = time.monotonic()
    name = torch.cuda.get_device_name() if options.device != "cpu" else "CPU"
    print(f"{name}, torch {torch.__version__}\n", flush=True)
    print("| on the device and on the CPU | equal | how far apart |\n|---|---|---|", flush=True)
    unequal = []
    for what, equal, apart in equalities(options.device):
        word = {True: "yes", False: "**no**", None: "not compared"}[equal]
        print(f"| {what} | {word} | {apart} |", flush=True)
        unequal += [what] if equal is False else []
    print("\n| rate | here | beside it | memory |\n|---|---|---|---|", flush=True)
    sizes = TINY if options.tiny else FULL
    # The slowest training takes less than half a minute.
    for rate in rates(options.device, sizes, begin + 60 * options.minutes - 45):
        print(f"| {' | '.join(rate)} |", flush=True)
    print(f"\n{time.monotonic() - begin:.0f} s")
    if unequal:
        sys.exit(f"gpu-check: not equal on this device: {', '.join(unequal)}")


if __name__ == "__main__":
    main()
