"""Which moves answer a concept: take what can be taken, save what is threatened.

With them one can say which positions need a concept (the right move is one of its moves) and how
willing a model is to act on it (how much probability these moves get).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int64

from saeflow.chess.games import moves
from saeflow.chess.games.boards import bits
from saeflow.chess.knowledge.concepts import Concept
from saeflow.chess.knowledge.exchanges import gains
from saeflow.chess.knowledge.views import BLACK, MOVES_AT_ONCE, WHITE, View
from saeflow.errors import SaeflowError

Squares = Int64[np.ndarray, " n"]
Answers = Bool[np.ndarray, "n 1880"]
Respond = Callable[[View, Squares], Answers]


def captures(view: View, squares: Squares) -> Answers:
    """Legal moves that take what stands on the square."""
    return view.legal & (squares[:, None] == moves.TO)


def rescues(view: View, squares: Squares) -> Answers:
    """Legal moves after which no piece of mine on the square is attacked by more than protect
    it."""
    return _after_all(view, squares, _outnumbered)


def parries(view: View, squares: Squares) -> Answers:
    """Legal moves after which the opponent wins nothing by captures on the square."""
    return _after_all(
        view, squares, lambda after, square: gains(after, WHITE)[square, np.arange(after.count)] > 0
    )


def _outnumbered(after: View, square: Squares) -> Bool[np.ndarray, " n"]:
    """Seen by the opponent, whose move it is then: whether a piece on the square has more attackers
    than protectors."""
    each, counts = np.arange(after.count), after.attack_counts
    piece = after.squares[square, each]
    return (piece >= 6) & (piece < 12) & (counts.white[square, each] > counts.black[square, each])


def _after_all(
    view: View, squares: Squares, bad: Callable[[View, Squares], Bool[np.ndarray, " n"]]
) -> Answers:
    answers = view.legal.copy()
    position, move = answers.nonzero()
    for start in range(0, len(position), MOVES_AT_ONCE):
        part = slice(start, start + MOVES_AT_ONCE)
        after = View(moves.play(view.boards.part(position[part]), move[part]))
        answers[position[part], move[part]] = ~bad(after, squares[position[part]] ^ 56)  # mirrored
    return answers


def takes_queen(view: View, squares: Squares) -> Answers:
    """Legal moves that take a queen."""
    return view.legal & bits(view.pieces(4, BLACK))[:, moves.TO]


def mating(view: View, squares: Squares) -> Answers:
    """Legal moves that mate."""
    return view.mating


def any_move(view: View, squares: Squares) -> Answers:
    """All legal moves: the concept says nothing of what to do."""
    return view.legal


BY_FAMILY: dict[str, Respond] = {
    "offensive_threat": captures,
    "defensive_threat": rescues,
    "offensive_exchange": captures,
    "defensive_exchange": parries,
}
BY_NAME: dict[str, Respond] = {"has_mate_threat": mating, "can_capture_queen_mine": takes_queen}
_CAPTURE, _MINE = "capture_possible_on_", "_mine"


def answers(concept: Concept, view: View) -> Answers:
    """The legal moves that answer a concept, in positions that have it; all of them where it asks
    for none."""
    name, square = concept.name, concept.square
    if name.startswith(_CAPTURE) and name.endswith(_MINE):
        respond: Respond = captures
        square = moves.SQUARES.index(name.removeprefix(_CAPTURE).removesuffix(_MINE))
    else:
        respond = BY_NAME.get(name) or BY_FAMILY.get(concept.family, any_move)
    return respond(view, np.full(view.count, max(square, 0)))


def members(group: str, concepts: list[Concept]) -> list[int]:
    """The places of a group's concepts: all of a family, or one by its name.

    Raises:
        SaeflowError: there is neither a family nor a concept of that name.
    """
    indices = [
        index for index, concept in enumerate(concepts) if group in (concept.family, concept.name)
    ]
    if not indices:
        families = ", ".join(dict.fromkeys(concept.family for concept in concepts))
        raise SaeflowError(
            f"chess: no concept and no family is called '{group}'; families of this study are "
            f"{families}"
        )
    return indices
