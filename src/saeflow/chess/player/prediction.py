"""What players of some ratings would play in one position."""

from __future__ import annotations

from collections.abc import Sequence

import chess
import numpy as np
import polars as pl
import torch

from saeflow.chess.games.boards import START, read_fens
from saeflow.chess.games.moves import MOVES, legal_moves, mirrored_move
from saeflow.chess.games.positions import RATING_BINS, rating_bin
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.planes import encode, mask_illegal
from saeflow.errors import SaeflowError
from saeflow.tables import Schema

PREDICTIONS: Schema = {
    "rating": pl.Int64,
    "opponent": pl.Int64,
    "ratings": pl.String,  # the bin that the model is told
    "place": pl.Int64,  # from 1, by falling probability
    "move": pl.String,  # in UCI, of the board as it is
    "san": pl.String,
    "probability": pl.Float64,  # among legal moves
    "score": pl.Float64,  # the result that the model expects for the player: 1 wins, 0 loses
}
_HARMLESS = chess.STATUS_BAD_CASTLING_RIGHTS | chess.STATUS_INVALID_EP_SQUARE  # are passed over


@torch.no_grad()
def predict(
    model: Maia2, fen: str, ratings: Sequence[int], opponent: int | None = None
) -> pl.DataFrame:
    """The probability of every legal move of a position, by players of some ratings.

    Args:
        model: in evaluation mode.
        fen: the position, whoever is to move; ``start`` is the first of a game.
        ratings: of the player to move, such as 1500.
        opponent: rating of the other player; by default the same.

    Returns:
        The columns of `PREDICTIONS`, moves of a rating by falling probability.

    Raises:
        SaeflowError: this is no position, no legal move is left in it, or a rating is none.
    """
    board = _board(fen)
    for rating in (*ratings, *([] if opponent is None else [opponent])):
        if not 0 < rating < 10_000:
            raise SaeflowError(f"chess: {rating} is no rating; give one such as 1500")
    boards = read_fens([board.fen()])
    tokens = model.embed(encode(boards).to(model.device))
    legal = torch.from_numpy(legal_moves(boards))
    rows = []
    for rating in ratings:
        other = rating if opponent is None else opponent
        own_bin, against = torch.from_numpy(rating_bin(np.array([[rating], [other]]))).long()
        said = model.judge(tokens, own_bin.to(model.device), against.to(model.device))
        shares = mask_illegal(said.moves.cpu(), legal)[0].double().softmax(dim=0)
        score = float((said.value[0].clamp(-1, 1) + 1) / 2)
        order = shares.argsort(descending=True, stable=True)[: int(legal.sum())].tolist()
        for place, index in enumerate(order, 1):
            uci = MOVES[index] if board.turn else mirrored_move(MOVES[index])
            san = board.san(chess.Move.from_uci(uci))
            share = float(shares[index])
            rows.append((rating, other, RATING_BINS[int(own_bin)], place, uci, san, share, score))
    return pl.DataFrame(rows, schema=PREDICTIONS, orient="row")


def _board(fen: str) -> chess.Board:
    try:
        board = chess.Board(START if fen == "start" else fen)
    except ValueError as error:
        raise SaeflowError(f"chess: '{fen}' is no position ({error}); correct --fen") from None
    if board.chess960 or board.has_chess960_castling_rights():
        raise SaeflowError(f"chess: '{fen}' castles as Chess960 does, which the model never saw")
    if problem := board.status() & ~(
        chess.STATUS_BAD_CASTLING_RIGHTS | chess.STATUS_INVALID_EP_SQUARE
    ):
        what = str(chess.Status(problem).name).lower().replace("_", " ").replace("|", ", ")
        raise SaeflowError(f"chess: '{fen}' is no position of a game ({what}); correct --fen")
    if not any(board.legal_moves):
        raise SaeflowError(f"chess: the game is over in '{fen}'; give a position before its end")
    return board
