"""Games of a model of human play with itself, so that a study needs no data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Int, Int64, UInt64

from saeflow import seeds
from saeflow.chess.games.boards import START, Boards, read_fens, write_fens
from saeflow.chess.games.moves import MOVES, in_check, legal_moves, play
from saeflow.chess.games.positions import BIN_WIDTH, FIRST_BIN, RATING_BINS, SCHEMA, split_of
from saeflow.chess.games.settings import SelfPlay
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.planes import encode, mask_illegal

GAMES_AT_ONCE = 512  # fixed, since sums of a matrix product may depend on how many rows it has


def play_games(
    model: Maia2, settings: SelfPlay, seed: int, progress: Callable[[int, int], None] | None = None
) -> pl.DataFrame:
    """Let the model play against itself, each player told a rating bin of its own.

    Every move is drawn by the game's name and its ply, so a game does not depend on those that are
    played beside it. A game ends with mate, stalemate, two bare kings, or after
    ``settings.last_ply`` as a draw.

    Args:
        model: in evaluation mode.
        settings: how many games, and how moves are drawn.
        seed: the study's.
        progress: called with (games done, games in all).

    Returns:
        A table of positions as `SCHEMA` has it, game by game; the ratings are the middles of the
        bins.
    """
    tables = []
    for start in range(0, settings.games, GAMES_AT_ONCE):
        games = np.arange(start, min(start + GAMES_AT_ONCE, settings.games))
        tables.append(_play_some(model, settings, seed, games))
        if progress:
            progress(int(games[-1]) + 1, settings.games)
    return pl.concat(tables)


def _play_some(
    model: Maia2, settings: SelfPlay, seed: int, games: Int64[np.ndarray, " games"]
) -> pl.DataFrame:
    bins = np.stack(
        [
            seeds.numpy_generator(seed, "chess", "players", g).integers(0, len(RATING_BINS), 2)
            for g in games
        ]
    )
    keys = seeds.row_keys(seed, "chess moves", [(int(game),) for game in games])
    boards, alive = read_fens([START] * len(games)), np.arange(len(games))
    result = np.zeros(len(games), np.int64)  # in White's view
    plies = []
    for ply in range(settings.last_ply + 1):
        legal = legal_moves(boards)
        over = ~legal.any(axis=1) | (np.bitwise_count(boards.occupied) == 2)
        lost = over & ~legal.any(axis=1) & in_check(boards)
        result[alive[lost]] = 1 if ply % 2 else -1
        alive, boards, legal = alive[~over], boards.part(~over), legal[~over]
        if not len(alive):
            break
        bins_told = bins[alive][:, [ply % 2, 1 - ply % 2]]
        moves = _drawn(model, boards, legal, bins_told, keys[alive], ply, settings.temperature)
        plies.append(_rows(boards, moves, bins_told, games[alive], ply))
        boards = play(boards, moves)
    table = pl.concat(plies)
    names = [_name(game) for game in games]
    ended = pl.DataFrame({"game": names, "white": result, "split": [*map(split_of, names)]})
    sign = pl.when(pl.col("black")).then(-1).otherwise(1)
    table = table.join(ended, on="game", how="left").with_columns(result=pl.col("white") * sign)
    return table.sort("game", "ply").select(
        pl.col(name).cast(kind) for name, kind in SCHEMA.items()
    )


@torch.no_grad()
def _drawn(
    model: Maia2,
    boards: Boards,
    legal: Bool[np.ndarray, "n 1880"],
    bins_told: Int64[np.ndarray, "n 2"],
    keys: UInt64[np.ndarray, " n"],
    ply: int,
    temperature: float,
) -> Int[np.ndarray, " n"]:
    """One legal move per board, by inversion of the cumulative probabilities."""
    own, other = torch.from_numpy(bins_told).T.to(model.device)
    raw = model(encode(boards).to(model.device), own, other).moves.cpu()
    logits = mask_illegal(raw, torch.from_numpy(legal)).double()
    cumulative = (logits / temperature).softmax(dim=1).cumsum(dim=1)
    point = torch.from_numpy(seeds.uniforms(keys, 1, first=ply)) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point, right=True)[:, 0].numpy()


def _rows(
    boards: Boards,
    moves: Int[np.ndarray, " n"],
    bins_told: Int64[np.ndarray, "n 2"],
    games: Int64[np.ndarray, " n"],
    ply: int,
) -> pl.DataFrame:
    middle = FIRST_BIN - BIN_WIDTH // 2 + BIN_WIDTH * bins_told
    columns = {
        "fen": write_fens(boards),
        "move": [MOVES[move] for move in moves],
        "rating_self": middle[:, 0],
        "rating_oppo": middle[:, 1],
        "bin_self": bins_told[:, 0],
        "bin_oppo": bins_told[:, 1],
        "ply": np.full(len(moves), ply),
        "black": np.full(len(moves), bool(ply % 2)),
        "game": [_name(game) for game in games],
        "clock": pl.Series([None] * len(moves), dtype=pl.Float32),
        "evaluation": pl.Series([None] * len(moves), dtype=pl.Float32),
    }
    return pl.DataFrame(columns)


def _name(game: int) -> str:
    return f"self-play-{game:06d}"
