"""The registry of concepts: yes-or-no facts about a position, in families that are computed
together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import NamedTuple

import chess
import numpy as np
from jaxtyping import Bool

from saeflow.chess.games.boards import Boards, write_fens
from saeflow.chess.games.moves import SQUARES
from saeflow.chess.knowledge.exchanges import gains
from saeflow.chess.knowledge.strategic import STRATEGIC, TACTICAL, Function
from saeflow.chess.knowledge.views import BLACK, WHITE, View
from saeflow.errors import SaeflowError

ENTRY_POINTS = "saeflow.chess_concepts"
_POSITIONS_AT_ONCE = 4096
_KINDS = ("pawn", "knight", "bishop", "rook", "queen", "king")


class Concept(NamedTuple):
    """One concept.

    Attributes:
        name: ``offensive_threat_e5``.
        family: in `FAMILIES`.
        square: what it is about; -1 for concepts about the whole board.
    """

    name: str
    family: str
    square: int = -1


class Family(NamedTuple):
    """Concepts that are computed together.

    Attributes:
        names: of the concepts.
        squares: of the concepts, -1 where one is about the whole board.
        label: which of them hold in each position, ``[n, concepts]``.
    """

    names: tuple[str, ...]
    squares: tuple[int, ...]
    label: Callable[[View], Bool[np.ndarray, "n concepts"]]


class Labels(NamedTuple):
    """Which concepts hold where."""

    concepts: list[Concept]
    values: Bool[np.ndarray, "n concepts"]


def defensive_threats(view: View) -> Bool[np.ndarray, "n 64"]:
    """A piece of mine on the square is attacked by more pieces of the opponent than protect it."""
    counts = view.attack_counts
    return ((view.squares < 6) & (counts.black > counts.white)).T


def offensive_threats(view: View) -> Bool[np.ndarray, "n 64"]:
    """A piece of the opponent on the square is attacked by more pieces of mine than protect it."""
    counts = view.attack_counts
    return ((view.squares >= 6) & (view.squares < 12) & (counts.white > counts.black)).T


def defensive_exchanges(view: View) -> Bool[np.ndarray, "n 64"]:
    """If it were its move, the opponent would win material by captures on the square."""
    return (gains(view, BLACK) > 0).T


def offensive_exchanges(view: View) -> Bool[np.ndarray, "n 64"]:
    """I win material by captures on the square."""
    return (gains(view, WHITE) > 0).T


def pieces_on_squares(view: View) -> Bool[np.ndarray, "n 768"]:
    """A piece of a kind and side stands on a square."""
    return (view.squares[None] == np.arange(12, dtype=np.uint8)[:, None, None]).reshape(768, -1).T


def per_board(function: Callable[[chess.Board], bool]) -> Function:
    """A concept from a function of one python-chess board, whose White is to move; slower by far
    than of a `View`."""

    def label(view: View) -> Bool[np.ndarray, " n"]:
        return np.array([bool(function(chess.Board(fen))) for fen in write_fens(view.boards)], bool)

    return label


def _by_square(name: str, label: Callable[[View], Bool[np.ndarray, "n 64"]]) -> Family:
    return Family(tuple(f"{name}_{square}" for square in SQUARES), tuple(range(64)), label)


def _of_functions(functions: dict[str, Function]) -> Family:
    return Family(
        tuple(functions),
        (-1,) * len(functions),
        lambda view: np.stack([function(view) for function in functions.values()], axis=1),
    )


FAMILIES: dict[str, Family] = {
    "defensive_threat": _by_square("defensive_threat", defensive_threats),
    "offensive_threat": _by_square("offensive_threat", offensive_threats),
    "defensive_exchange": _by_square("defensive_exchange", defensive_exchanges),
    "offensive_exchange": _by_square("offensive_exchange", offensive_exchanges),
    "piece": Family(
        tuple(
            f"{side}_{kind}_on_{square}"
            for side in ("my", "their")
            for kind in _KINDS
            for square in SQUARES
        ),
        tuple(range(64)) * 12,
        pieces_on_squares,
    ),
    "strategic": _of_functions(STRATEGIC),
    "tactical": _of_functions(TACTICAL),
}
"""All families but ``user``, which holds the functions that packages offer as entry points
`ENTRY_POINTS`."""


@cache
def user_concepts() -> Family:
    """The concepts of installed packages: entry points that name a function of a `View`, or of
    `per_board`.

    Raises:
        SaeflowError: one cannot be loaded, or has the name of another concept.
    """
    shipped = {name for family in FAMILIES.values() for name in family.names}
    functions: dict[str, Function] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        if point.name in shipped | functions.keys():
            raise SaeflowError(
                f"chess: the concept '{point.name}' of {point.value} exists already; rename it"
            )
        try:
            functions[point.name] = _checked(point.name, point.load())
        except (ImportError, AttributeError) as error:
            raise SaeflowError(
                f"chess: the concept '{point.name}' cannot be loaded ({error}); mend it"
            ) from error
    if not functions:
        raise SaeflowError(
            f"chess: no installed package offers concepts ({ENTRY_POINTS}); leave out the family "
            "'user'"
        )
    return _of_functions(functions)


def _checked(name: str, function: Function) -> Function:
    def label(view: View) -> Bool[np.ndarray, " n"]:
        values = np.asarray(function(view))
        if values.shape != (view.count,) or values.dtype != bool:
            raise SaeflowError(
                f"chess: the concept '{name}' gives {values.dtype} of shape {values.shape}; "
                f"it must give one bool per position, shape ({view.count},)"
            )
        return values

    return label


def family(name: str) -> Family:
    """The family of a name.

    Raises:
        SaeflowError: there is none.
    """
    if name == "user":
        return user_concepts()
    if name not in FAMILIES:
        raise SaeflowError(
            f"chess: there is no family of concepts '{name}'; there are {', '.join(FAMILIES)} and "
            "user"
        )
    return FAMILIES[name]


def concepts_of(names: Sequence[str]) -> list[Concept]:
    """All concepts of some families, in their order."""
    return [
        Concept(concept, name, square)
        for name in names
        for concept, square in zip(family(name).names, family(name).squares, strict=True)
    ]


def label(boards: Boards, names: Sequence[str]) -> Labels:
    """Which concepts hold in which positions.

    Args:
        boards: ``[n]``.
        names: of families.

    Returns:
        One byte per position and concept.
    """
    parts = [np.zeros((0, len(concepts_of(names))), bool)]
    for start in range(0, len(boards), _POSITIONS_AT_ONCE):
        view = View(boards.part(slice(start, start + _POSITIONS_AT_ONCE)))
        parts.append(np.concatenate([family(name).label(view) for name in names], axis=1))
    return Labels(concepts_of(names), np.concatenate(parts))
