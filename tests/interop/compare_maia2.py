"""Holds boards, masks, moves and outputs to the package maia2; exit status 1 if one differs.

    compare_maia2.py FOLDER_OF_THE_VIRTUAL_ENVIRONMENT

``maia2_peer.py`` runs in that environment, this in the project's own. Weights and positions are
random; the shape is the published one, and every pair of rating bins is asked for.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chess
import torch
from safetensors.torch import load_file

from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.moves import MOVES
from saeflow.chess.player.io import import_checkpoint
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.planes import encode, legal_mask
from saeflow.chess.player.settings import ChessModel

HERE = Path(__file__).parent
TOLERANCE = 1e-5
POSITIONS, FEW, BINS = 4000, 8, 11
FASTER = 10.0


def random_positions(count: int) -> list[str]:
    """Positions of random games, of both colours."""
    draw, fens = random.Random(0), []
    while len(fens) < count:
        board = chess.Board()
        while len(fens) < count and not board.is_game_over() and board.ply() < 160:
            fens.append(board.fen())
            board.push(draw.choice(list(board.legal_moves)))
    return fens


def random_model(shape: ChessModel) -> Maia2:
    """A model with random weights that has seen data."""
    torch.manual_seed(0)
    model = Maia2(shape).eval().requires_grad_(False)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model


def main() -> None:
    python, shape = (Path(sys.argv[1]) / "bin" / "python").absolute(), ChessModel()
    fens = random_positions(POSITIONS)
    own, other = torch.cartesian_prod(torch.arange(BINS), torch.arange(BINS)).T
    config = {
        "input_channels": 18,
        "dim_cnn": shape.dim_cnn,
        "num_blocks_cnn": shape.blocks_cnn,
        "vit_length": shape.tokens,
        "dim_vit": shape.dim_vit,
        "num_blocks_vit": shape.blocks_vit,
        "elo_dim": shape.dim_elo,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        handed = {
            "fens": fens,
            "few": FEW,
            "own": own.tolist(),
            "other": other.tolist(),
            "config": config,
        }
        (folder / "positions.json").write_text(json.dumps(handed))
        weights = {
            f"module.{key}": tensor for key, tensor in random_model(shape).state_dict().items()
        }
        torch.save({"model_state_dict": weights}, folder / "weights.pt")
        done = subprocess.run(
            [python, HERE / "maia2_peer.py", folder], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"maia2_peer.py failed:\n{done.stderr[-3000:]}")
        expected = load_file(folder / "expected.safetensors")
        same_moves = json.loads((folder / "moves.json").read_text()) == MOVES
        model = import_checkpoint(folder / "weights.pt", shape)
    start = time.process_time()
    boards = read_fens(fens)
    planes, legal = encode(boards), legal_mask(boards)
    seconds = time.process_time() - start
    with torch.no_grad():
        pairs = [
            model(planes[:FEW], a.expand(FEW), b.expand(FEW))
            for a, b in zip(own, other, strict=True)
        ]
    largest = {
        head: float(
            (torch.stack([getattr(pair, head) for pair in pairs]) - expected[head]).abs().max()
        )
        for head in ("moves", "side", "value")
    }
    faster = float(expected["seconds"]) / seconds
    checks = {
        "the list of moves": same_moves,
        f"boards of {POSITIONS} positions": torch.equal(planes, expected["boards"]),
        f"legal moves of {POSITIONS} positions": torch.equal(legal, expected["legal"]),
        **{
            f"{head}, {BINS}×{BINS} rating bins: {value:.1e}": value <= TOLERANCE
            for head, value in largest.items()
        },
        f"boards and masks {faster:.0f} times faster, {1e6 * seconds / POSITIONS:.0f} µs each": (
            faster >= FASTER
        ),
    }
    for check, good in checks.items():
        print(f"{'equal  ' if good else 'DIFFERS'} {check}")
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main()
