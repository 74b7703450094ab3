"""Positions of played games, in the view of the player to move, with who they were and what became
of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, Int8

from saeflow.chess.games.boards import Boards, with_king_and_rook, write_fens
from saeflow.chess.games.moves import mirrored_move
from saeflow.chess.games.pgn import (
    LONGEST_GAME,
    Chunk,
    GameText,
    Turn,
    read_chunks,
    read_game,
    read_headers,
)
from saeflow.chess.games.settings import Games

SCHEMA = {
    "fen": pl.String,  # the player to move is White
    "move": pl.String,  # UCI, mirrored with the board
    "rating_self": pl.Int16,
    "rating_oppo": pl.Int16,
    "bin_self": pl.Int8,
    "bin_oppo": pl.Int8,
    "result": pl.Int8,  # 1 the player wins, 0 draw, -1
    "ply": pl.Int16,  # from 0
    "black": pl.Boolean,  # the player had Black
    "game": pl.String,
    "clock": pl.Float32,  # seconds that the player has left after the move
    "evaluation": pl.Float32,  # pawns before the move, in the player's view; a forced mate is ±100
}
FIRST_BIN, LAST_BIN, BIN_WIDTH = 1100, 2000, 100
RATING_BINS = [
    f"<{FIRST_BIN}",
    *(f"{low}-{low + BIN_WIDTH - 1}" for low in range(FIRST_BIN, LAST_BIN, BIN_WIDTH)),
    f">={LAST_BIN}",
]
RESULTS = {"1-0": 1, "0-1": -1, "1/2-1/2": 0}
SPLITS = {"model": 0.8, "sae": 0.1, "eval": 0.1}


def rating_bin(ratings: Int[np.ndarray, " n"]) -> Int8[np.ndarray, " n"]:
    """Maia-2's bin of a rating: 0 below 1100, 1 to 9 by hundreds, 10 from 2000 upwards."""
    return np.clip(
        (np.asarray(ratings) - FIRST_BIN) // BIN_WIDTH + 1, 0, len(RATING_BINS) - 1
    ).astype(np.int8)


def split_of(game: str) -> str:
    """The split a game belongs to, by the hash of its name: all its positions are in one."""
    place = int.from_bytes(hashlib.blake2b(game.encode(), digest_size=8).digest(), "big") / 2.0**64
    return (
        "model"
        if place < SPLITS["model"]
        else "sae"
        if place < SPLITS["model"] + SPLITS["sae"]
        else "eval"
    )


def in_split(games: pl.Series, split: str) -> Bool[np.ndarray, " n"]:
    """Which rows of a table belong to a split, by its column ``game``."""
    names = games.unique().to_list()
    kept = [name for name in names if split_of(name) == split]
    return games.is_in(kept).to_numpy()


class Part(NamedTuple):
    """What a chunk of games gives.

    Attributes:
        positions: as `SCHEMA` has it.
        counts: games by what became of them: ``kept``, ``malformed``, or why they were left out.
        faults: the first few malformed games and what is wrong with each.
    """

    positions: pl.DataFrame
    counts: Counter[str]
    faults: list[str]


FAULTS_TOLD = 5
_LONGEST_NAME = 500  # letters of an address; the name stands in every row of a game
_HIGHEST_RATING = 9999


def chunk_positions(chunk: Chunk, settings: Games) -> Part:
    """The positions of one chunk of games."""
    counts: Counter[str] = Counter()
    ranges: Counter[tuple[int, int]] = Counter()
    faults: list[str] = []
    rows = _Rows()
    offset = chunk.offset
    for text in chunk.games:
        here, offset = offset, offset + len(text)
        headers = read_headers(text)
        reason = _unwanted(headers, settings)
        players = None if reason else _players(headers)
        if reason or not players:
            counts[reason or "without ratings"] += 1
            continue
        if settings.games_per_range and ranges[players.bins] >= settings.games_per_range:
            counts["more of one range of ratings than wanted"] += 1
            continue
        name = _name(headers, here)
        game = read_game(text) if len(text) <= LONGEST_GAME else None
        if game is None or game.fault:
            counts["malformed"] += 1
            faults.append(
                f"{name}: {game.fault if game else f'is longer than {LONGEST_GAME >> 20} MiB'}"
            )
            continue
        turns = _wanted_turns(game, settings)
        if turns is None:
            counts["without clocks"] += 1
            continue
        rows.extend(name, players, turns)
        ranges[players.bins] += bool(turns)
        counts["kept"] += 1
    if chunk.cut:
        counts["malformed"] += 1
        faults.append("the file ends too early: its last game is lost")
    return Part(rows.table(), counts, faults[:FAULTS_TOLD])


class _Players(NamedTuple):
    white: int
    black: int
    result: int  # in White's view

    @property
    def bins(self) -> tuple[int, int]:
        low, high = sorted(rating_bin(np.array([self.white, self.black])).tolist())
        return low, high


def _unwanted(headers: Mapping[str, str], settings: Games) -> str | None:
    """Why a game is left out before it is read, or None."""
    if not any(word in headers.get("Event", "") for word in settings.events):
        return "other events"
    if headers.get("Variant", "Standard") not in ("Standard", "From Position"):
        return "other kinds of chess"
    if "BOT" in (headers.get("WhiteTitle"), headers.get("BlackTitle")):
        return "played by a program"
    if headers.get("Result") not in RESULTS:
        return "without a result"
    return None


def _players(headers: Mapping[str, str]) -> _Players | None:
    try:
        white, black = int(headers["WhiteElo"]), int(headers["BlackElo"])
    except (KeyError, ValueError):
        return None
    if max(abs(white), abs(black)) > _HIGHEST_RATING:
        return None
    return _Players(white, black, RESULTS[headers["Result"]])


def _name(headers: Mapping[str, str], offset: int) -> str:
    """The game's name on its server, or its place in the file."""
    site = headers.get("Site", "")
    return (
        site.rpartition("/")[2]
        if site.startswith("http") and len(site) <= _LONGEST_NAME
        else f"@{offset}"
    )


def _wanted_turns(game: GameText, settings: Games) -> list[tuple[int, Turn, float | None]] | None:
    """The turns that are taken, each with its ply and the evaluation before it; None if clocks are
    missing."""
    if settings.clocks == "required" and any(turn.clock is None for turn in game.turns):
        return None
    before = [None, *(turn.evaluation for turn in game.turns)]
    return [
        (ply, turn, before[ply])
        for ply, turn in enumerate(game.turns[: settings.last_ply + 1])
        if ply >= settings.first_ply and (turn.clock is None or turn.clock > settings.minimum_clock)
    ]


class _Rows:
    """Columns that grow game by game and become a table at once."""

    def __init__(self) -> None:
        self._turns: list[tuple[int, Turn, float | None]] = []
        self._players: list[tuple[int, int, int]] = []
        self._games: list[str] = []

    def extend(
        self, game: str, players: _Players, turns: list[tuple[int, Turn, float | None]]
    ) -> None:
        self._turns += turns
        self._players += [players] * len(turns)
        self._games += [game] * len(turns)

    def table(self) -> pl.DataFrame:
        if not self._turns:
            return pl.DataFrame(schema=SCHEMA)
        black = np.array([turn.is_black for _, turn, _ in self._turns])
        players = np.array(self._players, np.int64)
        side = np.where(black, 1, 0)
        row = np.arange(len(side))
        rating_self, rating_oppo = players[row, side], players[row, 1 - side]
        columns = {
            "fen": write_fens(_seen([turn for _, turn, _ in self._turns])),
            "move": [
                mirrored_move(turn.move) if turn.is_black else turn.move
                for _, turn, _ in self._turns
            ],
            "rating_self": rating_self,
            "rating_oppo": rating_oppo,
            "bin_self": rating_bin(rating_self),
            "bin_oppo": rating_bin(rating_oppo),
            "result": np.where(black, -players[:, 2], players[:, 2]),
            "ply": [ply for ply, _, _ in self._turns],
            "black": black,
            "game": self._games,
            "clock": pl.Series([turn.clock for _, turn, _ in self._turns], dtype=pl.Float32),
            "evaluation": pl.Series(
                [v if v is None or not turn.is_black else -v for _, turn, v in self._turns],
                dtype=pl.Float32,
            ),
        }
        return pl.DataFrame(columns).select(
            pl.col(name).cast(kind) for name, kind in SCHEMA.items()
        )


def _seen(turns: list[Turn]) -> Boards:
    """The positions before the turns, in the view of the player to move."""
    kinds = np.array([turn.kinds for turn in turns], np.uint64)
    white, black = (np.array([turn[side] for turn in turns], np.uint64)[:, None] for side in (1, 2))
    pieces = np.concatenate([kinds & white, kinds & black], axis=1)
    rooks = np.array([turn.castling for turn in turns], np.uint64)[:, None]
    corners = np.array([1 << 7, 1 << 0, 1 << 63, 1 << 56], np.uint64)
    castling = with_king_and_rook(pieces, rooks & corners != 0)
    boards = Boards(pieces, castling, np.array([turn.en_passant for turn in turns], np.int8))
    return boards.where(np.array([turn.is_black for turn in turns]), boards.mirrored())


def pgn_positions(path: Path, settings: Games, jobs: int = 1) -> Iterator[Part]:
    """The positions of a PGN file, chunk by chunk in its order; ``jobs`` chunks are read at the
    same time.

    The text is cut between games by this process and each piece is read by another, so a packed
    file is read in parallel, too. What comes out does not depend on ``jobs``.

    Args:
        path: .pgn, or packed as .zst, .gz or .bz2.
        settings: which games and moves are taken.
        jobs: processes; with 1 this one does it all.

    Raises:
        SaeflowError: the file cannot be read.
    """
    chunks = read_chunks(path, settings.games_per_chunk)
    if jobs == 1:
        yield from (chunk_positions(chunk, settings) for chunk in chunks)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from _in_order(pool, chunks, settings, ahead=jobs + 1)


def _in_order(
    pool: ProcessPoolExecutor, chunks: Iterable[Chunk], settings: Games, ahead: int
) -> Iterator[Part]:
    """Results in the order of the chunks, with at most ``ahead`` of them under way, which bounds
    the memory."""
    waiting: list[Future[Part]] = []
    for chunk in chunks:
        waiting.append(pool.submit(chunk_positions, chunk, settings))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    yield from (future.result() for future in waiting)
