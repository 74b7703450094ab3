"""CPU seconds and memory of finding out where latents fire, by the number of latents.

A cache of random activations, a TopK SAE of random directions, and all that ``saeflow examples
find`` does with them, each size in a process of its own. The floor is the encoder's product alone,
at this machine's rate in the same process.

    python benchmarks/examples.py [--latents 4096 16384 65536] [--tokens 1000000] [--active 64]
        [--d-model 32] [--threads 1]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from saeflow.activations.io import ActivationStore, shard_path, write_manifest, write_shards
from saeflow.activations.store import ActivationRows
from saeflow.analyses.examples.io import write_examples
from saeflow.analyses.examples.settings import Examples
from saeflow.config.sections import Activations
from saeflow.corpora.io import save_blocks
from saeflow.corpora.tokens import TokenBlocks
from saeflow.models.vocabulary import Vocabulary
from saeflow.products import linear
from saeflow.saes.sae import SAE

CONTEXT, D_VOCAB, HOOK = 128, 5000, "blocks.0.hook_resid_post"
SHARD = 1 << 18


def cache(folder: Path, tokens: np.ndarray, d_model: int) -> ActivationStore:
    """Random activations of all tokens."""
    settings, paths, generator = Activations(), [], torch.Generator().manual_seed(0)
    place = np.arange(tokens.size, dtype=np.int32)
    for index, first in enumerate(range(0, tokens.size, SHARD)):
        part = slice(first, min(first + SHARD, tokens.size))
        x = torch.randn(part.stop - first, d_model, generator=generator)
        rows = ActivationRows(
            x, tokens.ravel()[part], place[part] % CONTEXT, place[part] // CONTEXT
        )
        paths.append(shard_path(folder, index, settings))
        write_shards({HOOK: paths[-1]}, [{HOOK: rows}], settings, {"hook": HOOK, "model": "random"})
    write_manifest(folder, paths)
    return ActivationStore.open(folder)


def measure(d_sae: int, n_tokens: int, active: int, d_model: int) -> str:
    """One line of the table."""
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(d_sae, d_model, generator=generator), dim=1)
    sae = SAE(
        "topk",
        directions.T.contiguous(),
        directions,
        torch.zeros(d_sae),
        torch.zeros(d_model),
        k=active,
    )
    tokens = (
        np.random.default_rng(0)
        .integers(0, D_VOCAB, (n_tokens // CONTEXT, CONTEXT))
        .astype(np.int32)
    )
    vocabulary = Vocabulary(
        np.arange(D_VOCAB), [f"t{i}" for i in range(D_VOCAB)], np.zeros(D_VOCAB, bool)
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = cache(folder / "cache", tokens, d_model)
        save_blocks(folder / "sae.safetensors", TokenBlocks(tokens, {}, {}))
        x = torch.randn(256, d_model)
        began = time.process_time()
        for _ in range(20):
            linear(x, directions, torch.zeros(d_sae))
        floor = (time.process_time() - began) / 20 * tokens.size / 256
        seen: list[float] = []

        def beat(done: int, total: int) -> None:
            seen.append(time.process_time())

        began = time.process_time()
        rows: list[float] = []
        write_examples(
            folder / "examples",
            store,
            sae,
            folder / "sae.safetensors",
            vocabulary,
            Examples(),
            0,
            lambda done, total: rows.append(time.process_time()),
            beat,
        )
        whole = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    longest = max(later - earlier for earlier, later in pairwise(seen)) if len(seen) > 1 else 0.0
    companions = (seen[-1] - seen[0]) * (1 + 1 / max(1, len(seen) - 1))
    return (
        f"{d_sae:7,} latents, {tokens.size:,} tokens: {whole:6.1f} s, of which reading the cache "
        f"{rows[-1] - began:.1f}, companions {companions:.1f} (longest silence {longest:.2f}); "
        f"product alone {floor:.1f}; {peak:.1f} GiB"
    )


def main() -> None:
    """Measure every size in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latents", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--active", type=int, default=64)
    parser.add_argument("--d-model", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if len(options.latents) > 1:
        rest = [
            f"--{name}={getattr(options, name.replace('-', '_'))}"
            for name in ("tokens", "active", "threads")
        ]
        for d_sae in options.latents:
            line = [
                sys.executable,
                __file__,
                "--latents",
                str(d_sae),
                f"--d-model={options.d_model}",
                *rest,
            ]
            subprocess.run(line, check=True)
        return
    torch.set_num_threads(options.threads)
    print(measure(options.latents[0], options.tokens, options.active, options.d_model), flush=True)


if __name__ == "__main__":
    main()
