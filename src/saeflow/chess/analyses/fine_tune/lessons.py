"""What the player learns from blunders, and what is held out.

What is learned is the engine's best move, or that of the strongest rating as in the published
fine-tuning, told the rating of the player whose turn it was.

Source: the fine-tuning of CSSLab's maia2-sae.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Int64

from saeflow.chess.games.boards import write_fens
from saeflow.chess.games.examples import Examples, join_examples
from saeflow.chess.games.moves import move_indices
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.metrics import CHANGE_SCHEMA, POSITIONS_AT_ONCE
from saeflow.chess.player.planes import encode, legal_mask, mask_illegal
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

FINE_TUNING: Schema = {"set": pl.String, **CHANGE_SCHEMA}
"""Accuracy and loss before and after, on the `Lessons` that were held out and on ordinary
positions."""


class Lessons(NamedTuple):
    """The positions of the blunder set with their best moves, divided by games.

    Attributes:
        learned: to learn from.
        held_out: to measure on.
        games: numbers of the games that are learned from, by split.
    """

    learned: Examples
    held_out: Examples
    games: dict[str, Int64[np.ndarray, " games"]]


def lessons(
    blunders: pl.DataFrame, splits: Mapping[str, Examples], held_out: float, seed: int
) -> Lessons:
    """Divide the blunder set into positions to learn from and to measure on; no game and no
    position is in both.

    Args:
        blunders: the columns of `BLUNDERS`.
        splits: all positions of each split that it names.
        held_out: share of the games to measure on.
        seed: of the study.

    Raises:
        SaeflowError: the blunders are of other positions, or of fewer than two games.
    """
    once = blunders.unique(["split", "row"], keep="first", maintain_order=True).sort("split", "row")
    named = once.partition_by("split", as_dict=True)
    parts = {str(split): _labelled(table, splits[str(split)]) for (split,), table in named.items()}
    games = _chosen_games(parts, held_out, seed)
    ours = {split: np.isin(part.games, games[split]) for split, part in parts.items()}
    learned = _joined({split: part.part(ours[split]) for split, part in parts.items()})
    apart = _joined({split: part.part(~ours[split]) for split, part in parts.items()})
    learned_fens = set(write_fens(learned.boards))  # openings recur in many games
    apart = apart.part(
        np.array([fen not in learned_fens for fen in write_fens(apart.boards)], bool)
    )
    if not len(apart.games):
        raise SaeflowError(
            "chess: every blunder that was held out stands among those to learn from, too; raise "
            "engine.positions"
        )
    return Lessons(learned, apart, games)


def _chosen_games(
    parts: Mapping[str, Examples], held_out: float, seed: int
) -> dict[str, Int64[np.ndarray, " games"]]:
    """The games to learn from, by split."""
    games = [(split, int(game)) for split, part in parts.items() for game in np.unique(part.games)]
    if len(games) < 2:
        raise SaeflowError(
            f"chess: blunders were found in {len(games)} games, and fine-tuning takes two at "
            "least, one to measure on; raise engine.positions or transitions.positions, or lower "
            "blunders.least"
        )
    order = numpy_generator(seed, "chess", "fine-tuning").permutation(len(games))
    count = min(max(round(held_out * len(games)), 1), len(games) - 1)
    chosen = sorted(games[place] for place in order[count:])
    return {
        split: np.array([game for name, game in chosen if name == split], np.int64)
        for split in parts
    }


def _joined(parts: Mapping[str, Examples]) -> Examples:
    """The positions of all splits; games of two splits are two games."""
    places = enumerate(parts.values())
    return join_examples(
        [part._replace(games=part.games * len(parts) + place) for place, part in places]
    )


@torch.no_grad()
def strongest_moves(model: Maia2, examples: Examples) -> Examples:
    """The positions, with the legal move in place of the one that was played that the player
    chooses when told that both are of the strongest rating."""
    chosen = []
    for start in range(0, len(examples.moves), POSITIONS_AT_ONCE):
        boards = examples.boards.part(slice(start, start + POSITIONS_AT_ONCE))
        strongest = torch.full((len(boards),), len(RATING_BINS) - 1, device=model.device)
        raw = model(encode(boards).to(model.device), strongest, strongest).moves
        chosen.append(mask_illegal(raw, legal_mask(boards)).argmax(dim=1).cpu().numpy())
    return examples._replace(moves=np.concatenate(chosen).astype(np.int16))


def without(examples: Examples, games: Int64[np.ndarray, " games"]) -> Examples:
    """The positions of all other games."""
    return examples.part(~np.isin(examples.games, games))


def _labelled(table: pl.DataFrame, split: Examples) -> Examples:
    """The positions of one split's blunders, the engine's best move in place of the one that was
    played."""
    rows = table["row"].to_numpy()
    part = split.part(rows) if rows.max() < len(split.games) else None
    if part is None or write_fens(part.boards) != table["fen"].to_list():
        raise SaeflowError(
            "chess: the blunders are of other positions than these; delete blunders.parquet and it "
            "is made again"
        )
    return part._replace(moves=move_indices(table["best"].to_list()).astype(np.int16))
