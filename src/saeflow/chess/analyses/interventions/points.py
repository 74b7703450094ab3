"""From which rating on the right move is found, before an edit and under it.

The published transition points are of the model as it is; here the same positions are asked again
while each rating's own edit is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64

from saeflow.chess.analyses.concepts.cases import Cases
from saeflow.chess.analyses.transitions.transitions import ALWAYS, transition_points
from saeflow.chess.games.boards import write_fens
from saeflow.chess.games.moves import MOVES
from saeflow.chess.knowledge.concepts import Concept
from saeflow.statistics.clusters import SHARE, Resampling, columns
from saeflow.tables import Schema

NOWHERE = -1
TRANSITIONS: Schema = {
    "group": pl.String,
    "kind": pl.String,
    "draw": pl.Int16,
    "case": pl.Int32,
    "position": pl.Int64,
    "concept": pl.String,
    "fen": pl.String,
    "right": pl.String,
    "before_kind": pl.String,
    "before": pl.Int8,
    "after_kind": pl.String,
    "after": pl.Int8,
}
SHIFTS: Schema = {
    "group": pl.String,
    "kind": pl.String,
    "n": pl.Int64,
    "n_games": pl.Int64,
    **{
        f"{name}{end}": pl.Float64
        for name in ("earlier", "later", "solved_before", "solved_after")
        for end in ("", "_low", "_high")
    },
}


class Found(NamedTuple):
    """From which rating on the right move is the model's choice.

    Attributes:
        kind: as `transitions.transition_points` tells it of the ratings that were told.
        at: the rating bin from which on it is always chosen; `NOWHERE` where the strongest that was
            told misses it, or one between.
    """

    kind: np.ndarray
    at: Int64[np.ndarray, " n"]


def found_from(right: Bool[np.ndarray, "ratings n"], ratings: Sequence[int]) -> Found:
    """From which of the ratings on the right move is chosen.

    Args:
        right: whether it is, the weakest rating first.
        ratings: their bins, rising.
    """
    points = transition_points(right)
    first = np.where(points.kind == ALWAYS, 0, points.at)
    return Found(points.kind, np.where(first >= 0, np.array(ratings)[first], NOWHERE))


def edited_points(
    group: str,
    cases: Cases,
    right: Int64[np.ndarray, " n"],
    concepts: Sequence[Concept],
    before: Found,
    after: Mapping[tuple[str, int], Found],
) -> pl.DataFrame:
    """One row per edit and position.

    Args:
        group: of concepts.
        cases: the positions that need them.
        right: the right move of each.
        concepts: all of the study.
        before: of the model as it is.
        after: by kind of edit and draw.

    Returns:
        The columns of `TRANSITIONS`; ``before`` and ``after`` are null where the right move is
        found from no rating on.
    """
    case_rows = pl.DataFrame(
        {
            "case": np.arange(len(cases), dtype=np.int32),
            "position": cases.positions,
            "concept": [concepts[index].name for index in cases.concepts],
            "fen": write_fens(cases.boards),
            "right": [MOVES[move] for move in right],
            "before_kind": before.kind,
            "before": before.at,
        }
    )
    parts = [
        case_rows.with_columns(
            group=pl.lit(group),
            kind=pl.lit(kind),
            draw=pl.lit(draw),
            after_kind=pl.Series(points.kind),
            after=pl.Series(points.at),
        )
        for (kind, draw), points in after.items()
    ]
    rating = pl.col("before", "after")
    return (
        pl.concat(parts)
        .with_columns(pl.when(rating != NOWHERE).then(rating))
        .select(pl.col(name).cast(kind) for name, kind in TRANSITIONS.items())
    )


def shifts(
    group: str,
    games: Resampling,
    n_games: int,
    before: Found,
    after: Mapping[tuple[str, int], Found],
) -> list[dict[str, object]]:
    """One row per kind of edit: how many positions are solved from an earlier rating on than
    without it, how many from a later one or none; draws of a control are averaged position by
    position.

    Args:
        group: of concepts.
        games: resamples of the positions' games.
        n_games: how many there are.
        before, after: as in `edited_points`.

    Returns:
        Rows with the columns of `SHIFTS`.
    """
    kinds: dict[str, list[Found]] = {}
    for (kind, _), points in after.items():
        kinds.setdefault(kind, []).append(points)
    never = np.iinfo(np.int64).max
    start = np.where(before.at == NOWHERE, never, before.at)
    rows: list[dict[str, object]] = []
    for kind, draws in kinds.items():
        ends = np.stack([np.where(points.at == NOWHERE, never, points.at) for points in draws])
        numbers = {
            "earlier": ends < start,
            "later": ends > start,
            "solved_before": start[None] < never,
            "solved_after": ends < never,
        }
        row: dict[str, object] = {
            "group": group,
            "kind": kind,
            "n": len(start),
            "n_games": n_games,
        }
        for name, values in numbers.items():
            row |= columns(name, games.mean(values.mean(axis=0), SHARE))
        rows.append(row)
    return rows
