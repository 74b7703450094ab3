"""What sparse probes rest on: the latents that they choose, and what else might explain these."""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float64
from scipy import stats

from saeflow.analyses.probing.nested import areas
from saeflow.analyses.probing.rows import SURFACE, surface_columns
from saeflow.analyses.probing.settings import Fitting
from saeflow.analyses.probing.sparse_columns import (
    Latents,
    columns,
    scaled_differences,
    strongest,
)
from saeflow.corpora.labelled import LabelledSet, split_by_group
from saeflow.tables import Schema

MOST = 16
"""Latents per SAE and class, by how much they differ between the classes."""
SINGLE_TOKEN, SURFACE_CORRELATION, FEWEST = 0.8, 0.5, 8
"""From which share of its firings on behind one token, and from which rank correlation with the
surface of a text on a latent is suspicious; and in how many rows it must fire for that."""
BASIS: Schema = {
    "set": pl.String,
    "sae": pl.String,
    "class": pl.String,
    "rank": pl.Int32,
    "latent": pl.Int32,
    "seeds": pl.Int32,
    "difference": pl.Float64,
    "auc": pl.Float64,
    "active": pl.Float64,
    "active_other": pl.Float64,
    "token": pl.String,
    "token_share": pl.Float64,
    "surface": pl.String,
    "correlation": pl.Float64,
    "suspicious": pl.String,
}
"""`seeds` is among the first `MOST` of how many splits a latent is; `active` the share of the
class's rows, `active_other` of all others, in which it fires."""


def basis(
    texts: LabelledSet, table: pl.DataFrame, latents: Latents, sae: str, fitting: Fitting, seed: int
) -> pl.DataFrame:
    """The latents that tell a class, over all splits.

    Args:
        texts: rows of the set.
        table: `rows.ROWS` of the same rows.
        latents: of the same rows.
        sae: name of the SAE.
        fitting: how splits are drawn.
        seed: of the study.

    Returns:
        `BASIS`.
    """
    labels = [1] if len(texts.classes) == 2 else range(len(texts.classes))
    return pl.concat(
        [_of_class(texts, table, latents, sae, label, fitting, seed) for label in labels]
    )


def _of_class(
    texts: LabelledSet,
    table: pl.DataFrame,
    latents: Latents,
    sae: str,
    label: int,
    fitting: Fitting,
    seed: int,
) -> pl.DataFrame:
    y = texts.targets == label
    seeds: dict[int, list[float]] = {}
    for draw in range(fitting.seeds):
        split = split_by_group(texts, fitting.test, seed, draw)
        train, held = latents[split.train], latents[split.test]
        which = strongest(train, y[split.train], MOST)
        alone = areas(columns(held, which)[:, :, None], y[split.test])[:, 0]
        for latent, area in zip(which.tolist(), alone.tolist(), strict=True):
            seeds.setdefault(latent, []).append(area)
    apart = scaled_differences(latents, y)
    chosen = sorted(seeds, key=lambda latent: (-len(seeds[latent]), -abs(apart[latent])))[:MOST]
    surface = stats.rankdata(surface_columns(table), axis=0)
    last, said = table["last_token"].to_numpy(), table["last_text"].to_list()
    rows = []
    dense = columns(latents, np.array(chosen, np.int64))
    for rank, latent in enumerate(chosen, start=1):
        values = dense[:, rank - 1]
        fires = np.flatnonzero(values)
        if not len(fires):
            continue
        tokens, counts = np.unique(last[fires], return_counts=True)
        most = int(np.flatnonzero(last == tokens[counts.argmax()])[0])
        share = float(counts.max() / len(fires))
        correlations = _correlations(stats.rankdata(values), surface)
        place = int(np.abs(correlations).argmax())
        rows.append(
            {
                "set": texts.name,
                "sae": sae,
                "class": texts.classes[label],
                "rank": rank,
                "latent": latent,
                "seeds": len(seeds[latent]),
                "difference": float(apart[latent]),
                "auc": float(np.mean(seeds[latent])),
                "active": float((values[y] != 0).mean()),
                "active_other": float((values[~y] != 0).mean()),
                "token": said[most],
                "token_share": share,
                "surface": SURFACE[place],
                "correlation": float(correlations[place]),
                "suspicious": _suspicion(
                    len(fires), share, said[most], SURFACE[place], correlations[place]
                ),
            }
        )
    return pl.DataFrame(rows, schema=BASIS)


def _correlations(
    ranks: Float64[np.ndarray, " n"], surface: Float64[np.ndarray, "n features"]
) -> Float64[np.ndarray, " features"]:
    """Spearman's, 0 with what is the same in all rows."""
    a, b = ranks - ranks.mean(), surface - surface.mean(axis=0)
    size = np.sqrt((a**2).sum() * (b**2).sum(axis=0))
    return np.divide(a @ b, size, out=np.zeros(b.shape[1]), where=size > 0)


def _suspicion(fires: int, share: float, token: str, feature: str, correlation: float) -> str:
    """Why a latent may tell something simpler than the class; nothing where it may not."""
    if fires < FEWEST:
        return ""
    if share >= SINGLE_TOKEN:
        return f"{share:.0%} of its firings are at the token {token!r}"
    if abs(correlation) >= SURFACE_CORRELATION:
        return f"it goes with {feature.replace('_', ' ')} (rank correlation {correlation:+.2f})"
    return ""
