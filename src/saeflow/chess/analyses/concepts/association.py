"""Which latents tell which concepts: chosen on some games, measured on others, beside what chance
would find."""

from __future__ import annotations

from itertools import repeat
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64, Int64

from saeflow.chess.analyses.concepts.held_out import HeldOut
from saeflow.chess.analyses.concepts.labelling import Labelled
from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.chess.knowledge.concepts import Concept
from saeflow.seeds import numpy_generator
from saeflow.statistics.false_discovery import q_values
from saeflow.statistics.sparse_areas import SparseLabels, areas
from saeflow.statistics.sparse_latents import SparseLatents
from saeflow.tables import Schema

CONCEPTS: Schema = {
    "concept": pl.String,
    "family": pl.String,
    "square": pl.Int8,
    "positives": pl.Int64,
    "negatives": pl.Int64,
    "held_out_positives": pl.Int64,
    "held_out_negatives": pl.Int64,
    "held_out_games": pl.Int64,
    "held_out_games_without": pl.Int64,
    "skipped": pl.String,
    "untested": pl.String,
}
ASSOCIATIONS: Schema = {
    "concept": pl.String,
    "family": pl.String,
    "square": pl.Int8,
    "direction": pl.Int8,
    "rank": pl.Int16,
    "latent": pl.Int32,
    "density": pl.Float64,
    "auc_selection": pl.Float64,
    "auc": pl.Float64,
    "auc_low": pl.Float64,
    "auc_high": pl.Float64,
    "auc_chance": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "untested": pl.String,
    "null_mean": pl.Float64,
    "null_largest": pl.Float64,
    "null_p": pl.Float64,
}


def census(labelled: Labelled, settings: Concepts) -> pl.DataFrame:
    """How often each concept holds in either half, which concepts are skipped, and which are not
    tested.

    Returns:
        The columns of `CONCEPTS`; ``skipped`` is null for concepts that are kept, ``untested`` for
        those of which enough held-out games tell.
    """
    parts, labels = labelled.parts, labelled.labels
    chosen, held = (
        labels.values[parts.selection].sum(axis=0),
        labels.values[parts.held_out].sum(axis=0),
    )
    counts = np.stack([chosen, len(parts.selection) - chosen, held, len(parts.held_out) - held])
    games = HeldOut.of(labelled, settings)
    return pl.DataFrame(
        {
            "concept": [concept.name for concept in labels.concepts],
            "family": [concept.family for concept in labels.concepts],
            "square": [concept.square for concept in labels.concepts],
            "positives": counts[0],
            "negatives": counts[1],
            "held_out_positives": counts[2],
            "held_out_negatives": counts[3],
            "held_out_games": games.having,
            "held_out_games_without": games.lacking,
            "skipped": [
                _reason(*column)
                for column in zip(*counts.tolist(), repeat(settings.minimum), strict=False)
            ],
            "untested": [games.untested(concept) for concept in range(len(labels.concepts))],
        },
        schema=CONCEPTS,
    )


def _reason(
    positives: int, negatives: int, held_positives: int, held_negatives: int, minimum: int
) -> str | None:
    if positives + held_positives == 0:
        return "no position has it"
    if negatives + held_negatives == 0:
        return "every position has it"
    if min(positives, held_positives) < minimum:
        return f"fewer than {minimum} positions of a half have it"
    if min(negatives, held_negatives) < minimum:
        return f"fewer than {minimum} positions of a half lack it"
    return None


def associate(
    latents: SparseLatents, labelled: Labelled, settings: Concepts, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The latents that tell each concept best, in either direction.

    Per concept and direction the latents with the largest area on the half that chooses are kept;
    their area on the held-out half, its interval, its p-value and what chance gives there owe
    nothing to the choice. The null of the choice (``null_…``) is the largest area that it finds on
    its own half when labels and positions are out of step: the labels, in the order of their games,
    are rotated against the positions, which keeps all that positions of a game have in common.

    Args:
        latents: of the positions.
        labelled: the positions, their halves and concepts.
        settings: of the stage.
        seed: of the study.

    Returns:
        A table with the columns of `CONCEPTS`, one row per concept, and one with those of
        `ASSOCIATIONS`.
    """
    parts, labels = labelled.parts, labelled.labels
    table = census(labelled, settings)
    kept = np.flatnonzero(table["skipped"].is_null().to_numpy())
    if not len(kept):
        return table, pl.DataFrame(schema=ASSOCIATIONS)
    chosen = latents.part(parts.selection)
    sparse_labels = SparseLabels.of(labels.values[parts.selection][:, kept])
    eligible = chosen.active >= settings.minimum
    best = _best(chosen, sparse_labels, eligible, settings.latents)
    offsets = _offsets(labelled.games[parts.selection], settings.rotations, seed)
    null = np.stack(
        [_best(chosen, sparse_labels.rotated(by), eligible, 1).area[:, 0] for by in offsets]
    )
    rows = _rows(best, null, kept, labels.concepts)
    return table, _measured(
        rows, latents.part(parts.held_out), HeldOut.of(labelled, settings), settings, seed
    )


class Best(NamedTuple):
    """The latents with the largest areas per concept, best first; -1 where there are fewer.

    Attributes:
        latent: ``[2, kept, concepts]``, first for areas above one half, then for those below.
        area: 1/2 + how far the area is from 1/2 in that direction.
    """

    latent: Int64[np.ndarray, "2 kept concepts"]
    area: Float64[np.ndarray, "2 kept concepts"]


def _best(
    latents: SparseLatents, labels: SparseLabels, eligible: Bool[np.ndarray, " d_sae"], most: int
) -> Best:
    n_concepts = len(labels.positives)
    best = Best(np.full((2, most, n_concepts), -1), np.full((2, most, n_concepts), -np.inf))
    for part, area in areas(latents, labels):
        index = np.arange(part.start, part.stop)[:, None]
        usable = eligible[part][:, None]
        for side, far in enumerate((area, 1 - area)):
            every = np.concatenate([best.area[side], np.where(usable, far, -np.inf)])
            owner = np.concatenate([best.latent[side], np.broadcast_to(index, far.shape)])
            first = np.argsort(-every, axis=0, kind="stable")[:most]  # ties go to the first latent
            best.area[side], best.latent[side] = (
                np.take_along_axis(of, first, axis=0) for of in (every, owner)
            )
    best.latent[np.isneginf(best.area)] = -1
    return best


def _offsets(games: Int64[np.ndarray, " n"], rotations: int, seed: int) -> list[int]:
    """By how many positions labels are put out of step: at least a game, where there are enough."""
    generator, n = numpy_generator(seed, "chess rotations"), len(games)
    longest = int(np.unique(games, return_counts=True)[1].max())
    low, high = (longest, n - longest + 1) if n > 2 * longest else (1, max(2, n))
    offsets: list[int] = generator.integers(low, high, size=rotations).tolist()
    return offsets


def _rows(
    best: Best,
    null: Float64[np.ndarray, "rotations 2 concepts"],
    kept: Int64[np.ndarray, " concepts"],
    concepts: list[Concept],
) -> pl.DataFrame:
    """The chosen latents concept by concept; ``index`` is the concept's place among all."""
    side, rank, concept = np.nonzero(best.latent >= 0)
    drawn, area = null[:, side, concept], best.area[side, rank, concept]
    order = np.lexsort((rank, side, concept))
    owners = [concepts[index] for index in kept[concept]]
    return pl.DataFrame(
        {
            "index": kept[concept],
            "concept": [owner.name for owner in owners],
            "family": [owner.family for owner in owners],
            "square": [owner.square for owner in owners],
            "direction": 1 - 2 * side,
            "rank": rank,
            "latent": best.latent[side, rank, concept],
            "auc_selection": np.where(side == 0, area, 1 - area),
            "null_mean": drawn.mean(axis=0),
            "null_largest": drawn.max(axis=0),
            "null_p": (1 + (drawn >= area).sum(axis=0)) / (1 + len(null)),
        }
    )[order]


def _measured(
    rows: pl.DataFrame, latents: SparseLatents, held_out: HeldOut, settings: Concepts, seed: int
) -> pl.DataFrame:
    """The rows with what the held-out half says of them."""
    rotations = held_out.rotations(seed)
    measured = [
        area
        for (index,), mine in rows.group_by("index", maintain_order=True)
        for area in held_out.measured(int(index), mine["latent"].to_list(), latents, rotations)
    ]
    untested = [held_out.untested(index) for index in rows["index"]]
    tested = np.array([reason is None for reason in untested])
    p = np.array([area.p for area in measured])
    chance = np.where(
        rows["direction"].to_numpy() > 0,
        [area.chance_high for area in measured],
        [area.chance_low for area in measured],
    )
    q = np.ones(len(p))  # nothing is claimed of what is not tested
    q[tested] = q_values(p[tested], settings.correction)
    return rows.with_columns(
        density=pl.Series(latents.active[rows["latent"].to_numpy()] / latents.n),
        auc=pl.Series([area.auc for area in measured], dtype=pl.Float64),
        auc_low=pl.Series([area.low for area in measured], dtype=pl.Float64),
        auc_high=pl.Series([area.high for area in measured], dtype=pl.Float64),
        auc_chance=pl.Series(chance, dtype=pl.Float64).fill_nan(None),
        p=pl.Series(p),
        q=pl.Series(q),
        untested=pl.Series(untested, dtype=pl.String),
    ).select(pl.col(name).cast(kind) for name, kind in ASSOCIATIONS.items())
