"""Boards as the numbers that a chess model reads, and its logits over legal moves only."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeflow.chess.games import moves
from saeflow.chess.games.boards import Boards, bits
from saeflow.chess.games.examples import Examples
from saeflow.errors import SaeflowError

PLANES = (
    18  # 12 of pieces, whose turn it is, 4 rights to castle, the square behind a pawn's double step
)


def encode(boards: Boards) -> Float[Tensor, "n 18 8 8"]:
    """Boards as Maia-2 reads them: one plane of zeros and ones per kind of piece and per right,
    ranks from White's.

    Source: Tang et al. 2024 (arXiv 2409.20553), section 3.1.
    """
    planes = np.zeros((len(boards), PLANES, 64), np.float32)
    planes[:, :12] = bits(boards.pieces.reshape(-1)).reshape(-1, 12, 64)
    planes[:, 12] = 1
    planes[:, 13:17] = boards.castling[:, :, None]
    passing = np.flatnonzero(boards.en_passant >= 0)
    planes[passing, 17, boards.en_passant[passing]] = 1
    return torch.from_numpy(planes).view(-1, PLANES, 8, 8)


def model_inputs(
    examples: Examples, device: torch.device
) -> tuple[Float[Tensor, "n 18 8 8"], Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Planes and both players' rating bins, as `Maia2` is asked, on a device."""
    own, other = (
        torch.from_numpy(bins).long().to(device)
        for bins in (examples.rating_self, examples.rating_oppo)
    )
    return encode(examples.boards).to(device), own, other


def legal_mask(boards: Boards) -> Bool[Tensor, "n 1880"]:
    """Which of Maia-2's moves are legal on each board."""
    return torch.from_numpy(moves.legal_moves(boards))


def mask_illegal(
    logits: Float[Tensor, "n 1880"], legal: Bool[Tensor, "n 1880"]
) -> Float[Tensor, "n 1880"]:
    """Logits with −∞ for every illegal move, so that none is ever chosen or given probability.

    Raises:
        SaeflowError: a board has no legal move: the game is over there.
    """
    if not bool(legal.any(dim=1).all()):
        row = int((~legal.any(dim=1)).nonzero()[0])
        raise SaeflowError(
            f"chess: position {row} has no legal move, the game is over; leave it out"
        )
    return logits.masked_fill(~legal.to(logits.device), -torch.inf)
