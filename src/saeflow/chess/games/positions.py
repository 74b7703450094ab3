"""Positions of played games, in the view of the player to move, with who they were and what became
of it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int, Int8

from saeflow.chess.games.boards import Boards, with_king_and_rook, write_fens
from saeflow.chess.games.files import LONGEST_GAME, Chunk, read_chunks
from saeflow.chess.games.moves import MOVE_INDEX, are_legal, mirrored_move
from saeflow.chess.games.pgn import GameText, Turn, read_game, read_headers
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
    "split": pl.String,  # model, sae or eval; all positions of a game are in one
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


def split_of(game: str, tested_elsewhere: bool = False) -> str:
    """The split a game belongs to, by the hash of its name: all its positions are in one.

    Args:
        game: its name.
        tested_elsewhere: whether games of other files are the split ``eval``; then these are
            divided between the other two, in their proportion.
    """
    place = int.from_bytes(hashlib.blake2b(game.encode(), digest_size=8).digest(), "big") / 2.0**64
    if tested_elsewhere:
        place *= 1 - SPLITS["eval"]
    if place < SPLITS["model"]:
        return "model"
    return "sae" if place < SPLITS["model"] + SPLITS["sae"] else "eval"


_WHOLE, _TRAINING, _TEST = "all", "model and sae", "eval"  # splits that games of a file are for


class Part(NamedTuple):
    """What a chunk of games gives.

    Attributes:
        positions: as `SCHEMA` has it.
        counts: games by what became of them: ``kept``, ``malformed``, or why they were left out.
        faults: the first few malformed games and what is wrong with each.
        use: which splits games of its file are for.
    """

    positions: pl.DataFrame
    counts: Counter[str]
    faults: list[str]
    use: str = _WHOLE


FAULTS_TOLD = 5
_HIGHEST_RATING = 9999
_GAME_ON_LICHESS = re.compile(
    r"https?://lichess\.org/([A-Za-z0-9]{8})(?:[A-Za-z0-9]{4})?(?:/(?:white|black))?(?:#\d+)?"
)
_PAGES_OF_LICHESS = {"analysis", "training", "practice", "streamer", "timeline", "features"}


class _File(NamedTuple):
    path: Path
    use: str
    said_of: str
    """What its faults are said to be of, where there are several files."""


def chunk_positions(chunk: Chunk, settings: Games, file: _File) -> Part:
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
        game = read_game(text, headers) if len(text) <= LONGEST_GAME else None
        if game is None or game.fault:
            counts["malformed"] += 1
            what = game.fault if game else f"is longer than {LONGEST_GAME >> 20} MiB"
            faults.append(f"{file.said_of}{_on_server(headers) or f'@{here}'}: {what}")
            continue
        if game.chess960:
            counts["other kinds of chess"] += 1
            continue
        turns = _wanted_turns(game, settings)
        if turns is None:
            counts["without clocks"] += 1
            continue
        rows.extend(_name(headers, game), players, turns)
        ranges[players.bins] += bool(turns)
        counts["kept"] += 1
    table, illegal = rows.table(file.use)
    for name, move in illegal.items():
        counts["kept"] -= 1
        counts["malformed"] += 1
        faults.append(f"{file.said_of}{name}: {move} is not legal where it is played")
    if chunk.damage:
        counts["malformed"] += 1
        faults.insert(0, f"{file.said_of}{chunk.damage}")
    return Part(table, counts, faults[:FAULTS_TOLD], file.use)


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
    if headers.get("Variant", "Standard").lower() not in ("standard", "from position", "chess"):
        return "other kinds of chess"
    if "BOT" in (headers.get("WhiteTitle"), headers.get("BlackTitle")):
        return "played by a program"
    if headers.get("Result") not in RESULTS:
        return "without a result"
    return None


def _players(headers: Mapping[str, str]) -> _Players | None:
    """Who played; None where a rating is unknown, which some write as 0."""
    try:
        white, black = int(headers["WhiteElo"]), int(headers["BlackElo"])
    except (KeyError, ValueError):
        return None
    if not (0 < white <= _HIGHEST_RATING and 0 < black <= _HIGHEST_RATING):
        return None
    return _Players(white, black, RESULTS[headers["Result"]])


def _on_server(headers: Mapping[str, str]) -> str | None:
    """What Lichess calls a game; None where its site names a page that many games may share."""
    match = _GAME_ON_LICHESS.fullmatch(headers.get("Site", ""))
    return match[1] if match and match[1] not in _PAGES_OF_LICHESS else None


def _name(headers: Mapping[str, str], game: GameText) -> str:
    """The game's name on its server, or what makes it itself: its tags and moves, wherever they
    stand."""
    if name := _on_server(headers):
        return name
    own = [*map("=".join, sorted(headers.items())), *(turn.move for turn in game.turns)]
    return hashlib.blake2b("\n".join(own).encode(), digest_size=12).hexdigest()


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

    def table(self, use: str) -> tuple[pl.DataFrame, dict[str, str]]:
        """The table, and by game a move that is not legal where it is played; such games are left
        out."""
        if not self._turns:
            return pl.DataFrame(schema=SCHEMA), {}
        black = np.array([turn.is_black for _, turn, _ in self._turns])
        players = np.array(self._players, np.int64)
        side = np.where(black, 1, 0)
        row = np.arange(len(side))
        rating_self, rating_oppo = players[row, side], players[row, 1 - side]
        boards = _seen([turn for _, turn, _ in self._turns])
        moves = [
            mirrored_move(turn.move) if turn.is_black else turn.move for _, turn, _ in self._turns
        ]
        splits = {
            game: "eval" if use == _TEST else split_of(game, use == _TRAINING)
            for game in dict.fromkeys(self._games)
        }
        columns = {
            "fen": write_fens(boards),
            "move": moves,
            "rating_self": rating_self,
            "rating_oppo": rating_oppo,
            "bin_self": rating_bin(rating_self),
            "bin_oppo": rating_bin(rating_oppo),
            "result": np.where(black, -players[:, 2], players[:, 2]),
            "ply": [ply for ply, _, _ in self._turns],
            "black": black,
            "game": self._games,
            "split": [splits[game] for game in self._games],
            "clock": pl.Series([turn.clock for _, turn, _ in self._turns], dtype=pl.Float32),
            "evaluation": pl.Series(
                [v if v is None or not turn.is_black else -v for _, turn, v in self._turns],
                dtype=pl.Float32,
            ),
        }
        table = pl.DataFrame(columns).select(
            pl.col(name).cast(kind) for name, kind in SCHEMA.items()
        )
        legal = are_legal(boards, np.array([MOVE_INDEX.get(move, -1) for move in moves]))
        wrong = {self._games[row]: moves[row] for row in np.flatnonzero(~legal)[::-1]}
        return table.filter(~pl.col("game").is_in(list(wrong))) if wrong else table, wrong


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


def pgn_positions(
    path: Path | Sequence[Path], settings: Games, jobs: int = 1, test: Sequence[Path] = ()
) -> Iterator[Part]:
    """The positions of PGN files, chunk by chunk in their order; ``jobs`` chunks are read at the
    same time.

    The text is cut between games by this process and each piece is read by another, so a packed
    file is read in parallel, too. What comes out does not depend on ``jobs``.

    Args:
        path: .pgn, or packed as .zst, .gz, .bz2 or .xz; or several.
        settings: which games and moves are taken.
        jobs: processes; with 1 this one does it all.
        test: files whose games, and no others, are the split ``eval``. They come first; games that
            stand in a file of ``path``, too, are left out there.

    Raises:
        SaeflowError: a file cannot be read.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    uses = [(file, _TEST) for file in test]
    uses += [(file, _TRAINING if test else _WHOLE) for file in paths]
    files = [_File(file, use, f"{file.name}, " if len(uses) > 1 else "") for file, use in uses]
    chunks = (
        (chunk, settings, file)
        for file in files
        for chunk in read_chunks(file.path, settings.games_per_chunk)
    )
    if jobs == 1:
        yield from _without_test_games(chunk_positions(*chunk) for chunk in chunks)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from _without_test_games(_in_order(pool, chunks, ahead=jobs + 1))


def _without_test_games(parts: Iterable[Part]) -> Iterator[Part]:
    """The parts, of whose games for training those are left out that were met in a test file."""
    tested: set[str] = set()
    for part in parts:
        if part.use == _TEST:
            tested.update(part.positions["game"].unique())
        elif tested:
            again = [game for game in part.positions["game"].unique() if game in tested]
            part.counts["kept"] -= len(again)
            part.counts["in a test file, too"] += len(again)
            part = part._replace(positions=part.positions.filter(~pl.col("game").is_in(again)))
        yield part


def _in_order(
    pool: ProcessPoolExecutor, chunks: Iterable[tuple[Chunk, Games, _File]], ahead: int
) -> Iterator[Part]:
    """Results in the order of the chunks, with at most ``ahead`` of them under way, which bounds
    the memory."""
    waiting: list[Future[Part]] = []
    for chunk in chunks:
        waiting.append(pool.submit(chunk_positions, *chunk))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    yield from (future.result() for future in waiting)
