"""One training by another library, for `saes.py`; runs in that library's environment and knows
nothing of saeflow.

    sae_peers.py LIBRARY ARCHITECTURE SETTINGS

SETTINGS is the JSON that `saes.py` gives to all libraries; the result is one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from apart import Cost


class Batches:
    """The batches that every library gets, in order; notes when each is asked for."""

    def __init__(self, path: str, batch: int, steps: int) -> None:
        self.path, self.batch, self.left = path, batch, steps
        self.times: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def note(self) -> None:
        """Note the time, and the processor time of this process."""
        self.times.append((time.perf_counter(), time.process_time()))

    def __next__(self) -> torch.Tensor:
        self.note()
        data = np.load(
            self.path, mmap_mode="r"
        )  # every time anew, or its pages count as memory of this process
        start = (len(self.times) - 1) * self.batch % len(data)
        return torch.from_numpy(np.array(data[start : start + self.batch]))

    def settled(self) -> Cost:
        """What a step took on average, the first quarter left out."""
        steps = np.diff(self.times, axis=0)
        wall, cpu = steps[len(steps) // 4 :].mean(0)
        return Cost(float(wall), float(cpu))


def memory() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def result(batches: Batches, megabytes: float, quality: dict[str, float]) -> None:
    """Print rate, memory and quality."""
    wall, cpu = batches.settled()
    steps = len(batches.times) - 1
    rate = {
        "tokens_per_second": round(batches.batch / wall),
        "tokens_per_cpu_second": round(batches.batch / cpu),
        "steps": steps - steps // 4,
    }
    print(json.dumps({**rate, "megabytes": round(megabytes), **quality}))


@torch.no_grad()
def quality(path: str, encode: Callable[..., Any], decode: Callable[..., Any]) -> dict[str, float]:
    """Explained variance and L0 on rows that were not trained on."""
    x = torch.from_numpy(np.load(path))
    z = encode(x)
    left = (x - decode(z)).double().square().sum() / (x - x.mean(0)).double().square().sum()
    return {
        "explained_variance": round(1 - float(left), 4),
        "l0": round(float((z > 0).sum(1).float().mean()), 1),
    }


def sae_lens(
    architecture: str, s: dict[str, Any], batches: Batches
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Train with SAELens."""
    import sae_lens as library
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    own = {
        "topk": ("TopK", {"k": s["k"]}),
        "batchtopk": ("BatchTopK", {"k": s["k"]}),
        "standard": ("Standard", {"l1_coefficient": s["l1"] * s["d_model"]}),
        "jumprelu": ("JumpReLU", {"l0_coefficient": s["l0"] * s["d_model"]}),
    }
    if s.get("target_l0"):
        own["jumprelu"] = (
            "JumpReLU",
            {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": s["target_l0"]},
        )
    name, settings = own[architecture]
    common = {"d_in": s["d_model"], "d_sae": s["d_sae"], "dtype": "float32", "device": "cpu"}
    config = getattr(library, f"{name}TrainingSAEConfig")(**common, **settings)
    sae = getattr(library, f"{name}TrainingSAE")(config)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=s["steps"] * s["batch"],
            train_batch_size_samples=s["batch"],
            lr=s["learning_rate"],
            lr_end=s["learning_rate"] / 10,
            lr_warm_up_steps=s["warmup"],
            lr_decay_steps=s["decay"],
            autocast=s["dtype"] == "bfloat16",
        ),
        sae,
        batches,
    )
    trainer.fit()
    return sae.encode, sae.decode


def dictionary_learning(
    architecture: str, s: dict[str, Any], batches: Batches
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Train with dictionary_learning, on activations of mean squared norm 1, as its own loop
    normalises them."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    scale = s["d_model"] ** -0.5
    own = {
        "topk": (TopKTrainer, {"k": s["k"], "threshold_start_step": 0}),
        "batchtopk": (
            BatchTopKTrainer,
            {"k": s["k"], "threshold_start_step": 0, "threshold_beta": 0.95},
        ),
        "standard": (
            StandardTrainer,
            {"l1_penalty": s["l1"] / scale, "sparsity_warmup_steps": s["warmup"]},
        ),
        "jumprelu": (
            JumpReluTrainer,
            {"target_l0": s.get("target_l0", float(s["k"])), "sparsity_warmup_steps": s["warmup"]},
        ),
    }
    kind, settings = own[architecture]
    trainer = kind(
        steps=s["steps"],
        activation_dim=s["d_model"],
        dict_size=s["d_sae"],
        layer=0,
        lm_name="none",
        lr=s["learning_rate"],
        warmup_steps=s["warmup"],
        decay_start=s["steps"] - s["decay"],
        device="cpu",
        seed=0,
        **settings,
    )
    for step in range(s["steps"]):
        x = next(batches) * scale
        with torch.autocast("cpu", torch.bfloat16) if s["dtype"] == "bfloat16" else nullcontext():
            trainer.update(step, x)
    sae = trainer.ae
    return (lambda x: sae.encode(x * scale)), (lambda z: sae.decode(z) / scale)


def sparsify(
    architecture: str, s: dict[str, Any], batches: Batches
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Train with sparsify's coder, by the steps of its trainer, which itself wants a language
    model; Adam is fused."""
    from sparsify import SparseCoder, SparseCoderConfig

    if architecture != "topk":
        raise SystemExit("sparsify has topk only")
    coder = SparseCoder(
        s["d_model"], SparseCoderConfig(num_latents=s["d_sae"], k=s["k"]), dtype=torch.float32
    )
    optimiser = torch.optim.Adam(coder.parameters(), lr=s["learning_rate"], fused=True)
    for step in range(s["steps"]):
        x = next(batches)
        if step == 0:
            coder.b_dec.data = x.mean(0)
        coder.set_decoder_norm_to_unit_norm()
        with torch.autocast("cpu", torch.bfloat16) if s["dtype"] == "bfloat16" else nullcontext():
            out = coder(x)
        out.fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        rising, falling = (step + 1) / max(1, s["warmup"]), (s["steps"] - step) / max(1, s["decay"])
        optimiser.param_groups[0]["lr"] = s["learning_rate"] * min(1.0, rising, falling)
        optimiser.step()
        optimiser.zero_grad()

    def encode(x: torch.Tensor) -> torch.Tensor:
        encoded = coder.encode(x)
        return torch.zeros(len(x), s["d_sae"]).scatter_(1, encoded.top_indices, encoded.top_acts)

    return encode, (lambda z: z @ coder.W_dec + coder.b_dec)


def main() -> None:
    """Train, measure, print."""
    library, architecture, s = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    torch.set_num_threads(s["threads"])
    torch.manual_seed(0)
    batches = Batches(s["train"], s["batch"], s["steps"])
    train = {
        "sae_lens": sae_lens,
        "dictionary_learning": dictionary_learning,
        "sparsify": sparsify,
    }[library]
    before = memory()
    encode, decode = train(architecture, s, batches)
    del batches.times[s["steps"] :]
    batches.note()
    result(batches, memory() - before, quality(s["held_out"], encode, decode))


if __name__ == "__main__":
    main()
