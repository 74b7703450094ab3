"""Seconds and memory of the logit lens at the size of GPT-2 small, and beside the published
per-latent way.

Two measurements in one run. The first makes an SAE and an unembedding of the size that is asked for
and does all that ``saeflow logit_lens apply`` does between reading and writing: moments, tokens,
histograms, statistics of all latents and sets with p- and q-values, leading edges. Beside it stands
the floor: the product alone, and the sort of every row alone, at the rates of this machine in this
run.

The second takes as many latents as the published way can hold and gives both ways the same logit
weights and sets: running sums over a ``[sets, latents, tokens]`` tensor, in torch, for the unsigned
score alone (`lens_published.py`, in a process of its own).

    python benchmarks/logit_lens.py [--latents 24576] [--tokens 50257] [--d-model 768] [--sets 50]
        [--threads 2] [--published 64]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from apart import Apart
from torch import Tensor

from saeflow.analyses.logit_lens.lens_tables import LensInput, apply_lens
from saeflow.analyses.logit_lens.logit_lens import random_directions
from saeflow.analyses.logit_lens.ranks import SetIndex, ordered, standings
from saeflow.analyses.logit_lens.settings import Enrichment, Projection
from saeflow.analyses.logit_lens.token_sets import MemberSet
from saeflow.models.vocabulary import Vocabulary
from saeflow.products import linear
from saeflow.seeds import numpy_generator


def drawn_sets(count: int, tokens: int, generator: np.random.Generator) -> list[MemberSet]:
    """Sets as large as those of a GPT-2 vocabulary: most below a twentieth of it, some above a
    third."""
    sizes = np.exp(np.linspace(np.log(30), np.log(0.65 * tokens), count)).astype(int)
    places = (
        np.sort(generator.choice(tokens, size, replace=False)).astype(np.int32) for size in sizes
    )
    return [MemberSet(f"set_{i}", "user", "drawn", own) for i, own in enumerate(places)]


def ours(weights: np.ndarray, index: SetIndex, threads: int) -> np.ndarray:
    """Signed scores ``[latents, sets]``; AUC and leading edges are computed too."""
    with ThreadPoolExecutor(threads) as workers:
        return np.array(list(workers.map(lambda row: standings(ordered(row), index).ks, weights)))


def seconds_of(work, rounds: int) -> tuple[float, object]:  # type: ignore[no-untyped-def]
    """The best of some rounds, and what the last one gave."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def compare(
    latents: int, unembedding: Tensor, sets: list[MemberSet], threads: int, rounds: int
) -> None:
    """The two ways beside each other."""
    directions = random_directions(latents, unembedding.shape[1], numpy_generator(1, "few"))
    weights = linear(directions, unembedding)
    index = SetIndex.of([own.members for own in sets], len(unembedding))
    masks = torch.zeros(len(sets), len(unembedding), dtype=torch.bool)
    for mask, own in zip(masks, sets, strict=True):
        mask[torch.from_numpy(own.members).long()] = True
    with tempfile.TemporaryDirectory() as name:
        torch.save({"weights": weights, "masks": masks}, Path(name) / "tensors.pt")
        with Apart("lens_published.py", name, str(threads)) as published:
            published()  # warm
            turns = [
                (published().wall, *seconds_of(lambda: ours(weights.numpy(), index, threads), 1))
                for _ in range(rounds)
            ]
        scores = torch.load(Path(name) / "scores.pt").numpy()
    theirs, mine = min(turn[0] for turn in turns), min(turn[1] for turn in turns)
    signed = turns[-1][2]
    apart = np.abs(np.abs(np.asarray(signed)).T - scores).max()
    held = 4 * len(sets) * latents * len(unembedding) / 2**30
    print(
        (
            f"{latents} latents × {len(sets)} sets: published {theirs:.2f} s ({held:.2f} GiB of "
            "running sums), "
        ),
        end="",
    )
    print(f"here {mine:.3f} s, ratio {theirs / mine:.1f}; largest difference of scores {apart:.1e}")


def floor(latents: int, unembedding: Tensor, threads: int) -> tuple[float, float]:
    """Seconds of the product and of the sort of all rows, from some of them."""
    count = min(latents, 512)
    directions = random_directions(count, unembedding.shape[1], numpy_generator(2, "floor"))
    product, weights = seconds_of(lambda: linear(directions, unembedding), 3)
    rows = np.asarray(weights)[:128]
    with ThreadPoolExecutor(threads) as workers:
        sorting, _ = seconds_of(lambda: list(workers.map(ordered, rows)), 3)
    return product * latents / count, sorting * latents / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latents", type=int, default=24_576)
    parser.add_argument("--tokens", type=int, default=50_257)
    parser.add_argument("--d-model", type=int, default=768)
    parser.add_argument("--sets", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--published", type=int, default=64, help="latents that both ways are given"
    )
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    generator = numpy_generator(0, "benchmark")
    sets = drawn_sets(asked.sets, asked.tokens, generator)
    unembedding = torch.from_numpy(
        generator.standard_normal((asked.tokens, asked.d_model), dtype=np.float32)
    )
    compare(asked.published, unembedding, sets, asked.threads, asked.rounds)
    product, sorting = floor(asked.latents, unembedding, asked.threads)
    ids = np.arange(asked.tokens, dtype=np.int32)
    vocabulary = Vocabulary(ids, [str(i) for i in ids], np.zeros(asked.tokens, dtype=bool))
    decoder = random_directions(asked.latents, asked.d_model, generator)
    given = LensInput(decoder, unembedding, vocabulary, sets, None, None, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start, used = time.perf_counter(), time.process_time()
    apply_lens(given, Projection(), Enrichment(), 0, asked.threads)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        (
            f"{asked.latents} latents × {asked.tokens} tokens × {asked.sets} sets, d_model "
            f"{asked.d_model}: "
        ),
        end="",
    )
    print(f"{seconds:.0f} s ({used:.0f} s of processor), {asked.threads} threads, ", end="")
    print(f"peak memory {memory:.2f} GiB ({before:.2f} before)")
    rate = 2e-9 * asked.latents * asked.tokens * asked.d_model / product
    print(f"floor: product {product:.1f} s ({rate:.0f} GFLOP/s)")
    print(f"floor: sort of every row {sorting:.1f} s")


if __name__ == "__main__":
    main()
