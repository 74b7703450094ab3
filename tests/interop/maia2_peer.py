"""What the package maia2 makes of boards and weights; runs in its own environment.

    maia2_peer.py FOLDER

Reads ``positions.json`` (texts of positions) and ``weights.pt``; writes ``expected.safetensors``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from maia2.inference import preprocessing
from maia2.main import MAIA2Model
from maia2.train import load_model_state_dict
from maia2.utils import create_elo_dict, get_all_possible_moves
from safetensors.torch import save_file


def main(folder: Path) -> None:
    handed = json.loads((folder / "positions.json").read_text())
    moves, bins = get_all_possible_moves(), create_elo_dict()
    index = {move: place for place, move in enumerate(moves)}
    (folder / "moves.json").write_text(json.dumps(moves))
    start = time.process_time()
    read = [preprocessing(fen, 1500, 1500, bins, index) for fen in handed["fens"]]
    seconds = time.process_time() - start
    boards, legal = (
        torch.stack([board for board, *_ in read]),
        torch.stack([mask for *_, mask in read]).bool(),
    )
    model = MAIA2Model(len(moves), bins, SimpleNamespace(**handed["config"]))
    held = torch.load(folder / "weights.pt", weights_only=True)
    load_model_state_dict(model, held["model_state_dict"])
    model.eval()
    few = boards[: handed["few"]]
    own, other = torch.tensor(handed["own"]), torch.tensor(handed["other"])
    with torch.no_grad():
        pairs = [
            model(few, own[pair].expand(len(few)), other[pair].expand(len(few)))
            for pair in range(len(own))
        ]
    heads = dict(
        zip(("moves", "side", "value"), map(torch.stack, zip(*pairs, strict=True)), strict=True)
    )
    results = {"boards": boards, "legal": legal, "seconds": torch.tensor(seconds), **heads}
    save_file(results, folder / "expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
