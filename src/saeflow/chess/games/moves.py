"""The 1,880 moves that Maia-2 knows, which of them are legal, what else is to be said of one, and
playing it.

All of the player to move, who is White. The list holds every move of a queen and of a knight from
every square, and the promotions: no others are possible on a board that is mirrored for Black.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt64

from saeflow.chess.games.attacks import (
    BIT,
    KING,
    KNIGHT,
    WHITE_PAWN,
    attacked,
    bishop,
    queen,
    rook,
)
from saeflow.chess.games.boards import Boards, bits
from saeflow.errors import SaeflowError

SQUARES = [f"{file}{rank}" for rank in range(1, 9) for file in "abcdefgh"]
SIDE_INFORMATION = (
    6 + 6 + 1 + 64 + 64
)  # before the legal moves: piece moved, piece taken, check, from, to
_BOARDS_AT_ONCE = 512  # what is computed for them stays in the processor's cache
_PROMOTIONS = {"q": 4, "r": 3, "b": 2, "n": 1}  # places among `Boards.pieces`
_ONE = np.uint64(1)
_RANK_1, _RANK_3, _RANK_4 = (np.uint64(0xFF << 8 * rank) for rank in (0, 2, 3))
_KING_SIDE, _QUEEN_SIDE = (
    np.uint64(0x60),
    np.uint64(0x0E),
)  # what must be empty between king and rook
_E1, _G1, _C1 = 4, 6, 2
# What each piece attacks from squares among occupied ones; pawns have rules of their own.
_REACH = (None, lambda at, _: KNIGHT[at], bishop, rook, queen, lambda at, _: KING[at])


def _vocabulary() -> Iterator[str]:
    """The moves in Maia-2's order."""
    empty = np.zeros(1, np.uint64)
    for square in range(64):
        here = np.array([square])
        for targets in (bishop(here, empty) | rook(here, empty), KNIGHT[here]):
            yield from (
                SQUARES[square] + SQUARES[to] for to in reversed(np.flatnonzero(bits(targets)[0]))
            )
    for file in range(8):
        for to_file in (file, file - 1, file + 1):
            if 0 <= to_file < 8:
                yield from (
                    f"{SQUARES[48 + file]}{SQUARES[56 + to_file]}{piece}" for piece in _PROMOTIONS
                )


MOVES = list(_vocabulary())
MOVE_INDEX = {move: index for index, move in enumerate(MOVES)}
FROM = np.array([SQUARES.index(move[:2]) for move in MOVES])
TO = np.array([SQUARES.index(move[2:4]) for move in MOVES])
PROMOTION = np.array([_PROMOTIONS.get(move[4:], 0) for move in MOVES])  # 0 is none
# Where a move stands in the list by its squares; of a promotion the first, to a queen, which the
# other three follow.
_INDEX = np.full((64, 64), -1)
for _index in reversed(range(len(MOVES))):
    if not PROMOTION[_index]:
        _INDEX[FROM[_index], TO[_index]] = _index
_PROMOTING = np.full((64, 64), -1)
_PROMOTING[FROM[PROMOTION == 4], TO[PROMOTION == 4]] = np.flatnonzero(PROMOTION == 4)


def move_indices(moves: list[str]) -> Int[np.ndarray, " n"]:
    """The places of moves in `MOVES`.

    Raises:
        SaeflowError: one is not among them.
    """
    try:
        return np.array([MOVE_INDEX[move] for move in moves], np.int64)
    except KeyError as error:
        raise SaeflowError(
            f"chess: {error} is no move of the player at the bottom; mirror Black's moves"
        ) from None


def mirrored_move(move: str) -> str:
    """A move seen from the other side: the ranks are flipped."""
    return f"{move[0]}{9 - int(move[1])}{move[2]}{9 - int(move[3])}{move[4:]}"


def legal_moves(boards: Boards) -> Bool[np.ndarray, "n 1880"]:
    """Which moves are legal on each board.

    Every move that its piece can make is tried; it is legal if the king cannot be taken then. So
    pins, checks, double checks and pawns taken in passing need no rules of their own.
    """
    legal = np.zeros((len(boards), len(MOVES)), bool)
    for start in range(0, len(boards), _BOARDS_AT_ONCE):
        part = boards.part(slice(start, start + _BOARDS_AT_ONCE))
        board, origin, target = _pseudo_legal(part)
        safe = ~_king_can_be_taken(part, board, origin, target)
        board, origin, target = board[safe], origin[safe], target[safe]
        promotes = (part.pieces[board, 0] >> origin.astype(np.uint64) & _ONE).astype(bool) & (
            target >= 56
        )
        here = legal[start : start + _BOARDS_AT_ONCE]
        here[board[~promotes], _INDEX[origin[~promotes], target[~promotes]]] = True
        first = _PROMOTING[origin[promotes], target[promotes]]
        for piece in range(len(_PROMOTIONS)):
            here[board[promotes], first + piece] = True
    return legal


def are_legal(boards: Boards, moves: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether one move is legal on each board; -1, no move of the list, is not.

    As `legal_moves` has it, without trying the other moves of a board.
    """
    legal = np.zeros(len(boards), bool)
    for start in range(0, len(boards), _BOARDS_AT_ONCE):
        rows = np.arange(start, min(start + _BOARDS_AT_ONCE, len(boards)))
        rows = rows[moves[rows] >= 0]
        part, move = boards.part(rows), moves[rows]
        own, each = bits(part.white), np.arange(len(rows))
        origin, target, promotion = FROM[move], TO[move], PROMOTION[move]
        pieces = (part.pieces[:, :6] & BIT[origin][:, None]) != 0
        piece, occupied = pieces.argmax(axis=1), part.occupied
        reach = np.zeros(len(rows), np.uint64)
        for kind, attacks in enumerate(_REACH):
            here = np.flatnonzero(piece == kind)
            reach[here] = (
                _pawn_targets(part, here, origin[here])
                if attacks is None
                else attacks(origin[here], occupied[here])
            )
        castles = np.flatnonzero((piece == 5) & (origin == _E1) & (abs(target - origin) == 2))
        reach[castles] |= _castling(part.part(castles), occupied[castles])
        able = pieces.any(axis=1) & ~own[each, target] & (reach & BIT[target] != 0)
        able &= (promotion > 0) == ((piece == 0) & (target >= 56))
        able &= ~_king_can_be_taken(part, each, origin, target)
        legal[rows] = able
    return legal


Moves = tuple[
    Int[np.ndarray, " moves"], Int[np.ndarray, " moves"], Int[np.ndarray, " moves"]
]  # board, from, to


def _pseudo_legal(boards: Boards) -> Moves:
    """Every move that pieces can make, whatever becomes of the king; castling only where it is
    legal."""
    white, black = boards.white, boards.black
    occupied = white | black
    board, square, targets = [], [], []
    for piece, attacks in enumerate(_REACH):
        here, origin = bits(boards.pieces[:, piece]).nonzero()
        attack = (
            _pawn_targets(boards, here, origin)
            if attacks is None
            else attacks(origin, occupied[here])
        )
        board.append(here)
        square.append(origin)
        targets.append(attack & ~white[here])
    castling = _castling(boards, occupied)
    here = castling.nonzero()[0]
    board.append(here)
    square.append(np.full(len(here), _E1))
    targets.append(castling[here])
    of_piece, target = bits(np.concatenate(targets)).nonzero()
    return np.concatenate(board)[of_piece], np.concatenate(square)[of_piece], target


def _pawn_targets(
    boards: Boards, board: Int[np.ndarray, " m"], square: Int[np.ndarray, " m"]
) -> UInt64[np.ndarray, " m"]:
    passing = np.where(boards.en_passant >= 0, BIT[boards.en_passant], np.uint64(0))
    empty = ~boards.occupied[board]
    step = BIT[square] << np.uint64(8) & empty
    double = (step & _RANK_3) << np.uint64(8) & empty
    return step | double & _RANK_4 | WHITE_PAWN[square] & (boards.black | passing)[board]


def _castling(boards: Boards, occupied: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Where the king may castle to: neither the squares it crosses nor its own may be attacked."""
    targets = np.zeros(len(boards), np.uint64)
    for right, between, path, goal in (
        (0, _KING_SIDE, (4, 5, 6), _G1),
        (1, _QUEEN_SIDE, (4, 3, 2), _C1),
    ):
        able = np.flatnonzero(boards.castling[:, right] & (occupied & between == 0))
        part = boards.part(able)
        unsafe = np.zeros(len(able), bool)
        for square in path:
            unsafe |= attacked(part, np.full(len(able), square), by=6)
        targets[able[~unsafe]] |= BIT[goal]
    return targets


def _king_can_be_taken(
    boards: Boards,
    board: Int[np.ndarray, " m"],
    origin: Int[np.ndarray, " m"],
    target: Int[np.ndarray, " m"],
) -> Bool[np.ndarray, " m"]:
    """Whether each move leaves its own king attacked; never where there is no king."""
    kings = boards.pieces[:, 5]
    at = bits(kings).argmax(axis=1)[board]
    square = np.where(at == origin, target, at)
    after, taken = BIT[target], _taken_in_passing(boards, board, origin, target)
    occupied = (boards.occupied[board] & ~BIT[origin] | after) & ~taken
    gone = ~(after | taken)
    pawns, knights, bishops, rooks, queens, king = (
        boards.pieces[:, code][board] & gone for code in range(6, 12)
    )
    attack = WHITE_PAWN[square] & pawns | KNIGHT[square] & knights | KING[square] & king
    attack |= bishop(square, occupied) & (bishops | queens)
    attack |= rook(square, occupied) & (rooks | queens)
    return (attack != 0) & (kings[board] != 0)


def _taken_in_passing(
    boards: Boards,
    board: Int[np.ndarray, " m"],
    origin: Int[np.ndarray, " m"],
    target: Int[np.ndarray, " m"],
) -> UInt64[np.ndarray, " m"]:
    """The pawn that is taken by a move to the square behind it; else nothing."""
    by_pawn = (boards.pieces[board, 0] >> origin.astype(np.uint64) & _ONE).astype(bool)
    passing = by_pawn & (target == boards.en_passant[board])
    return np.where(passing, BIT[target - 8], np.uint64(0))


def _moved(boards: Boards, moves: Int[np.ndarray, " n"]) -> Boards:
    """The boards after one legal move each, still seen by the player who moved."""
    n, board = len(boards), np.arange(len(boards))
    origin, target, promotion = FROM[moves], TO[moves], PROMOTION[moves]
    pieces = boards.pieces.copy()
    piece = (pieces[:, :6] & BIT[origin][:, None] != 0).argmax(axis=1)
    taken = BIT[target] | _taken_in_passing(boards, board, origin, target)
    pieces[:, 6:] &= ~taken[:, None]
    pieces[board, piece] ^= BIT[origin]
    pieces[board, np.where(promotion > 0, promotion, piece)] |= BIT[target]
    castles = (piece == 5) & (np.abs(target - origin) == 2)
    king_side = castles & (target == _G1)
    pieces[king_side, 3] ^= BIT[7] | BIT[5]
    pieces[castles & ~king_side, 3] ^= BIT[0] | BIT[3]
    touched = BIT[origin] | BIT[target]
    homes = [BIT[4] | BIT[7], BIT[4] | BIT[0], BIT[60] | BIT[63], BIT[60] | BIT[56]]
    castling = boards.castling & np.stack([touched & home == 0 for home in homes], axis=1)
    double = (piece == 0) & (target - origin == 16)
    en_passant = np.where(double, origin + 8, -1).astype(np.int8).reshape(n)
    return Boards(pieces, castling, en_passant)


def play(boards: Boards, moves: Int[np.ndarray, " n"]) -> Boards:
    """Play one legal move on each board; the boards are mirrored then, so that the next player is
    White again.

    The square behind a pawn's double step is noted only where the pawn can really be taken in
    passing, as ``chess.Board.fen`` has it.
    """
    after = _moved(boards, moves).mirrored()
    noted = np.flatnonzero(after.en_passant >= 0)
    part = after.part(noted)
    board, origin, target = _pseudo_legal(part)
    passing = _taken_in_passing(part, board, origin, target) != 0
    board, origin, target = board[passing], origin[passing], target[passing]
    possible = board[~_king_can_be_taken(part, board, origin, target)]
    after.en_passant[np.setdiff1d(noted, noted[possible])] = -1
    return after


def in_check(boards: Boards) -> Bool[np.ndarray, " n"]:
    """Whether the king of the player to move is attacked."""
    kings = bits(boards.pieces[:, 5])
    return attacked(boards, kings.argmax(axis=1), by=6) & kings.any(axis=1)


def side_information(
    boards: Boards, moves: Int[np.ndarray, " n"], legal: Bool[np.ndarray, "n 1880"]
) -> Float32[np.ndarray, "n 2021"]:
    """What Maia-2's second head is asked about a move, as zeros and ones.

    In order: which piece moves, which is taken, whether it gives check, from where, to where, and
    all legal moves. With castling the rook moves, too. (The published code has this of any move
    from e1 to g1 or c1, whatever the piece.)

    Args:
        boards: positions.
        moves: the move played on each, legal there.
        legal: of these boards.
    """
    n, board = len(boards), np.arange(len(boards))
    origin, target = FROM[moves], TO[moves]
    information = np.zeros((n, SIDE_INFORMATION + len(MOVES)), np.float32)
    piece = (boards.pieces[:, :6] & BIT[origin][:, None] != 0).argmax(axis=1)
    information[board, piece] = 1
    taken = BIT[target] | _taken_in_passing(boards, board, origin, target)
    information[:, 6:12] = boards.pieces[:, 6:] & taken[:, None] != 0
    information[:, 12] = in_check(_moved(boards, moves).mirrored())
    information[board, 13 + origin] = 1
    information[board, 77 + target] = 1
    castles = np.flatnonzero((piece == 5) & (np.abs(target - origin) == 2))
    king_side = target[castles] == _G1
    information[castles, 3] = 1
    information[castles, 13 + np.where(king_side, 7, 0)] = 1
    information[castles, 77 + np.where(king_side, 5, 3)] = 1
    information[:, SIDE_INFORMATION:] = legal
    return information
