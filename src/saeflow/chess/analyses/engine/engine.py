"""What an engine says of positions and moves: best moves, how much a move loses, blunders.

Any program that speaks UCI will do; Stockfish is what the published code asked. It searches to a
fixed depth, or through a fixed number of positions, with one thread and an empty memory for every
position, so that what it says does not depend on what it was asked before.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

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
_SECONDS = 600.0  # after which an engine that does not answer a question is given up


def program_of(settings: Engine) -> str | None:
    """Where the engine lies; None where it is not installed."""
    name = settings.command
    return shutil.which(name) or shutil.which(name, path=_GAMES)


@contextmanager
def running(settings: Engine) -> Iterator[chess.engine.SimpleEngine]:
    """An engine that is ready to be asked.

    Raises:
        SaeflowError: there is no such program, it speaks no UCI, answers late, or dies.
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
        reason = str(error) or f"no answer within {_SECONDS:g} seconds"
        raise SaeflowError(
            f"chess: the engine '{name}' does not answer as UCI asks ({reason}); name another"
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
        ``engine`` is what it calls itself. What the engine does not say is null.

    Raises:
        SaeflowError: there is no such program, it dies, answers nothing within `_SECONDS`, or with
            a move that is not legal; or it says of no position what it is worth.
    """
    rows = []
    limit = chess.engine.Limit(depth=settings.depth, nodes=settings.nodes)
    with running(settings) as engine:
        own_name = engine.id.get("name", settings.command)
        for fen, uci in zip(fens, moves, strict=True):
            board = chess.Board(fen)
            best, before = _asked(engine, board, limit)
            after = before if uci == best else _after(engine, board, uci, limit)
            loss: float | None = 0.0
            if uci != best:
                unknown = before is None or after is None
                loss = None if unknown else max(0.0, before - after)  # type: ignore[operator]
            rows.append((fen, best, before, uci, after, loss, own_name))
            if progress:
                progress(len(rows), len(fens))
    table = pl.DataFrame(rows, schema=EVALUATIONS, orient="row")
    if rows and table["evaluation"].is_null().all():
        raise SaeflowError(
            f"chess: the engine '{settings.command}' says of none of {len(rows):,} positions what "
            "it is worth (no score); name another"
        )
    return table


class Answer(NamedTuple):
    """What an engine says of a position; None is what it does not say."""

    best: str | None
    evaluation: float | None
    """In pawns as White sees it."""


def _asked(
    engine: chess.engine.SimpleEngine, board: chess.Board, limit: chess.engine.Limit
) -> Answer:
    """The best move and the evaluation.

    python-chess gives a search to a fixed depth no time limit, and leaves one waiting that ends
    with a move that is not legal; both end here.
    """
    loop = engine.protocol.loop

    async def search() -> tuple[chess.engine.BestMove, chess.engine.InfoDict]:
        broken: asyncio.Future[chess.engine.BestMove] = loop.create_future()

        def fail(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if not broken.done():
                reason = context.get("exception") or context.get("message")
                broken.set_exception(chess.engine.EngineError(str(reason)))

        loop.set_exception_handler(fail)
        # a new game: memory is emptied
        analysis = await engine.protocol.analysis(board, limit, game=object())
        ended = asyncio.ensure_future(analysis.wait())
        try:
            await asyncio.wait([ended, broken], return_when=asyncio.FIRST_COMPLETED)
            return (await ended if ended.done() else await broken), analysis.info
        finally:
            ended.cancel()

    within = asyncio.wait_for(search(), _SECONDS)
    try:
        chosen, said = asyncio.run_coroutine_threadsafe(within, loop).result()
    except TimeoutError:
        raise TimeoutError(f"no answer within {_SECONDS:g} seconds to {board.fen()}") from None
    line = said.get("pv")
    move = line[0] if line else chosen.move
    best = move.uci() if move else None
    if "score" not in said:
        return Answer(best, None)
    score = said["score"].white()
    pawns = score.score()
    if pawns is None:
        return Answer(best, MATE if score > chess.engine.Cp(0) else -MATE)
    return Answer(best, max(-MATE, min(MATE, pawns / 100)))


def _after(
    engine: chess.engine.SimpleEngine, board: chess.Board, uci: str, limit: chess.engine.Limit
) -> float | None:
    board.push_uci(uci)
    try:
        if board.is_checkmate():
            return MATE
        if not any(board.legal_moves):
            return 0.0
        return _asked(engine, board, limit).evaluation
    finally:
        board.pop()
