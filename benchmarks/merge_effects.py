"""Seconds and memory of merging blocks of effects, beside a plain copy of the same bytes.

Writes blocks of random effects in a temporary folder, merges them with the command that the
workflow runs, and copies the blocks one after the other into one file. The disk must hold the
blocks twice.

    python benchmarks/merge_effects.py [--vectors 50000] [--latents 65536] [--d-model 2304]
        [--block-size 128] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from saeflow.analyses.effects.io import write_block
from saeflow.analyses.effects.measure import EffectBlock


def write_blocks(
    folder: Path, vectors: int, latents: int, d_model: int, size: int
) -> Iterator[Path]:
    """Blocks that all hold the same random numbers under their own ids; nine effects in ten are
    zero."""
    generator = torch.Generator().manual_seed(0)
    effects = torch.randn(size, latents, generator=generator) * (
        torch.rand(size, latents, generator=generator) < 0.1
    )
    directions = torch.randn(size, d_model, generator=generator)
    for number, start in enumerate(range(0, vectors, size)):
        n = min(size, vectors - start)
        columns = (
            np.full(n, 1.5),
            np.zeros(n, np.uint8),
            np.arange(start, start + n),
            np.full(n, 3.0),
            np.full(n, 24),
        )
        path = folder / f"block-{number:04d}.safetensors"
        write_block(
            path,
            EffectBlock(directions[:n], effects[:n], effects[:n].abs().half(), *columns),
            number,
            {"hook": "blocks.12"},
        )
        yield path


def settle() -> None:
    """Let the disk finish what was written before, so that one measurement does not pay for
    another."""
    os.sync()


def merge(blocks: list[Path], target: Path, dtype: str) -> tuple[float, float]:
    """Seconds, the disk's included, and peak memory in GiB of ``saeflow effects merge``."""
    settle()
    start = time.perf_counter()
    command = ["saeflow", "effects", "merge", *blocks, "--dtype", dtype, "--output", target]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"saeflow effects merge ended with {process.returncode}")
    settle()
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def copy(blocks: list[Path], target: Path) -> float:
    """Seconds, the disk's included, to copy the blocks into one file."""
    settle()
    start = time.perf_counter()
    with target.open("wb") as file:
        for block in blocks:
            with block.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 22)
    settle()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--d-model", type=int, default=2304)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--folder", type=Path, help="where the temporary files lie")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        blocks = list(
            write_blocks(folder, asked.vectors, asked.latents, asked.d_model, asked.block_size)
        )
        size = sum(block.stat().st_size for block in blocks) / 1e6
        print(
            f"{asked.vectors} vectors, {asked.latents} latents, {len(blocks)} blocks, "
            f"{size / 1e3:.1f} GB"
        )
        seconds = copy(blocks, folder / "copy")
        print(f"plain copy {seconds:.1f} s, {size / seconds:.0f} MB/s")
        (folder / "copy").unlink()
        for dtype in ("float32", "float16"):
            target = folder / "effects.h5"
            seconds, memory = merge(blocks, target, dtype)
            written = target.stat().st_size / 1e9
            print(
                f"{dtype} {seconds:.1f} s, {size / seconds:.0f} MB/s read, {written:.1f} GB, peak "
                f"{memory:.2f} GiB"
            )
            target.unlink()


if __name__ == "__main__":
    main()
