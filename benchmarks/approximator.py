"""Seconds and memory of fitting the effect approximator at the size of the published study.

Writes effects of a planted map in a temporary folder, streamed, and fits them with the command that
the workflow runs. Beside the time stands the floor: the multiplications that normal equations
cannot do without, at the rate that this machine reaches on one of them.

    python benchmarks/approximator.py [--vectors 16384] [--d-model 2304] [--latents 16384] [--dtype
        float32] [--method ridge] [--threads 2] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from saeflow.analyses.effects.approximation import Approximation
from saeflow.analyses.effects.io import ROW_DATASETS, load_approximation
from saeflow.analyses.effects.scale import STATUSES
from saeflow.products import linear
from saeflow.saes.io import save_sae
from saeflow.saes.sae import SAE

NOISE = 0.2  # standard deviation of the noise, as a multiple of that of the planted effects
CHUNK = 1024


def unit_rows(n: int, d_model: int, generator: torch.Generator) -> torch.Tensor:
    """Random unit vectors."""
    return torch.nn.functional.normalize(torch.randn(n, d_model, generator=generator), dim=1)


def plant(folder: Path, vectors: int, d_model: int, latents: int, dtype: str) -> torch.Tensor:
    """Write an SAE and the effects of a planted map; return the map."""
    generator = torch.Generator().manual_seed(0)
    W_dec = unit_rows(latents, d_model, generator)
    save_sae(
        folder / "sae",
        SAE("standard", W_dec.T.contiguous(), W_dec, torch.zeros(latents), torch.zeros(d_model)),
    )
    M, b = (
        torch.randn(d_model, latents, generator=generator),
        torch.randn(latents, generator=generator),
    )
    with h5py.File(folder / "effects.h5", "w") as file:
        file.create_dataset("vectors", (vectors, d_model), dtype="float32")
        file.create_dataset("effects", (vectors, latents), dtype=dtype)
        for name in ROW_DATASETS:
            file.create_dataset(
                name, data=np.ones(vectors, dtype=np.uint8 if name == "status" else np.float64)
            )
        file["status"].attrs["names"] = list(STATUSES)
        file.attrs["metadata"] = json.dumps({"hook": "blocks.12.hook_resid_post"})
        for start in range(0, vectors, CHUNK):
            x = unit_rows(min(CHUNK, vectors - start), d_model, generator)
            y = x @ M + b
            y += NOISE * torch.randn(y.shape, generator=generator)
            file["vectors"][start : start + CHUNK] = x.numpy()
            file["effects"][start : start + CHUNK] = y.to(getattr(torch, dtype)).numpy()
    return M


def fit(folder: Path, method: str, threads: int) -> tuple[float, float]:
    """Seconds and peak memory in GB of ``saeflow effects fit``."""
    command = [
        *("saeflow", "effects", "fit", "--effects", folder / "effects.h5"),
        *("--sae", folder / "sae", "--settings", json.dumps({"method": method}), "--seed", "0"),
        *("--output", folder / "approximator", "--threads", str(threads)),
    ]
    start = time.perf_counter()
    with subprocess.Popen(list(map(str, command))) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def rate(d_model: int, latents: int) -> float:
    """GFLOP/s of the product ``x.T @ y`` of one chunk, the best of five."""
    x, y = torch.randn(CHUNK, d_model), torch.randn(CHUNK, latents)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        linear(x.T, y.T)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * CHUNK * d_model * latents / min(seconds)


def recovered(planted: torch.Tensor, fitted: Approximation) -> float:
    """Smallest cosine between a planted column and the fitted one."""
    return float(torch.nn.functional.cosine_similarity(planted, fitted.M, dim=0).min())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=16_384)
    parser.add_argument("--d-model", type=int, default=2304)
    parser.add_argument("--latents", type=int, default=16_384)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--method", choices=["ridge", "adam"], default="ridge")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the temporary files lie")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        planted = plant(folder, asked.vectors, asked.d_model, asked.latents, asked.dtype)
        seconds, memory = fit(folder, asked.method, asked.threads)
        metrics = json.loads((folder / "approximator" / "metrics.json").read_text())
        cosine = recovered(planted, load_approximation(folder / "approximator"))
    speed = rate(asked.d_model, asked.latents)
    work = 2e-9 * asked.vectors * asked.d_model * (asked.d_model + asked.latents)
    print(
        f"{asked.vectors} vectors, d_model {asked.d_model}, {asked.latents} latents, "
        f"{asked.dtype}, {asked.method}"
    )
    print(f"seconds {seconds:.1f}, peak memory {memory:.2f} GiB")
    print(f"normal equations {work:,.0f} GFLOP at {speed:.0f} GFLOP/s: floor {work / speed:.1f} s")
    print(
        f"held-out R² {metrics['r2']:.4f}, shuffled {metrics['r2_shuffled']:.4f}, smallest cosine "
        f"{cosine:.4f}"
    )


if __name__ == "__main__":
    main()
