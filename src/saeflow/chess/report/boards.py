"""Chess boards as SVG, drawn by python-chess: squares coloured by a number, and positions with a
square marked."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping

import chess
import chess.svg
import matplotlib

FULL = 8 * chess.svg.SQUARE_SIZE
MARGIN = 15  # of python-chess, for the letters and digits
LOWEST, HIGHEST = 0.5, 1.0
"""The areas at the ends of the colours, as in the figures."""
_DARK_BELOW = 0.78  # squares whose digits are white
_CLEAR = "#00000000"
_WOOD = {
    "square light": "#ecebe4",
    "square dark": "#b4bcc2",
    "margin": "#f6f6f3",
    "coord": "#4a4b47",
}
MARK, MOVE = "#d55e00e0", "#0072b2c0"
"""Of a marked square and of the move that was played: told apart by shape as well, a circle and an
arrow."""
_NAMES = {piece: name for piece, name in enumerate(chess.PIECE_NAMES) if name}


def heat_map(areas: Mapping[int, float], alt: str) -> str:
    """An empty board whose squares are coloured, and numbered in hundredths, by areas under the ROC
    curve.

    Args:
        areas: by square, a1 = 0; squares without one keep their own colour.
        alt: the text for those who do not see it.

    Returns:
        SVG to stand in a page: no style of its own, no names that another could have.
    """
    fill = {square: _colour(area) for square, area in areas.items()}
    colours = {"margin": _CLEAR}
    drawn = str(chess.svg.board(None, fill=fill, colors=colours, coordinates=True))
    opening = f'<svg role="img" aria-label="{html.escape(alt, quote=True)}" class="heat" '
    return drawn.replace("<svg ", opening, 1).replace(
        "</svg>", f"{''.join(_digits(areas))}</svg>", 1
    )


def _digits(areas: Mapping[int, float]) -> Iterator[str]:
    for square, area in areas.items():
        x = MARGIN + (chess.square_file(square) + 0.5) * chess.svg.SQUARE_SIZE
        y = MARGIN + (7.5 - chess.square_rank(square)) * chess.svg.SQUARE_SIZE
        colour = "#ffffff" if area < _DARK_BELOW else "#1b1c1a"
        place = f'x="{x:g}" y="{y + 6:g}" text-anchor="middle" font-size="17"'
        yield f'<text {place} fill="{colour}">{100 * area:.0f}</text>'


def _colour(area: float) -> str:
    """Of the palette `cividis`, which looks alike with every common kind of colour blindness."""
    share = min(max((area - LOWEST) / (HIGHEST - LOWEST), 0.0), 1.0)
    red, green, blue, _ = matplotlib.colormaps["cividis"](share, bytes=True)
    return f"#{red:02x}{green:02x}{blue:02x}"


def position(fen: str, move: str, square: int | None) -> str:
    """A position as a whole SVG file, with a circle around a square and an arrow along the move
    that was played.

    Args:
        fen: of the position.
        move: in UCI.
        square: to be marked, if any.
    """
    played = chess.Move.from_uci(move)
    arrows = [chess.svg.Arrow(played.from_square, played.to_square, color=MOVE)]
    if square is not None:
        arrows.append(chess.svg.Arrow(square, square, color=MARK))
    return str(chess.svg.board(chess.Board(fen), arrows=arrows, colors=_WOOD, size=360))


def piece_symbols() -> str:
    """All pieces as SVG that a page holds once and draws from, each called by side and kind, such
    as ``white-pawn``: looks are attributes, since the page allows no styles inside elements."""

    def attributes(style: re.Match[str]) -> str:
        pairs = (pair.split(":") for pair in style[1].split(";") if pair)
        return " ".join(f'{name.strip()}="{value.strip()}"' for name, value in pairs)

    return "".join(
        re.sub(r'style="([^"]*)"', attributes, symbol) for symbol in chess.svg.PIECES.values()
    )


def spoken(fen: str) -> str:
    """Where the pieces of a position stand, in words."""
    board = chess.Board(fen)
    sides = []
    for side, name in ((chess.WHITE, "White"), (chess.BLACK, "Black")):
        pieces = []
        for piece, called in sorted(_NAMES.items(), reverse=True):
            squares = [chess.square_name(square) for square in board.pieces(piece, side)]
            if squares:
                pieces.append(f"{called}{'s' * (len(squares) > 1)} {' '.join(squares)}")
        sides.append(f"{name}: {', '.join(pieces)}")
    return f"White to move. {'. '.join(sides)}."
