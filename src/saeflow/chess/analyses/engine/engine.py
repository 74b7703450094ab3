"""What an engine says of positions and moves: best moves, how much a move loses, blunders.

Any program that speaks UCI will do; Stockfish is what the published code asked. It searches to a
fixed depth, or through a fixed number of positions, with one thread and an empty memory for every
position, so that what it says does not depend on what it was asked before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import chess
import chess.engine
import polars as pl

from saeflow.chess.analyses.engine.settings import Engine
from saeflow.errors import SaeflowError
from saeflow.tables import Schema

EVALUATIONS: Schema = {
    "fen": pl.String,
    "best": pl.String,
    "evaluation": pl.Float64,
    "move": pl.String,
    "evaluation_after": pl.Float64,
    "loss": pl.Float64,
    "engine": pl.String,
}
ENGINE: Schema = {"split": pl.String, "row": pl.Int64, **EVALUATIONS}
"""Where a position stands, its split and its place there, and what an engine says of it."""
MATE = 100.0
"""Pawns that a forced mate counts as; no evaluation is larger."""
_GAMES = "/usr/games"  # where Debian puts engines, which not every PATH names
_SECONDS = 600.0  # after which an engine that does not answer is given up


def program_of(settings: Engine) -> str | None:
    """Where the engine lies; None where it is not installed."""
    name = settings.command
    return shutil.which(name) or shutil.which(name, path=_GAMES)


@contextmanager
def running(settings: Engine) -> Iterator[chess.engine.SimpleEngine]:
    """An engine that is ready to be asked.

    Raises:
        SaeflowError: there is no such program, it speaks no UCI, or it dies.
    """
    name = settings.command
    try:
        with chess.engine.SimpleEngine.popen_uci(
            program_of(settings) or name, timeout=_SECONDS
        ) as engine:
            wanted = {"Threads": 1, "Hash": settings.hash}
            engine.configure(
                {name: value for name, value in wanted.items() if name in engine.options}
            )
            yield engine
    except FileNotFoundError:
        raise SaeflowError(
            f"chess: the engine '{name}' is not installed; install one (Debian: apt install "
            "stockfish) or name its path"
        ) from None
    except PermissionError:
        raise SaeflowError(
            f"chess: the engine '{name}' may not be run; name an executable file"
        ) from None
    except (chess.engine.EngineError, TimeoutError) as error:
        raise SaeflowError(
            f"chess: the engine '{name}' does not answer as UCI asks ({error}); name another"
        ) from None


def evaluate(
    fens: Sequence[str],
    moves: Sequence[str],
    settings: Engine,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Ask for the best move of every position, and what another move loses.

    Args:
        fens: positions with White to move that are not over.
        moves: one legal move of each, in UCI.
        settings: which engine, and where its search ends.
        progress: is told how many of how many positions are done.

    Returns:
        The columns of `EVALUATIONS`: evaluations in pawns as White sees them, a forced mate as
        `MATE`; ``loss`` is by how much the move lowers the evaluation, 0 for the engine's own move;
        ``engine`` is what it calls itself.
    """
    rows = []
    limit = chess.engine.Limit(depth=settings.depth, nodes=settings.nodes)
    with running(settings) as engine:
        own_name = engine.id.get("name", settings.command)
        for fen, uci in zip(fens, moves, strict=True):
            board = chess.Board(fen)
            best, before = _asked(engine, board, limit)
            after = before if uci == best else _after(engine, board, uci, limit)
            loss = max(0.0, before - after)
            rows.append((fen, best, before, uci, after, loss, own_name))
            if progress:
                progress(len(rows), len(fens))
    return pl.DataFrame(rows, schema=EVALUATIONS, orient="row")


def _asked(
    engine: chess.engine.SimpleEngine, board: chess.Board, limit: chess.engine.Limit
) -> tuple[str | None, float]:
    """The best move and the evaluation as White sees it."""
    said = engine.analyse(board, limit, game=object())  # a new game: memory is emptied
    score = said["score"].white()
    pawns = score.score(mate_score=100_000)
    line = said.get("pv")
    if score.is_mate() or pawns is None:
        return line[0].uci() if line else None, MATE if score > chess.engine.Cp(0) else -MATE
    return line[0].uci() if line else None, max(-MATE, min(MATE, pawns / 100))


def _after(
    engine: chess.engine.SimpleEngine, board: chess.Board, uci: str, limit: chess.engine.Limit
) -> float:
    board.push_uci(uci)
    try:
        if board.is_checkmate():
            return MATE
        if not any(board.legal_moves):
            return 0.0
        return _asked(engine, board, limit)[1]
    finally:
        board.pop()
