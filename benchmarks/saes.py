"""Training of SAEs: tokens per second, memory and end quality beside SAELens, dictionary_learning
and sparsify.

All libraries get the same batches of planted activations (centred, mean squared norm d_model), the
same Adam and the same schedule, one after the other, each in a process of its own. The peers run in
the environment of `make interop`.

    python benchmarks/saes.py [--d-model 512] [--latents 8192] [--batch 4096] [--steps 80] [--dtype
        float32] [--architectures topk batchtopk standard jumprelu] [--peers .venv-interop]
        [--threads 2] [--rounds 1]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from apart import environment
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

HERE = Path(__file__).parent
LIBRARIES = {
    "topk": ["sae_lens", "dictionary_learning", "sparsify"],
    "batchtopk": ["sae_lens", "dictionary_learning"],
    "standard": ["sae_lens", "dictionary_learning"],
    "jumprelu": ["sae_lens", "dictionary_learning"],
    "gated": [],
    "matryoshka": [],
}
ACTIVE, NOISE = 24, 0.05  # planted features per row, and noise relative to a row's norm
DISTINCT_BATCHES = 40  # written to disk; training goes round


class Known:
    """The statistics of data that were made centred and scaled."""

    def __init__(self, width: int) -> None:
        self.mean, self.variance = torch.zeros(width, dtype=torch.float64), float(width)


def plant(
    path: Path, rows: int, d_model: int, directions: Tensor, generator: torch.Generator, active: int
) -> None:
    """Write sums of planted directions, ``active`` a row, with frequencies that fall as
    1/sqrt(rank)."""
    out = open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, d_model))
    weights = 1 / torch.arange(1, len(directions) + 1).sqrt()
    scale = None
    mean = torch.zeros(d_model)
    for first in range(0, rows, 4096):
        n = min(4096, rows - first)
        index = torch.multinomial(weights, n * active, replacement=True, generator=generator).view(
            n, active
        )
        values = 0.5 + torch.rand(n, active, generator=generator)
        x = embedding_bag(index, directions, mode="sum", per_sample_weights=values)
        x += (
            NOISE
            * x.norm(dim=1, keepdim=True)
            * torch.randn(x.shape, generator=generator)
            / d_model**0.5
        )
        if scale is None:
            mean = x.mean(0)
            scale = (d_model / (x - mean).square().sum(1).mean()).sqrt()
        out[first : first + n] = ((x - mean) * scale).numpy()
    out.flush()


def own(architecture: str, s: dict[str, Any]) -> None:
    """Train with saeflow, and print rate, memory and quality."""
    from sae_peers import Batches, memory, quality, result

    from saeflow.config.sections import SAETraining
    from saeflow.saes.feeds import sae_feed
    from saeflow.saes.training import train_saes

    class Reader(Batches):
        identity = None

        def state(self) -> dict[str, int]:
            return {}

        def seek(self, state: dict[str, int]) -> None:
            raise NotImplementedError

    torch.set_num_threads(s["threads"])
    coefficients = {"standard": s["l1"], "gated": s["l1"], "jumprelu": s["l0"]}
    target = s.get("target_l0") if architecture == "jumprelu" else None
    settings = SAETraining(
        architecture=architecture,
        d_sae=s["d_sae"],
        k=s["k"],
        sparsity_coefficient=None if target else coefficients.get(architecture),
        target_l0=target,
        batch_size=s["batch"],
        tokens=s["batch"] * s["steps"],
        learning_rate=s["learning_rate"],
        warmup_fraction=s["warmup"] / s["steps"],
        decay_fraction=s["decay"] / s["steps"],
        compute_dtype=s["dtype"],
    )
    batches = Reader(s["train"], s["batch"], s["steps"])
    before = memory()
    [(sae, _)] = train_saes(sae_feed(batches, Known(s["d_model"]), {}), [settings], seed=0)
    batches.note()
    result(batches, memory() - before, quality(s["held_out"], sae.encode, sae.decode))


def encoder_bound(s: dict[str, Any]) -> int:
    """Tokens per second of the dense encoder product alone, median of ten."""
    from saeflow.products import linear

    torch.set_num_threads(s["threads"])
    dtype = getattr(torch, s["dtype"])
    x, weight = (
        torch.randn(s["batch"], s["d_model"]).to(dtype),
        torch.randn(s["d_sae"], s["d_model"]).to(dtype),
    )
    times = []
    for _ in range(12):
        start = time.perf_counter()
        for part in torch.split(x, 256):
            linear(part, weight)
        times.append(time.perf_counter() - start)
    return round(s["batch"] / sorted(times[2:])[5])


def measure_one(
    python: str | Path, script: str, library: str, architecture: str, s: dict[str, Any]
) -> dict[str, Any]:
    """The result of one training in a process of its own."""
    command = [str(python), str(HERE / script), library, architecture, json.dumps(s)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode:
        return {
            "failed": done.stderr.strip().splitlines()[-1]
            if done.stderr.strip()
            else done.returncode
        }
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def over_rounds(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The last of several results of the same training, with the medians of their speeds, and what
    the rounds gave."""
    rounds = [result for result in results if "tokens_per_second" in result]
    if len(rounds) < 2:
        return results[-1]
    speeds = ("tokens_per_second", "tokens_per_cpu_second")
    middle = {name: round(statistics.median(each[name] for each in rounds)) for name in speeds}
    each = {f"{name}_by_round": [r[name] for r in rounds] for name in (*speeds, "megabytes")}
    return {**results[-1], **middle, **each}


def main() -> None:
    """Measure all libraries and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--latents", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=80, help="the first quarter is not timed")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--architectures", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument(
        "--peers", type=Path, help="folder of the peers' environment; without, saeflow alone"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="in which the libraries take turns; speeds are medians",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        s = {
            "d_model": options.d_model,
            "d_sae": options.latents,
            "batch": options.batch,
            "k": options.k,
            "steps": options.steps,
            "warmup": max(1, options.steps // 20),
            "decay": max(1, options.steps // 5),
            "learning_rate": 1e-3,
            "l1": 1.5e-2,
            "l0": 4e-3,
            "dtype": options.dtype,
            "threads": options.threads,
            "train": f"{folder}/train.npy",
            "held_out": f"{folder}/held_out.npy",
        }
        generator = torch.Generator().manual_seed(0)
        directions = normalize(
            torch.randn(options.latents // 2, options.d_model, generator=generator), dim=1
        )
        rows = options.batch * min(DISTINCT_BATCHES, options.steps)
        plant(Path(s["train"]), rows, options.d_model, directions, generator, ACTIVE)
        plant(Path(s["held_out"]), options.batch, options.d_model, directions, generator, ACTIVE)
        measured: dict[str, Any] = {
            "machine": f"{platform.machine()}, {options.threads} threads",
            "setting": {key: value for key, value in s.items() if key not in ("train", "held_out")},
            "encoder_bound_tokens_per_second": encoder_bound(s),
        }
        for architecture in options.architectures:
            ways = {"saeflow": (sys.executable, "saes.py")}
            for library in LIBRARIES[architecture] if options.peers else []:
                ways[library] = (options.peers / "bin/python", "sae_peers.py")
            rounds = [
                {
                    library: measure_one(*way, library, architecture, s)
                    for library, way in ways.items()
                }
                for _ in range(options.rounds)
            ]
            measured[architecture] = {
                library: over_rounds([results[library] for results in rounds]) for library in ways
            }
            print(json.dumps({architecture: measured[architecture]}), file=sys.stderr, flush=True)
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["saeflow"]:
        own(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
