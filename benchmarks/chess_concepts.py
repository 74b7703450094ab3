"""Concepts of chess positions and their areas under the ROC curve, beside python-chess and one
latent at a time.

Positions are those of random games. Latents are random, as sparse as an SAE's. Labels are compared
with python-chess on some of the positions; areas with scipy's Mann-Whitney statistic, latent by
latent and concept by concept, on some pairs; and with the bare product of two sparse matrices,
which is their floor. Seconds are those of one thread.

    python benchmarks/chess_concepts.py [--positions 100000] [--latents 16384] [--active 64]
    [--sample 300]
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable

import chess
import numpy as np
import torch
from scipy import sparse, stats

from saeflow.chess.games.boards import START, Boards, join, read_fens, write_fens
from saeflow.chess.games.moves import legal_moves, play
from saeflow.chess.knowledge.concepts import FAMILIES, label
from saeflow.statistics.sparse_areas import SparseLabels, areas
from saeflow.statistics.sparse_latents import SparseLatents

PLIES = 60
FIRST_PLY = 10
FAMILIES_TIMED = (
    "defensive_threat",
    "offensive_threat",
    "piece",
    "strategic",
    "tactical",
    "defensive_exchange",
)
STUDIED = ("defensive_threat", "offensive_threat", "piece", "strategic", "tactical")


def random_games(positions: int) -> Boards:
    """Positions of games that go on by random legal moves, all games side by side."""
    generator = np.random.default_rng(0)
    boards = read_fens([START] * -(-positions // (PLIES - FIRST_PLY)))
    parts = []
    for ply in range(PLIES):
        legal = legal_moves(boards)
        boards, legal = boards.part(legal.any(axis=1)), legal[legal.any(axis=1)]
        if ply >= FIRST_PLY:
            parts.append(boards)
        boards = play(boards, (generator.random(legal.shape) * legal).argmax(axis=1))
    return join(parts).part(slice(0, positions))


def random_latents(n: int, d_sae: int, active: int) -> SparseLatents:
    """Latents of which some fire often and most rarely."""
    generator = torch.Generator().manual_seed(0)
    popularity = 1 / torch.arange(1, d_sae + 1).float().sqrt()

    def batch(rows: int) -> torch.Tensor:
        chosen = torch.multinomial(popularity.expand(rows, -1), active, generator=generator)
        return torch.zeros(rows, d_sae).scatter_(
            1, chosen, torch.rand(rows, active, generator=generator) + 0.1
        )

    return SparseLatents.of(batch(min(512, n - start)) for start in range(0, n, 512))


def seconds(function: Callable[[], object]) -> float:
    """CPU time of a call on the one thread there is: what else the machine does is not counted."""
    start = time.process_time()
    function()
    return time.process_time() - start


def threats_by_python_chess(boards: list[chess.Board]) -> int:
    """The 128 square-wise threats, as the published code has them."""
    return sum(
        len(board.attackers(not piece.color, square)) > len(board.attackers(piece.color, square))
        for board in boards
        for square, piece in board.piece_map().items()
    )


def mates_by_python_chess(boards: list[chess.Board]) -> None:
    """Whether the player to move can mate."""
    for board in boards:
        for move in board.legal_moves:
            board.push(move)
            board.is_checkmate()
            board.pop()


def time_labels(boards: Boards, sample: int) -> None:
    """Print microseconds per position and family."""
    sample_boards = boards.part(np.linspace(0, len(boards) - 1, max(sample, 2048)).astype(int))
    for family in FAMILIES_TIMED:
        spent = seconds(lambda family=family: label(sample_boards, [family]))
        print(
            f"labels, {family} ({len(FAMILIES[family].names)}): {1e6 * spent / len(sample_boards):.1f} µs "
            "per position"
        )
    python = [chess.Board(fen) for fen in write_fens(sample_boards.part(slice(0, sample)))]
    for name, function in (
        ("threats", threats_by_python_chess),
        ("mate threat", mates_by_python_chess),
    ):
        spent = seconds(lambda function=function: function(python))
        print(f"python-chess, {name}: {1e6 * spent / sample:.1f} µs per position")


def time_areas(latents: SparseLatents, labels: np.ndarray, sample: int) -> None:
    """Print seconds of all areas, of their floor, and of pairs one by one."""
    kept = (labels.sum(axis=0) >= 25) & ((~labels).sum(axis=0) >= 25)
    labels = labels[:, kept]
    ranked = seconds(lambda: latents.ranks)
    made: list[SparseLabels] = []
    packed = seconds(lambda: made.append(SparseLabels.of(labels)))
    held = made[0]
    operations = int((np.diff(held.kept.indptr)[latents.rows]).sum())
    spent = seconds(lambda: [None for _ in areas(latents, held)])
    ones = sparse.csr_array(
        (np.ones(len(latents.rows)), latents.rows, latents.offsets),
        shape=(latents.d_sae, latents.n),
    )
    floor = seconds(lambda: ones @ held.kept)
    print(
        f"areas: {latents.n:,} positions × {latents.d_sae:,} latents × {labels.shape[1]:,} concepts"
    )
    print(
        f"  ranks {ranked:.2f} s, labels {packed:.2f} s, product {spent:.2f} s for "
        f"{operations / 1e9:.2f} G terms"
    )
    print(f"  floor, the bare sparse product: {floor:.2f} s")
    generator = np.random.default_rng(1)
    pairs = [
        (int(generator.integers(latents.d_sae)), int(generator.integers(labels.shape[1])))
        for _ in range(sample)
    ]

    def one_by_one() -> None:
        for latent, concept in pairs:
            values = latents.column(latent)
            stats.mannwhitneyu(values[labels[:, concept]], values[~labels[:, concept]])

    each = seconds(one_by_one) / sample
    whole = each * latents.d_sae * labels.shape[1]
    print(
        f"  scipy, pair by pair: {1e3 * each:.2f} ms a pair, {whole / 3600:,.0f} hours for all "
        f"({sample} measured)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--positions", type=int, default=100_000)
    parser.add_argument("--latents", type=int, default=16_384)
    parser.add_argument("--active", type=int, default=64)
    parser.add_argument("--sample", type=int, default=300)
    wanted = parser.parse_args()
    print(
        f"{platform.machine()}, numpy {np.__version__}, chess {chess.__version__}, threads "
        f"{torch.get_num_threads()}"
    )
    torch.set_num_threads(1)
    boards = random_games(wanted.positions)
    time_labels(boards, wanted.sample)
    made: list[np.ndarray] = []
    spent = seconds(lambda: made.append(label(boards, STUDIED).values))
    labels = made[0]
    print(
        f"labels of all: {labels.shape[1]} concepts of {len(boards):,} positions in {spent:.1f} s"
    )
    latents = random_latents(len(boards), wanted.latents, wanted.active)
    time_areas(latents, labels, wanted.sample)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
