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
from saeflow.errors import SaeflowError
from saeflow.statistics.sparse_latents import SparseLatents

Progress = Callable[[int, int], None]


class Embedded(NamedTuple):
    """A batch of positions as the model knows them before it hears of ratings.

    Attributes:
        rows: which positions.
        embedded: what the model made of them.
        legal: their legal moves.
    """

    rows: slice
    embedded: Tensor
    legal: Bool[Tensor, "rows moves"]


def embed_boards(model: SkillModel, boards: Boards) -> list[Embedded]:
    """Embedded at all positions once; what does not depend on ratings is not computed again."""
    batches = []
    for start in range(0, len(boards), BOARDS_AT_ONCE):
        part = slice(start, min(start + BOARDS_AT_ONCE, len(boards)))
        embedded = model.embed(boards.part(part))
        legal = torch.from_numpy(legal_moves(boards.part(part))).to(embedded.device)
        batches.append(Embedded(part, embedded, legal))
    return batches


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


def judged(model: SkillModel, batch: Embedded, rating: int, edit: Edit = lambda x: x) -> Judged:
    """Ask the model for its moves, told one rating bin, with the activations at its site edited."""
    ratings = torch.full((len(batch.embedded),), rating, dtype=torch.long)
    logits = model.judge(batch.embedded, ratings, edit)
    return Judged(logits, logits.double().masked_fill(~batch.legal, -torch.inf).log_softmax(dim=1))


def correct_moves(
    kind: str,
    positions: Int64[np.ndarray, " cases"],
    model: SkillModel,
    batches: list[Embedded],
    played: Int64[np.ndarray, " n"],
    best: Int64[np.ndarray, " n"] | None,
) -> Int64[np.ndarray, " cases"]:
    """The move that counts as right in each case; -1 where it is not known.

    Args:
        kind: ``played``, ``strongest`` or ``best``.
        positions: the position of each case, its place among all.
        model: told the strongest rating, where that is asked for.
        batches: the positions of the cases, from `embed_boards`.
        played: the move played in every position.
        best: an engine's move in every position, -1 where it was not asked.

    Raises:
        SaeflowError: an engine's moves are wanted, and there are none.
    """
    if kind == "played":
        return played[positions]
    if kind == "best":
        if best is None:
            raise SaeflowError(
                "chess: correct: best wants an engine's moves, and the positions have none; name "
                "another"
            )
        return best[positions]
    if not batches:
        return np.zeros(0, np.int64)
    choices = [judged(model, batch, model.n_bins - 1).choice for batch in batches]
    return torch.cat(choices).cpu().numpy()


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

        model.judge(model.embed(boards.part(part)), torch.from_numpy(ratings[part]).long(), keep)
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

    sparse = SparseLatents.of(latents())  # read to its end before the means are put together
    return Read(sparse, np.concatenate(means))
