"""Positions that are solved from some rating upwards: wrong below a bin, right at it and at all
above.

Source: the transitional positions of CSSLab's maia2-sae.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int64
from scipy import special

from saeflow.chess.analyses.transitions.settings import Transitions
from saeflow.chess.games.boards import write_fens
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import MOVES
from saeflow.chess.saes.reading import correct_moves, embed_boards, judged
from saeflow.chess.saes.site import SkillModel
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

ALWAYS, NEVER, TRANSITION, IRREGULAR = "always", "never", "transition", "irregular"
TRANSITIONS: Schema = {
    "row": pl.Int64,
    "fen": pl.String,
    "right": pl.String,
    "kind": pl.String,
    "transition": pl.Int8,
    "by_chance": pl.Float64,
    "monotone": pl.Boolean,
    "weakest_choice": pl.String,
    "right_weakest": pl.Float64,
    "right_strongest": pl.Float64,
}


class Points(NamedTuple):
    """How being right goes with the rating, position by position.

    Attributes:
        kind: `ALWAYS` right, `NEVER`, right from a `TRANSITION` upwards, or `IRREGULAR`.
        at: the first bin of a transition, -1 where there is none.
        by_chance: of the orders of as many right bins that agree with the strongest, the share that
            are transitions.
    """

    kind: np.ndarray
    at: Int64[np.ndarray, " n"]
    by_chance: Float64[np.ndarray, " n"]


def transition_points(right: Bool[np.ndarray, "ratings n"]) -> Points:
    """Tell transitions from what is always, never, or now and then right.

    The strongest bin is no part of what chance is asked about: it may be right by definition, and a
    transition needs it right in any case. So k right bins of n, the strongest among them, can come
    in C(n - 1, k - 1) orders, one of which is a transition; where it is wrong none is.
    """
    count, n_ratings = right.sum(axis=0), len(right)
    first = right.argmax(axis=0)
    mixed = (count > 0) & (count < n_ratings)
    upwards = mixed & (count == n_ratings - first)
    kind = np.select(
        [count == n_ratings, count == 0, upwards], [ALWAYS, NEVER, TRANSITION], IRREGULAR
    )
    orders = special.comb(n_ratings - 1, count - 1)
    by_chance = np.where(mixed & right[-1], 1 / np.maximum(orders, 1), 0.0)
    return Points(kind, np.where(upwards, first, -1), by_chance)


def transitions(
    model: SkillModel,
    examples: Examples,
    best: Int64[np.ndarray, " n"] | None,
    settings: Transitions,
    seed: int,
) -> pl.DataFrame:
    """Judge positions at every rating and say from which on they are solved.

    Args:
        model: of moves.
        examples: the positions of a split.
        best: an engine's move in every position, -1 where it was not asked; None without an engine.
        settings: of the stage.
        seed: of the study.

    Returns:
        The columns of `TRANSITIONS`; positions whose right move is not known are left out.
        ``monotone`` tells whether the probability of the right move never falls as the rating
        rises.
    """
    asked = (
        np.flatnonzero(best >= 0)
        if settings.correct == "best" and best is not None
        else np.arange(len(examples.games))
    )
    rows = np.sort(
        numpy_generator(seed, "chess transitions").permutation(asked)[: settings.positions]
    )
    boards = examples.boards.part(rows)
    batches = embed_boards(model, boards)
    right = correct_moves(
        settings.correct, rows, model, batches, examples.moves.astype(np.int64), best
    )
    chosen = np.zeros((model.n_bins, len(rows)), np.int64)
    probability = np.zeros(chosen.shape)
    with torch.no_grad():
        for batch in batches:
            index = torch.from_numpy(np.maximum(right[batch.rows], 0))[:, None]
            for rating in range(model.n_bins):
                said = judged(model, batch, rating)
                chosen[rating, batch.rows] = said.choice.cpu().numpy()
                probability[rating, batch.rows] = (
                    said.log_probs.exp().cpu().gather(1, index)[:, 0].numpy()
                )
    points = transition_points(chosen == right)
    table = pl.DataFrame(
        {
            "row": rows,
            "fen": write_fens(boards),
            "right": [MOVES[move] for move in right],
            "kind": points.kind,
            "transition": [None if at < 0 else int(at) for at in points.at],
            "by_chance": points.by_chance,
            "monotone": (np.diff(probability, axis=0) >= 0).all(axis=0),
            "weakest_choice": [MOVES[move] for move in chosen[0]],
            "right_weakest": probability[0],
            "right_strongest": probability[-1],
        },
        schema=TRANSITIONS,
    )
    return table.filter(pl.Series(right >= 0))
