"""One game in Portable Game Notation: its tags, its moves, and what is said of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import chess

from saeflow.chess.games.files import tags_end

_CLOCK = re.compile(r"\[%clk\s+(\d{1,9}):(\d{1,9}):(\d{1,9}(?:\.\d*)?)\]")
_EVALUATION = re.compile(r"\[%eval\s+(?:#([+-]?\d+)|([+-]?(?:\d+\.?\d*|\.\d+)))")
# A tag ends with its line, or where another begins; quotes inside its value stand as they are.
_TAG = re.compile(
    r'\[[ \t]*([A-Za-z0-9][\w+#=:-]*)[ \t]*"([^\n]*?)"[ \t]*\](?=[ \t]*(?:\[|%|$))', re.MULTILINE
)
_TOKEN = re.compile(
    r"""
      \{(?P<comment>[^}]*)(?:\}|\Z)
    | (?P<rest>;[^\n]* | ^%[^\n]*)
    | (?P<result>1-0|0-1|1/2(?:-1/2)?|½-½|\*)(?![\w/-])
    | (?P<null>--|Z0|0000|@@@@|[Nn]ull)(?!\w)
    | P?(?P<san>[NBRQK]?[a-h]?[1-8]?[-x]?[a-h][1-8](?:=?[nbrqkNBRQK])?|[O0]-[O0](?:-[O0])?)
      (?:(?![\w-])|(?=e\.?p))
    | (?P<open>\() | (?P<close>\))
    | (?P<said>\$\d+ | \d+\.+ | (?:\d+ | N | TN | e\.?p\.?)(?=[\s)]|$))
    | (?P<unknown>\w\S* | \[\S*)
    """,
    re.VERBOSE | re.MULTILINE,
)
MATE = 100.0  # pawns that a forced mate is worth; no evaluation is larger
_KINGLESS = (
    chess.STATUS_NO_WHITE_KING
    | chess.STATUS_NO_BLACK_KING
    | chess.STATUS_TOO_MANY_KINGS
    | chess.STATUS_PAWNS_ON_BACKRANK
    | chess.STATUS_OPPOSITE_CHECK
)


class GameText(NamedTuple):
    """One game that could be read.

    Attributes:
        turns: one per half move.
        result: the token that ends the moves, or None where they have no end.
        chess960: whether rooks castle from elsewhere than the corners, or kings from elsewhere than
            the e-file.
        fault: what is wrong with it, or None.
    """

    turns: list[Turn]
    result: str | None
    chess960: bool
    fault: str | None


class Turn(NamedTuple):
    """A half move and the position before it, as python-chess holds it: bitboards, not mirrored.

    Attributes:
        kinds: bitboards of pawns, knights, bishops, rooks, queens, kings of both colours.
        white, black: squares with White's and Black's pieces.
        castling: rooks that may still castle.
        en_passant: the square behind a pawn that can really be taken in passing, or -1.
        is_black: who moves.
        move: in UCI.
        clock: seconds that the player has left after the move, or None.
        evaluation: in pawns for White after the move, ±`MATE` where a mate is forced, or None.
    """

    kinds: tuple[int, int, int, int, int, int]
    white: int
    black: int
    castling: int
    en_passant: int
    is_black: bool
    move: str
    clock: float | None
    evaluation: float | None


def read_headers(text: bytes) -> dict[str, str]:
    """The tags of a game, without reading its moves; of a tag that is given twice, the last."""
    return dict(_TAG.findall(text[: tags_end(text)].decode("utf-8", "replace")))


def read_game(text: bytes, headers: Mapping[str, str]) -> GameText:
    """Read the moves of a game's main line; whatever is wrong with it is said, never raised.

    Args:
        text: the whole game.
        headers: its tags.
    """
    try:
        board = chess.Board(headers.get("FEN", chess.STARTING_FEN))
    except (ValueError, IndexError, KeyError, AssertionError) as error:
        return GameText([], None, False, f"begins with no position ({error})")
    if board.has_chess960_castling_rights():
        return GameText([], None, True, None)
    if "FEN" in headers and board.status() & _KINGLESS:
        return GameText([], None, False, "begins with a position that no game can reach")
    turns: list[Turn] = []
    ending: str | None = None
    depth, own = 0, False  # of variations; whether what is said is said of the last move
    for token in _TOKEN.finditer(text[tags_end(text) :].decode("utf-8", "replace")):
        kind = token.lastgroup
        if kind == "open":
            depth, own = depth + 1, False
        elif kind == "close":
            depth = max(0, depth - 1)
        elif depth or kind in ("said", "rest"):
            continue
        elif kind == "comment":
            if own:
                turns[-1] = _with_comment(turns[-1], token["comment"])
        elif kind == "result":
            if ending not in (None, token[0]):
                return GameText(turns, ending, False, "has two results")
            ending = token[0]
        elif kind != "san":
            what = "holds a null move" if kind == "null" else f"what is '{token[0][:20]}'?"
            return GameText(turns, ending, False, what)
        elif ending:
            return GameText(turns, ending, False, "goes on after its result")
        else:
            try:
                move = board.parse_san(token["san"])
            except (ValueError, AssertionError) as error:
                return GameText(turns, None, False, str(error))
            turns.append(_turn(board, move))
            board.push(move)
            own = True
    return GameText(turns, ending, False, None if ending else "ends without a result")


def _turn(board: chess.Board, move: chess.Move) -> Turn:
    passing = (
        board.ep_square if board.ep_square is not None and board.has_legal_en_passant() else -1
    )
    kinds = (board.pawns, board.knights, board.bishops, board.rooks, board.queens, board.kings)
    white, black = board.occupied_co[chess.WHITE], board.occupied_co[chess.BLACK]
    castling, is_black = board.castling_rights, not board.turn
    return Turn(kinds, white, black, castling, passing, is_black, move.uci(), None, None)


def _with_comment(turn: Turn, comment: str) -> Turn:
    """A turn with what a comment after it says, where no comment before it said it."""
    clock, evaluation = turn.clock, turn.evaluation
    if clock is None and (match := _CLOCK.search(comment)):
        clock = int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    if evaluation is None and (match := _EVALUATION.search(comment)):
        mate, pawns = match.groups()
        if mate:
            evaluation = -MATE if mate.startswith("-") else MATE
        else:
            evaluation = max(-MATE, min(MATE, float(pawns)))
    return turn._replace(clock=clock, evaluation=evaluation)
