"""The activation cache beside a bare forward pass and SAELens' cache runner, each in a process of
its own, and a file copy, in one run.

    python benchmarks/activations.py [--tokens 65536] [--threads 2] [--rounds 3] [--peer PYTHON]

``--peer`` names the Python of a virtual environment with sae-lens (``make interop`` makes one);
without it that row is left out. Files go to a temporary folder and come from the system's page
cache, as those of a copy do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from apart import Apart, Cost, cost, environment, medians
from transformers import GPT2Config, GPT2LMHeadModel

from saeflow.activations.capture import TOKENS_PER_PASS, capture_rows
from saeflow.activations.io import ActivationStore, shard_path, write_manifest, write_shards
from saeflow.activations.reader import ShuffledReader
from saeflow.activations.sources import TextSource
from saeflow.activations.store import ActivationRows
from saeflow.config import Activations
from saeflow.corpora.tales import tokenizer
from saeflow.models.language_model import LanguageModel, load_model

SHAPE = {"n_layer": 6, "n_embd": 512, "n_head": 8, "vocab_size": 5000, "n_positions": 128}
SMALL = {"n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 5000, "n_positions": 128}
BATCH, MEMORY = 4096, 256 << 20
HOOK = "blocks.2.hook_resid_post"


class Case(NamedTuple):
    """A random GPT-2-shaped model that is run up to a layer."""

    shape: dict[str, int]
    layer: int
    dtype: str

    @property
    def hook(self) -> str:
        """What is captured."""
        return f"blocks.{self.layer}.hook_resid_post"


CASES = {
    "d_model 512, layer 2 of 6, float32": Case(SHAPE, 2, "float32"),
    "d_model 512, layer 2 of 6, bfloat16": Case(SHAPE, 2, "bfloat16"),
    "d_model 512, layer 0 of 6, float32": Case(SHAPE, 0, "float32"),
    "d_model 128, layer 2 of 4, float32": Case(SMALL, 2, "float32"),
}


def make_model(folder: Path, case: Case) -> LanguageModel:
    """A random model, as a study would load it."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**case.shape, bos_token_id=0, eos_token_id=1))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return load_model(folder, dtype=case.dtype)


def make_tokens(count: int) -> np.ndarray:
    """Random blocks that open with BOS."""
    length = SHAPE["n_positions"]
    tokens = np.random.default_rng(0).integers(
        2, SHAPE["vocab_size"], (count // length, length), dtype=np.int32
    )
    tokens[:, 0] = 0
    return tokens


def shard_of(
    lm: LanguageModel, hook: str, tokens: np.ndarray, path: Path, first_block: int = 0
) -> None:
    """Cache blocks as one shard."""
    settings = Activations()
    rows = capture_rows(TextSource(lm, tokens), [hook], settings, {0}, first_block)
    write_shards({hook: path}, rows, settings, {"model": "random"})


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure_capture(
    folder: Path, case: Case, tokens: np.ndarray, rounds: int, peer: str | None
) -> dict[str, dict[str, float]]:
    """Tokens per second and per CPU second of every way, as the median over rounds in which they
    take turns, and how they stand to the bare pass, round by round."""
    lm, settings = make_model(folder / "model", case), Activations()
    np.save(folder / "tokens.npy", tokens)
    threads, step = torch.get_num_threads(), TOKENS_PER_PASS // tokens.shape[1]

    def captured() -> None:
        for _ in capture_rows(TextSource(lm, tokens), [case.hook], settings, {0}):
            pass

    def to_disk(blocks: np.ndarray) -> None:
        shard_of(lm, case.hook, blocks, folder / "shard.parquet")

    arguments = (str(folder / "model"), str(case.layer), case.dtype, str(folder / "tokens.npy"))
    with Apart("activations_bare.py", *arguments, str(step), str(threads)) as bare:
        ways: dict[str, Callable[[], Cost]] = {
            "bare transformers": lambda: bare(blocks=len(tokens)),
            "saeflow, capture alone": lambda: cost(captured),
            "saeflow, to disk": lambda: cost(lambda: to_disk(tokens)),
        }
        if peer:
            ways["sae-lens, to disk"] = lambda: peer_cost(peer, folder, case)
        bare(blocks=4 * step)  # warm
        to_disk(tokens[: 4 * step])
        taken = [{name: way() for name, way in ways.items()} for _ in range(rounds)]
    return {name: summary([each[name] for each in taken], taken, tokens.size) for name in ways}


def summary(costs: list[Cost], taken: list[dict[str, Cost]], tokens: int) -> dict[str, float]:
    """Of one way: its rates, and the bare pass's costs as multiples of its own."""
    bare, middle = [each["bare transformers"] for each in taken], medians(costs)
    pairs = list(zip(bare, costs, strict=True))
    return {
        "per second": round(tokens / middle.wall),
        "per CPU second": round(tokens / middle.cpu),
        "of bare": round(statistics.median(a.wall / b.wall for a, b in pairs), 2),
        "of bare, CPU": round(statistics.median(a.cpu / b.cpu for a, b in pairs), 2),
    }


def peer_cost(peer: str, folder: Path, case: Case) -> Cost:
    """What SAELens' cache runner takes, without loading its libraries and the model."""
    out = folder / "peer"
    shutil.rmtree(out, ignore_errors=True)
    script = Path(__file__).with_name("activations_peer.py")
    arguments = [
        json.dumps(case.shape),
        str(case.layer),
        case.dtype,
        str(folder / "tokens.npy"),
        str(out),
        str(torch.get_num_threads()),
    ]
    done = subprocess.run(
        [peer, str(script), *arguments], capture_output=True, text=True, env=environment()
    )
    if done.returncode:
        sys.exit(f"the peer failed:\n{done.stderr[-2000:]}")
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def passes(count: int, width: int) -> Iterator[dict[str, ActivationRows]]:
    """Rows as capture gives them, without a model."""
    values = torch.randn(BATCH, width)
    place = np.arange(BATCH, dtype=np.int32)
    for _ in range(count // BATCH):
        yield {HOOK: ActivationRows(values, place, place, place)}


def measure_files(folder: Path, rows: int, rounds: int, settings: Activations) -> dict[str, float]:
    """Gigabytes per second of a shard written, of a shuffled epoch, and of a copy of the same
    file."""
    width = SHAPE["n_embd"]
    path = shard_path(folder / settings.format, 0, settings)
    speeds: dict[str, list[float]] = {
        "write": [],
        "copy to disk": [],
        "shuffled read": [],
        "copy": [],
    }
    for _ in range(rounds):
        path.unlink(missing_ok=True)
        speeds["write"].append(
            seconds(
                lambda: write_shards({HOOK: path}, passes(rows, width), settings, {"model": "m"})
            )
        )
        write_manifest(path.parent, [path])
        speeds["copy to disk"].append(seconds(lambda: copy(path, folder / "copy", to_disk=True)))
        speeds["copy"].append(seconds(lambda: copy(path, folder / "copy", to_disk=False)))
        speeds["shuffled read"].append(seconds(lambda: read_epoch(path.parent)))
    return {
        name: rows * width * 4 / 1e9 / statistics.median(times) for name, times in speeds.items()
    }


def copy(source: Path, target: Path, to_disk: bool) -> None:
    """Copy a file, and wait until the disk has it, which shards do too."""
    shutil.copyfile(source, target)
    if to_disk:
        with open(target, "rb") as file:
            os.fsync(file.fileno())
    target.unlink()


def read_epoch(directory: Path) -> None:
    """Read a cache once, shuffled."""
    store = ActivationStore.open(directory)
    reader = ShuffledReader(store, BATCH, seed=0, memory=MEMORY)
    for _ in range(store.rows // BATCH):
        next(reader)


def memory(shards: int) -> None:
    """Cache as many shards and read them, shuffled; print the most megabytes this process held
    meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lm, settings = make_model(folder / "model", next(iter(CASES.values()))), Activations()
        tokens = make_tokens(16_384)
        shard_of(lm, HOOK, tokens, folder / "warm.parquet")
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # loading the model took more than what follows
        paths = [shard_path(folder, number, settings) for number in range(shards)]
        for number, path in enumerate(paths):
            shard_of(lm, HOOK, tokens, path, number * len(tokens))
        write_manifest(folder, paths)
        store = ActivationStore.open(folder)
        reader = ShuffledReader(store, 1024, seed=0, memory=64 << 20)
        for _ in range(store.rows // 1024):
            next(reader)
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)


def measure_memory(threads: int) -> dict[str, int]:
    """Most megabytes of a process that caches and reads 34 MB of activations, and ten times as
    many."""
    peaks = {}
    for shards in (1, 10):
        command = [sys.executable, __file__, "--threads", str(threads), "--memory", str(shards)]
        peaks[f"{shards} shards"] = int(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout
        )
    return peaks


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=65_536, help="tokens captured")
    parser.add_argument(
        "--rows", type=int, default=262_144, help="rows of the file that is written and read"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="Python with sae-lens")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        memory(options.memory)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = make_tokens(options.tokens)
        capture = {
            name: measure_capture(folder, case, tokens, options.rounds, options.peer)
            for name, case in CASES.items()
        }
        torch.set_num_threads(
            1
        )  # as many as a job of the workflow has, beside the thread that writes or reads
        ways = {
            "parquet": Activations(),
            "parquet, compressed": Activations(compress=True),
            "hdf5": Activations(format="hdf5"),
        }
        files = {
            name: measure_files(folder, options.rows, options.rounds, settings)
            for name, settings in ways.items()
        }
    result = {
        "machine": f"{platform.machine()}, {options.threads} threads",
        "capture, tokens": capture,
        "files, GB per second": {
            name: {k: round(v, 2) for k, v in rates.items()} for name, rates in files.items()
        },
        "most memory, MB": measure_memory(options.threads),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
