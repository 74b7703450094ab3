"""All labels of an SAE beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from saeflow.tables import Schema

TABLE: Schema = {
    "sae": pl.String,
    "latent": pl.Int32,
    "source": pl.String,
    "text": pl.String,
    "doubtful": pl.Boolean,
    "provenance": pl.String,
}


def label_table(sae: str, labels: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Labels of all sources, latent by latent, in the order of the sources.

    Args:
        sae: whose latents they are of.
        labels: one table per source.

    Returns:
        The columns of `TABLE`. A label without a score beyond its baseline is doubtful.
    """
    every = pl.concat(labels).with_columns(sae=pl.lit(sae), doubtful=pl.lit(True))
    return every.select(pl.col(name).cast(kind) for name, kind in TABLE.items()).sort(
        "latent", maintain_order=True
    )
