"""Positions to look at: where the latents that tell concepts best are most active."""

from __future__ import annotations

import numpy as np
import polars as pl

from saeflow.chess.analyses.concepts.labelling import Labelled
from saeflow.chess.games.boards import write_fens
from saeflow.chess.games.examples import Examples
from saeflow.chess.games.moves import MOVES
from saeflow.statistics.sparse_latents import SparseLatents
from saeflow.tables import Schema

CONCEPTS_SHOWN = 3
"""Of each family, the concepts whose latents did best on the games that choose."""
BOARDS_SHOWN = 4
"""Of each of these concepts, from as many games."""
BOARDS: Schema = {
    "concept": pl.String,
    "family": pl.String,
    "square": pl.Int8,
    "latent": pl.Int32,
    "place": pl.Int16,  # from 0, by falling activation
    "fen": pl.String,
    "move": pl.String,
    "rating": pl.Int8,  # bin of the player
    "activation": pl.Float64,
    "holds": pl.Boolean,  # whether the position has the concept
}


def example_boards(
    latents: SparseLatents, examples: Examples, labelled: Labelled, associations: pl.DataFrame
) -> pl.DataFrame:
    """Held-out positions in which the best latents of the best concepts of each family are most
    active.

    None is picked by what it shows: concepts are taken by their area on the games that choose,
    positions by the latent's activation, one of a game; so a position may well lack the concept.

    Args:
        latents: of the positions.
        examples: the positions.
        labelled: their halves and concepts.
        associations: as `association.ASSOCIATIONS` has them.

    Returns:
        The columns of `BOARDS`, positions of a concept by falling activation.
    """
    first = associations.filter((pl.col("direction") == 1) & (pl.col("rank") == 0))
    ordered = first.sort("auc_selection", descending=True, nulls_last=True, maintain_order=True)
    families = associations["family"].unique(maintain_order=True)
    best = pl.concat(
        [first.clear(), *(ordered.filter(family=name).head(CONCEPTS_SHOWN) for name in families)]
    )
    column = {concept.name: index for index, concept in enumerate(labelled.labels.concepts)}
    rows: list[dict[str, object]] = []
    for name, family, square, latent in best.select(
        "concept", "family", "square", "latent"
    ).iter_rows():
        shown, values = _most_active(latents, labelled, latent)
        part = examples.part(shown)
        holds = labelled.labels.values[shown, column[name]]
        positions = zip(
            write_fens(part.boards), part.moves, part.rating_self, values, holds, strict=True
        )
        rows += [
            {
                "concept": name, "family": family, "square": square, "latent": latent,
                "place": place, "fen": fen,
                "move": MOVES[move], "rating": rating, "activation": value, "holds": held,
            }
            for place, (fen, move, rating, value, held) in enumerate(positions)
        ]  # fmt: skip
    return pl.DataFrame(rows, schema=BOARDS)


def _most_active(
    latents: SparseLatents, labelled: Labelled, latent: int
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out positions of different games where a latent is most active, and its values there."""
    rows, values = latents.of_latent(latent)
    kept = labelled.held_out[rows] & (values > 0)
    rows, values = rows[kept].astype(np.int64), values[kept]
    order = np.lexsort((rows, -values))
    rows, values = rows[order], values[order]
    firsts = np.sort(np.unique(labelled.games[rows], return_index=True)[1])[:BOARDS_SHOWN]
    return rows[firsts], values[firsts]
