"""Concepts hold where chess says so: hand-made positions, and python-chess on random play."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace

import chess
import numpy as np
import pytest
from chess_positions import random_play

from saeflow.chess.games.boards import read_fens
from saeflow.chess.knowledge import concepts
from saeflow.chess.knowledge.concepts import FAMILIES, concepts_of, label, per_board, user_concepts
from saeflow.chess.knowledge.exchanges import gains
from saeflow.chess.knowledge.views import BLACK, WHITE, View
from saeflow.errors import SaeflowError


def view(fen: str) -> View:
    return View(read_fens([f"{fen} w - - 0 1" if " " not in fen else fen]))


def holding(fen: str, *families: str) -> set[str]:
    """The names of the concepts that hold in one position."""
    labels = label(view(fen).boards, families)
    return {
        concept.name
        for concept, holds in zip(labels.concepts, labels.values[0], strict=True)
        if holds
    }


def attackers(fen: str, square: str) -> tuple[int, int]:
    """How many of White's and Black's pieces attack a square."""
    counts, index = view(fen).attack_counts, chess.parse_square(square)
    return int(counts.white[index, 0]), int(counts.black[index, 0])


@pytest.mark.parametrize(
    ("fen", "square", "counted"),
    [
        # e4: pawn d3, knight c3, queen e2, bishop g2; against pawn d5, knight f6.
        ("4k3/8/5n2/3p4/4P3/2NP4/4Q1B1/4K3", "e4", (4, 2)),
        # The king attacks, too: e2 is guarded by king and bishop, attacked by rook and knight.
        ("4r1k1/8/8/8/3n4/8/4P3/3BK3", "e2", (2, 2)),
        # A pinned knight (rook e8, king e1) still counts as an attacker of d5.
        ("4r1k1/8/8/3p4/8/8/4N3/4K3", "d4", (1, 0)),
        # No x-ray: of rooks doubled on the d-file only the front one attacks d5; nor does a queen
        # behind a bishop.
        ("6k1/8/8/3p4/8/3R4/3R4/6K1", "d5", (1, 0)),
        ("6k1/8/8/3p4/2B5/1Q6/8/6K1", "d5", (1, 0)),
        # Pawns attack forwards only: White's from below, Black's from above.
        ("6k1/8/2p1p3/3P4/2p1p3/8/8/6K1", "d5", (0, 2)),
        ("6k1/8/2P1P3/3p4/2P1P3/8/8/6K1", "d5", (2, 0)),
        # Nothing leaps around the edge: rook h4 and pawn h3 do not see a5 or a4.
        ("6k1/8/8/p7/7R/7P/8/6K1", "a5", (0, 0)),
    ],
)
def test_attackers_are_as_counted_by_hand(fen: str, square: str, counted: tuple[int, int]) -> None:
    assert attackers(fen, square) == counted


def test_attackers_of_all_squares_are_python_chess_s() -> None:
    played = random_play(2000)
    counts = View(played.boards).attack_counts
    for index, board in enumerate(played.python):
        for side, attackers in ((chess.WHITE, counts.white), (chess.BLACK, counts.black)):
            assert [len(board.attackers(side, square)) for square in range(64)] == attackers[
                :, index
            ].tolist()


@pytest.mark.parametrize(
    ("fen", "expected"),
    [
        # Knight e4 is attacked by pawn and knight, guarded by the bishop: two against one. It
        # attacks f6 in turn.
        ("6k1/8/5n2/3p4/4N3/8/6B1/6K1", {"defensive_threat_e4", "offensive_threat_f6"}),
        # Guarded as often as attacked: no threat.
        ("6k1/8/5n2/8/4N3/8/6B1/6K1", {"offensive_threat_f6"}),
        # Black's rook a8 is attacked by the bishop and not guarded; the bishop is not attacked in
        # turn.
        ("r5k1/8/8/8/8/8/6B1/6K1", {"offensive_threat_a8"}),
        # Rooks that face each other without guards threaten both ways.
        ("r6k/8/8/8/8/8/8/R6K", {"defensive_threat_a1", "offensive_threat_a8"}),
    ],
)
def test_threats_are_more_attackers_than_protectors(fen: str, expected: set[str]) -> None:
    assert holding(fen, "defensive_threat", "offensive_threat") == expected


def test_a_threat_is_on_the_square_named_by_the_player_to_move() -> None:
    fen = "r5k1/8/8/8/8/8/6B1/6K1 w - - 0 1"
    turned = chess.Board(fen).mirror().fen()
    assert turned.split()[1] == "b"
    assert (
        holding(fen, "offensive_threat")
        == holding(turned, "offensive_threat")
        == {"offensive_threat_a8"}
    )
    assert concepts_of(["offensive_threat"])[chess.A8].square == chess.A8
    assert (
        holding(turned, "piece") == holding(fen, "piece") >= {"my_bishop_on_g2", "their_rook_on_a8"}
    )


def test_threats_and_pieces_of_random_play_are_python_chess_s() -> None:
    played = random_play(1000, seed=1)
    labels = label(played.boards, ["defensive_threat", "offensive_threat", "piece"])
    expected = np.zeros_like(labels.values)
    kinds = {
        (color, kind): 64 * (kind - 1 + 6 * (not color))
        for color in (True, False)
        for kind in range(1, 7)
    }
    for row, board in zip(expected, played.python, strict=True):
        for square, piece in board.piece_map().items():
            row[128 + kinds[piece.color, piece.piece_type] + square] = True
            against, by = (
                len(board.attackers(side, square)) for side in (not piece.color, piece.color)
            )
            row[square + (0 if piece.color else 64)] = against > by
    assert (labels.values == expected).all()


@pytest.mark.parametrize(
    ("fen", "square", "side", "gain"),
    [
        ("6k1/8/8/3p4/8/8/6B1/6K1", "d5", WHITE, 1),  # a loose pawn
        ("6k1/8/4p3/3p4/8/8/6B1/6K1", "d5", WHITE, 0),  # guarded by a pawn: a bishop for a pawn
        ("6k1/8/4p3/3r4/8/8/6B1/6K1", "d5", WHITE, 2),  # a rook for a bishop
        ("3r2k1/8/8/3p4/8/8/3R4/3R2K1", "d5", WHITE, 1),  # the rear rook joins in: x-ray
        ("3r2k1/8/8/3p4/8/8/3R4/6K1", "d5", WHITE, 0),  # without it the front one is lost
        ("3r2k1/3r4/8/3p4/8/8/3R4/3R2K1", "d5", WHITE, 0),  # the other side has a rear rook, too
        ("4r1k1/8/8/8/3p4/8/4N3/4K3", "d4", WHITE, 0),  # the knight is pinned to its king
        (
            "4r1k1/8/8/4p3/8/8/4R3/4K3",
            "e5",
            WHITE,
            0,
        ),  # along the pin a rook may take: a pawn for a rook
        ("6k1/8/8/4p3/8/8/4R3/4K3", "e5", WHITE, 1),
        ("6k1/8/8/8/8/3p4/8/3K4", "d3", WHITE, 0),  # the king does not reach it
        ("6k1/8/8/8/8/8/3p4/3K4", "d2", WHITE, 1),  # a king takes what is not guarded
        ("3r2k1/8/8/8/8/8/3p4/3K4", "d2", WHITE, 0),  # and not what is
        ("6k1/6b1/8/8/3N4/2P5/8/6K1", "d4", BLACK, 0),  # knight and bishop are worth the same
        ("6k1/6b1/8/8/3R4/2P5/8/6K1", "d4", BLACK, 2),
    ],
)
def test_exchanges_weigh_values_x_rays_and_pins(
    fen: str, square: str, side: int, gain: float
) -> None:
    assert gains(view(fen), side)[chess.parse_square(square), 0] == gain


def test_exchanges_of_random_play_are_those_of_a_recursive_search() -> None:
    played = random_play(150, seed=2)
    exchanges = {side: gains(View(played.boards), side) for side in (WHITE, BLACK)}
    checked = 0
    for index, board in enumerate(played.python):
        if _pins(board):
            continue
        for square, piece in board.piece_map().items():
            if piece.piece_type == chess.KING:
                continue
            side = BLACK if piece.color else WHITE
            assert exchanges[side][square, index] == max(
                0, _search(board, square, not piece.color)
            ), (
                board.fen(),
                square,
            )
            checked += 1
    assert checked > 300


def _pins(board: chess.Board) -> bool:
    return any(board.is_pinned(piece.color, square) for square, piece in board.piece_map().items())


def _search(board: chess.Board, square: int, color: chess.Color) -> float:
    """What capturing on a square with the cheapest piece wins, if the other side goes on only where
    that pays."""
    values = {
        chess.PAWN: 1,
        chess.KNIGHT: 3,
        chess.BISHOP: 3,
        chess.ROOK: 5,
        chess.QUEEN: 9,
        chess.KING: 100,
    }
    kinds = {origin: board.piece_type_at(origin) for origin in board.attackers(color, square)}
    if not kinds:
        return 0
    origin = min(kinds, key=lambda kind: (values[kinds[kind]], kind))
    if kinds[origin] == chess.KING and board.attackers(not color, square):
        return 0
    after = board.copy(stack=False)
    taken = values[after.piece_type_at(square)]
    after.set_piece_at(square, after.remove_piece_at(origin))
    return taken - max(0, _search(after, square, not color))


STRATEGIC = [
    ("4r1k1/8/8/8/8/8/8/4K3", "in_check", True),
    ("4r1k1/8/8/8/8/8/4P3/4K3", "in_check", False),
    ("6k1/5ppp/8/8/8/8/8/R5K1", "has_mate_threat", True),  # Ra8 is mate
    ("6k1/5pp1/7p/8/8/8/8/R5K1", "has_mate_threat", False),  # the king escapes to h7
    ("1n4k1/5ppp/8/8/8/8/8/R5K1", "has_mate_threat", False),  # the knight shuts the rank
    ("6k1/8/8/8/8/8/8/R2R2K1", "has_connected_rooks_mine", True),
    ("6k1/8/8/8/8/8/8/R1NR2K1", "has_connected_rooks_mine", False),
    ("r2r2k1/8/8/8/8/8/8/6K1", "has_connected_rooks_opponent", True),
    ("6k1/8/8/8/8/8/8/2B1BK2", "has_bishop_pair_mine", True),
    ("6k1/8/8/8/8/8/8/2B2K2", "has_bishop_pair_mine", False),
    ("2b1b1k1/8/8/8/8/8/8/5K2", "has_bishop_pair_opponent", True),
    ("6k1/4p3/8/8/8/8/4P3/R5K1", "has_control_of_open_file_mine", True),
    ("6k1/p3p3/8/8/8/8/4P3/R5K1", "has_control_of_open_file_mine", False),
    ("r5k1/4p3/8/8/8/8/4P3/R5K1", "has_control_of_open_file_mine", False),
    ("r5k1/4p3/8/8/8/8/4P3/R5K1", "has_contested_open_file", True),
    ("r5k1/4p3/8/8/8/8/4P3/1R4K1", "has_contested_open_file", False),
    ("r5k1/4p3/8/8/8/8/4P3/6K1", "has_control_of_open_file_opponent", True),
    ("q5k1/8/8/8/8/8/6B1/6K1", "can_capture_queen_mine", True),
    ("q3r1k1/8/8/8/8/8/4B3/4K3", "can_capture_queen_mine", False),
    ("6k1/6b1/8/8/8/2Q5/8/6K1", "can_capture_queen_opponent", True),
    ("6k1/8/8/8/P7/8/8/1B4K1", "has_right_bc_ha_promotion_mine", True),  # a8 and b1 are light
    ("6k1/8/8/8/P7/8/8/2B3K1", "has_right_bc_ha_promotion_mine", False),  # c1 is dark
    ("6k1/1p6/8/8/P7/8/8/1B4K1", "has_right_bc_ha_promotion_mine", False),  # b7 stands before it
    ("6k1/8/8/8/P7/1p6/8/1B4K1", "has_right_bc_ha_promotion_mine", True),  # b3 stands behind it
    ("6k1/8/8/8/7P/8/8/2B3K1", "has_right_bc_ha_promotion_mine", True),  # h8 is dark
    (
        "2b3k1/8/8/p7/8/8/8/6K1",
        "has_right_bc_ha_promotion_opponent",
        False,
    ),  # a1 is dark, c8 is light
    ("5bk1/8/8/p7/8/8/8/6K1", "has_right_bc_ha_promotion_opponent", True),
    ("6k1/8/8/6p1/8/4B3/8/6K1", "capture_possible_on_g5_mine", True),
    ("4r1k1/8/8/6p1/8/4B3/8/4K3", "capture_possible_on_g5_mine", False),  # the bishop is pinned
    ("6k1/8/8/8/6P1/8/8/3b2K1", "capture_possible_on_g5_opponent", True),  # g4 is Black's g5
    ("6k1/8/8/6P1/8/8/8/3b2K1", "capture_possible_on_g5_opponent", False),
    ("6k1/8/8/8/8/8/3r4/3K4", "capture_possible_on_d2_mine", True),
    ("6k1/8/2n1n3/3P4/8/8/8/6K1", "pawn_fork_mine", True),
    ("6k1/8/2n1p3/3P4/8/8/8/6K1", "pawn_fork_mine", False),  # a pawn is worth no more
    ("6k1/8/8/8/3p4/2N1R3/8/6K1", "pawn_fork_opponent", True),
    ("r3k3/2N5/8/8/8/8/8/6K1", "knight_fork_mine", True),
    ("r3k3/2N5/8/8/5b2/8/8/2K5", "knight_fork_mine", True),
    ("r1r1k3/2N5/8/8/8/8/8/2K5", "knight_fork_mine", False),  # pinned on the c-file
    ("r5k1/8/8/8/4B3/8/8/6Kr", "bishop_fork_mine", True),
    ("3q4/8/8/8/3R2k1/8/8/6K1", "rook_fork_mine", True),
    ("4r1k1/8/8/8/8/8/4P3/4K3", "has_pinned_pawn_mine", True),
    ("4r1k1/8/8/8/8/4N3/4P3/4K3", "has_pinned_pawn_mine", False),  # two pieces stand between
    ("4r1k1/8/8/8/8/8/4Q3/4K3", "has_pinned_queen_mine", True),
    ("4k3/4n3/8/8/8/8/8/4R1K1", "has_pinned_knight_opponent", True),
    ("4k3/3b4/8/1B6/8/8/8/6K1", "has_pinned_bishop_opponent", True),
]


@pytest.mark.parametrize(("fen", "name", "holds"), STRATEGIC)
def test_strategic_concepts_hold_where_they_should(fen: str, name: str, holds: bool) -> None:
    assert (name in holding(fen, "strategic", "tactical")) is holds


def test_the_published_list_is_whole() -> None:
    assert len(FAMILIES["strategic"].names) == 29
    assert len(FAMILIES["tactical"].names) == 18
    assert len(FAMILIES["defensive_threat"].names) + len(FAMILIES["offensive_threat"].names) == 128
    names = [concept.name for concept in concepts_of(list(FAMILIES))]
    assert len(names) == len(set(names))


def test_every_concept_of_the_opponent_is_the_mover_s_seen_from_the_other_side() -> None:
    played = random_play(300, seed=3)
    turned = replace(played.boards.mirrored(), en_passant=np.full(len(played.boards), -1, np.int8))
    for name in ("strategic", "tactical"):
        labels, other = (label(boards, [name]) for boards in (played.boards, turned))
        column = {concept.name: index for index, concept in enumerate(labels.concepts)}
        for concept, index in column.items():
            if concept.endswith("_opponent"):
                mine = other.values[:, column[concept.removesuffix("opponent") + "mine"]]
                assert (labels.values[:, index] == mine).all(), concept


def test_strategic_concepts_of_random_play_are_python_chess_s() -> None:
    played = random_play(1200, seed=4)
    labels = label(played.boards, ["strategic", "tactical"])
    column = {
        concept.name: labels.values[:, index] for index, concept in enumerate(labels.concepts)
    }
    expected = {
        name: np.array([function(board) for board in played.python])
        for name, function in ORACLES.items()
    }
    for name, values in expected.items():
        assert (column[name] == values).all(), name
        assert values.any(), name


def _takes(board: chess.Board, square: int) -> bool:
    return any(move.to_square == square and board.is_capture(move) for move in board.legal_moves)


def _mates(board: chess.Board) -> bool:
    for move in board.legal_moves:
        board.push(move)
        mated = board.is_checkmate()
        board.pop()
        if mated:
            return True
    return False


def _pinned(kind: int) -> object:
    return lambda board: any(
        board.is_pinned(chess.WHITE, square) for square in board.pieces(kind, chess.WHITE)
    )


ORACLES = {
    "in_check": lambda board: board.is_check(),
    "has_mate_threat": _mates,
    "can_capture_queen_mine": lambda board: any(
        _takes(board, s) for s in board.pieces(chess.QUEEN, chess.BLACK)
    ),
    "capture_possible_on_e3_mine": lambda board: _takes(board, chess.E3),
    "capture_possible_on_b5_mine": lambda board: _takes(board, chess.B5),
    "has_pinned_pawn_mine": _pinned(chess.PAWN),
    "has_pinned_knight_mine": _pinned(chess.KNIGHT),
    "has_bishop_pair_mine": lambda board: len(board.pieces(chess.BISHOP, chess.WHITE)) == 2,
    "knight_fork_mine": lambda board: any(
        not board.is_pinned(True, square)
        and sum(
            bool(board.piece_type_at(to) in (4, 5, 6) and not board.color_at(to))
            for to in board.attacks(square)
        )
        > 1
        for square in board.pieces(chess.KNIGHT, True)
    ),
}


def test_labels_do_not_depend_on_how_many_are_asked_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boards = random_play(300, seed=3).boards
    whole = label(boards, list(FAMILIES)).values
    monkeypatch.setattr(concepts, "_POSITIONS_AT_ONCE", 7)
    assert (label(boards, list(FAMILIES)).values == whole).all()


class _Point:
    def __init__(self, name: str, function: object) -> None:
        self.name, self.function, self.value = name, function, "package:function"

    def load(self) -> object:
        return self.function


def _install(monkeypatch: pytest.MonkeyPatch, **functions: object) -> None:
    points = [_Point(name, function) for name, function in functions.items()]
    monkeypatch.setattr(
        concepts, "entry_points", lambda group: points if group == "saeflow.chess_concepts" else []
    )
    user_concepts.cache_clear()


def test_packages_add_concepts_of_boards_and_of_views(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(
        monkeypatch,
        white_castles=per_board(lambda board: bool(board.castling_rights & chess.BB_H1)),
        many_pieces=lambda seen: np.bitwise_count(seen.occupied) > 16,
    )
    try:
        played = random_play(200, seed=5)
        labels = label(played.boards, ["user", "strategic"])
        assert [concept.name for concept in labels.concepts[:2]] == ["many_pieces", "white_castles"]
        assert labels.values[:, 0].tolist() == [
            len(board.piece_map()) > 16 for board in played.python
        ]
        assert labels.values[:, 1].tolist() == [
            board.has_kingside_castling_rights(True) for board in played.python
        ]
    finally:
        user_concepts.cache_clear()


def test_a_user_s_concept_that_is_wrong_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boards = random_play(10, seed=5).boards
    _install(monkeypatch, half=lambda seen: np.ones(3))
    with pytest.raises(SaeflowError, match="'half' gives float64 of shape"):
        label(boards, ["user"])
    _install(monkeypatch, in_check=lambda seen: np.ones(10, bool))
    with pytest.raises(SaeflowError, match="'in_check' of package:function exists already"):
        label(boards, ["user"])
    _install(monkeypatch)
    with pytest.raises(SaeflowError, match="no installed package offers concepts"):
        label(boards, ["user"])
    user_concepts.cache_clear()
    with pytest.raises(SaeflowError, match="no family of concepts 'threats'"):
        label(boards, ["threats"])


def test_the_group_of_entry_points_is_looked_up_by_name() -> None:
    assert concepts.entry_points is importlib.metadata.entry_points
