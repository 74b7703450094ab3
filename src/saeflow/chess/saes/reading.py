"""Positions through the model and the SAE, some boards at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

from saeflow.chess.games.boards import Boards
from saeflow.chess.games.moves import legal_moves
from saeflow.chess.saes.site import BOARDS_AT_ONCE, Activations, Edit, SiteSAE, SkillModel
from saeflow.statistics.sparse_latents import SparseLatents

Progress = Callable[[int, int], None]


class Look(NamedTuple):
    """Some positions as the model has looked at them, ready to be judged at any rating.

    Attributes:
        rows: which positions.
        looked: what the model made of them.
        legal: their legal moves.
    """

    rows: slice
    looked: Tensor
    legal: Bool[Tensor, "rows moves"]


def looks(model: SkillModel, boards: Boards) -> list[Look]:
    """Look at all positions once; what does not depend on ratings is not computed again."""
    found = []
    for start in range(0, len(boards), BOARDS_AT_ONCE):
        part = slice(start, min(start + BOARDS_AT_ONCE, len(boards)))
        looked = model.look(boards.part(part))
        legal = torch.from_numpy(legal_moves(boards.part(part))).to(looked.device)
        found.append(Look(part, looked, legal))
    return found


class Judged(NamedTuple):
    """What the model says of some positions.

    Attributes:
        logits: raw, of all moves.
        log_probs: over legal moves; minus infinity for the others.
    """

    logits: Float[Tensor, "rows moves"]
    log_probs: Float[Tensor, "rows moves"]

    @property
    def choice(self) -> Int[Tensor, " rows"]:
        """The most probable legal move."""
        return self.log_probs.argmax(dim=1)


def judged(
    model: SkillModel, look: Look, ratings: Int[Tensor, " rows"], edit: Edit = lambda x: x
) -> Judged:
    """Ask the model for its move at the ratings, with the activations at its site edited."""
    logits = model.judge(look.looked, ratings, edit)
    return Judged(logits, logits.double().masked_fill(~look.legal, -torch.inf).log_softmax(dim=1))


def at_bin(look: Look, rating: int) -> Int[Tensor, " rows"]:
    """One rating bin for all positions of a look."""
    return torch.full((len(look.looked),), rating, dtype=torch.long)


def activations_of(
    model: SkillModel, boards: Boards, ratings: Int64[np.ndarray, " n"]
) -> Iterator[Activations]:
    """The activations at the site, some boards at a time, in their order; every position at its own
    rating."""
    for start in range(0, len(boards), BOARDS_AT_ONCE):
        part = slice(start, start + BOARDS_AT_ONCE)
        seen: list[Tensor] = []

        def keep(activations: Activations, seen: list[Tensor] = seen) -> Activations:
            seen.append(activations)
            return activations

        model.judge(model.look(boards.part(part)), torch.from_numpy(ratings[part]).long(), keep)
        yield seen[0]


class Read(NamedTuple):
    """What a site holds of positions.

    Attributes:
        latents: of the SAE.
        activations: mean over the tokens.
    """

    latents: SparseLatents
    activations: Float32[np.ndarray, "n d_model"]


@torch.no_grad()
def read_site(
    model: SkillModel,
    sae: SiteSAE,
    boards: Boards,
    ratings: Int64[np.ndarray, " n"],
    progress: Progress | None = None,
) -> Read:
    """Latents and mean activations of positions, each at its own rating, from one forward pass.

    Args:
        model: with the site.
        sae: of the site.
        boards: ``[n]``.
        ratings: the bin that both players are said to be of.
        progress: is told how many of how many positions are read.
    """
    means: list[np.ndarray] = []

    def latents() -> Iterator[Tensor]:
        for activations in activations_of(model, boards, ratings):
            means.append(activations.mean(dim=1).float().cpu().numpy())
            yield sae.latents(activations)
            if progress:
                progress(sum(map(len, means)), len(boards))

    found = SparseLatents.of(latents())
    return Read(found, np.concatenate(means))
