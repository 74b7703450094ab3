"""Games of random moves, played by python-chess."""

from __future__ import annotations

import random
from typing import NamedTuple

import chess

from saeflow.chess.games.settings import Games


class Turn(NamedTuple):
    """A position, and the move played in it, both as they are and seen by the player to move."""

    board: chess.Board
    move: chess.Move

    @property
    def seen(self) -> chess.Board:
        return self.board if self.board.turn else self.board.mirror()

    @property
    def seen_move(self) -> str:
        move = self.move
        if self.board.turn:
            return move.uci()
        return chess.Move(move.from_square ^ 56, move.to_square ^ 56, move.promotion).uci()


def random_turns(count: int, seed: int = 0, plies: int = 120) -> list[Turn]:
    """Positions of games of random moves, in order of play, from the first move on."""
    draw, turns = random.Random(seed), []
    while len(turns) < count:
        board = chess.Board()
        while len(turns) < count and board.ply() < plies and (moves := list(board.legal_moves)):
            move = draw.choice(moves)
            turns.append(Turn(board.copy(stack=False), move))
            board.push(move)
    return turns


ALL_GAMES = Games(events=["Rated"], first_ply=0)
HEADERS = {
    "Event": "Rated Blitz game",
    "Site": "https://lichess.org/abcdefgh",
    "Result": "1-0",
    "WhiteElo": "1650",
    "BlackElo": "2010",
}


def game_text(moves: str, **headers: str | None) -> str:
    given = {name: value for name, value in {**HEADERS, **headers}.items() if value is not None}
    tags = "\n".join(f'[{name} "{value}"]' for name, value in given.items())
    return f"{tags}\n\n{moves}\n\n"


SCHOLAR = "1. e4 e5 2. Bc4 Nc6 3. Qh5 Nf6 4. Qxf7# 1-0"
