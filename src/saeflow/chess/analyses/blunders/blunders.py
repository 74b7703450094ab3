"""Positions in which a player, or the model of a weak one, chose a move that loses much.

They come from two places: the moves that were played, and the choices of the weakest rating where a
stronger one is right (the published set).

Source: the blundered transitional positions of CSSLab's maia2-sae.
"""

from __future__ import annotations

import polars as pl

from saeflow.chess.analyses.engine.engine import ENGINE
from saeflow.tables import Schema

PLAYED, CHOSEN = "played", "transition"
BLUNDERS: Schema = {"source": pl.String, **ENGINE}


def blunder_set(played: pl.DataFrame, chosen: pl.DataFrame, least: float) -> pl.DataFrame:
    """Which moves are blunders.

    Args:
        played: the columns of `ENGINE`, of moves that were played.
        chosen: the same, of the weakest rating's choices.
        least: pawns that a blunder loses.

    Returns:
        The columns of `BLUNDERS`, those that were `PLAYED` first; a position may stand there with
        either.
    """
    parts = [
        table.select(pl.lit(source).alias("source"), *ENGINE)
        for source, table in ((PLAYED, played), (CHOSEN, chosen))
    ]
    return pl.concat(parts).filter(pl.col("loss") >= least, pl.col("best").is_not_null())
