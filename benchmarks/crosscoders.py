"""Training of crosscoders of two sources: tokens per second beside the published loops, in turns,
on the same batches; and the peak memory of the causal table by the length of its text.

    python benchmarks/crosscoders.py speed [--d-model 576] [--latents 8192] [--k 32]
        [--batch 2048] [--steps 12] [--rounds 3] [--threads 2]
    python benchmarks/crosscoders.py memory [--blocks 16 64 256]

Seconds of processors tell what is needed on a machine that does nothing else; those of the clock
what was waited for on this one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from apart import Apart, Cost, medians
from numpy.lib.format import open_memmap
from sae_peers import Batches
from torch.nn.functional import normalize

ACTIVE = 24
"""Planted features of a row; three quarters are of both sources."""
DISTINCT_BATCHES = 8
"""Written to disk; training goes round."""


class Known:
    """The statistics of data that were made centred and scaled."""

    def __init__(self, width: int) -> None:
        self.mean, self.variance = torch.zeros(width, dtype=torch.float64), float(width)


def plant(path: Path, rows: int, d_model: int, features: int) -> None:
    """Write pairs of rows: sums of planted directions, of which a quarter are of one source."""
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(features, 2, d_model, generator=generator), dim=-1)
    directions[: features // 8, 0] = 0
    directions[features // 8 : features // 4, 1] = 0
    out = open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, 2, d_model))
    for first in range(0, rows, 1024):
        n = min(1024, rows - first)
        z = torch.zeros(n, features)
        on = torch.randint(features, (n, ACTIVE), generator=generator)
        z.scatter_(1, on, 0.5 + torch.rand(n, ACTIVE, generator=generator))
        x = torch.einsum("rf,fsd->rsd", z, directions)
        x += 0.02 * torch.randn(x.shape, generator=generator)
        x -= x.mean(0)
        out[first : first + n] = (
            x * (d_model / x.square().sum(-1).mean(0))[:, None].sqrt()
        ).numpy()
    out.flush()


def own(architecture: str, s: dict[str, Any]) -> Cost:
    """Train anew with saeflow; what a settled step took."""
    from saeflow.config.sections import SAETraining
    from saeflow.saes.feeds import crosscoder_feed
    from saeflow.saes.training import train_saes

    class Reader(Batches):
        identity = None

        def state(self) -> dict[str, int]:
            return {}

        def seek(self, state: dict[str, int]) -> None:
            raise NotImplementedError

    torch.set_num_threads(s["threads"])
    settings = SAETraining(
        architecture=architecture,
        d_sae=s["d_sae"],
        k=s["k"],
        sparsity_coefficient=s["l1"] if architecture == "standard" else None,
        batch_size=s["batch"],
        tokens=s["batch"] * s["steps"],
        learning_rate=s["learning_rate"],
    )
    batches = Reader(s["train"], s["batch"], s["steps"])
    widths = Known(s["d_model"])
    train_saes(crosscoder_feed(batches, [widths, widths], {}), [settings], seed=0)
    batches.note()
    return batches.settled()


def speed(options: argparse.Namespace) -> None:
    """Both in turns, and the ratio of every pair."""
    with tempfile.TemporaryDirectory() as folder:
        train = Path(folder) / "train.npy"
        plant(train, DISTINCT_BATCHES * options.batch, options.d_model, 4 * options.d_model)
        s = {
            "train": str(train),
            "d_model": options.d_model,
            "sources": 2,
            "d_sae": options.latents,
            "k": options.k,
            "l1": options.l1,
            "batch": options.batch,
            "steps": options.steps,
            "learning_rate": 1e-3,
            "threads": options.threads,
        }
        print(
            f"{options.d_model} × 2 → {options.latents}, batches of {options.batch}, {s['threads']} threads"
        )
        print(
            "architecture, tokens/s here and published (of each round), of the clock and of CPU seconds"
        )
        with Apart("crosscoders_published.py", json.dumps(s)) as published:
            for architecture in ("batchtopk", "standard"):
                here, there = [], []
                for _ in range(options.rounds):
                    here.append(own(architecture, s))
                    there.append(published(architecture=architecture))
                for kind in ("wall", "cpu"):
                    rates = [
                        [round(options.batch / getattr(cost, kind)) for cost in costs]
                        for costs in (here, there)
                    ]
                    ratio = getattr(medians(there), kind) / getattr(medians(here), kind)
                    print(f"{architecture:<10} {kind:<5} {rates[0]} {rates[1]}  {ratio:.2f} ×")


def causes(blocks: int) -> None:
    """Measure causes on so many blocks of stories, and say the peak memory it took."""
    from saeflow.analyses.diffing.causal import Difference, measure_causes
    from saeflow.analyses.diffing.scaling import Sides
    from saeflow.analyses.diffing.settings import Classes
    from saeflow.analyses.diffing.texts import Text
    from saeflow.config.embedded import EMBEDDED
    from saeflow.corpora.tales import story_blocks
    from saeflow.models.language_model import load_model
    from saeflow.saes.comparison import Seen
    from saeflow.saes.crosscoder import Crosscoder

    torch.set_num_threads(1)
    base, tuned = load_model(EMBEDDED), load_model(EMBEDDED)
    for weight in tuned.model.parameters():
        weight += 0.1 * weight.std() * torch.randn(weight.shape)
    hook = "blocks.1.hook_resid_post"
    crosscoder = Crosscoder(
        torch.randn(2, 64, 1024) / 8,
        torch.randn(1024, 2, 64) / 8,
        torch.full((1024,), -2.0),
        torch.zeros(2, 64),
        torch.ones(2),
    )
    tried = [Difference("none"), Difference("latents"), Difference("error")]
    tried += [Difference("single", None, [latent]) for latent in range(29)]
    tokens = story_blocks(0, "eval", blocks, 64).tokens.astype(np.int64)
    text = Text([Seen("base", base, hook), Seen("tuned", tuned, hook)], tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measure_causes(crosscoder, Sides([0], [1]), text, tried, Classes(draws=100), 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{blocks * 64:>8} tokens  {(peak - before) / 1024:8.0f} MB more at the peak", flush=True)


def memory(options: argparse.Namespace) -> None:
    """Each length in a process of its own."""
    for blocks in options.blocks:
        process = multiprocessing.get_context("spawn").Process(target=causes, args=(blocks,))
        process.start()
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    rate = commands.add_parser("speed")
    for name, default in (
        *(("d-model", 576), ("latents", 8192), ("k", 32), ("batch", 2048)),
        *(("steps", 12), ("rounds", 3), ("threads", 2)),
    ):
        rate.add_argument(f"--{name}", type=int, default=default)
    rate.add_argument("--l1", type=float, default=0.004)
    rate.set_defaults(run=speed)
    length = commands.add_parser("memory")
    length.add_argument("--blocks", type=int, nargs="+", default=[16, 64, 256])
    length.set_defaults(run=memory)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
