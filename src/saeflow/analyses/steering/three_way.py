"""The second protocol: concept, instruction and fluency, 0 to 2 each, and their harmonic mean per
completion.

Source: AxBench (arXiv 2501.17148). A text without the concept, off its opening, or unreadable
scores 0 as a whole, where a product of means would let other texts make up for it.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from jaxtyping import Float

from saeflow.analyses.steering.pairs import SPLITS, PairedScores, on_grid
from saeflow.analyses.steering.resampling import means
from saeflow.analyses.steering.settings import Summary
from saeflow.judging.verdicts import THREE_WAY
from saeflow.statistics.means import interval, mean_draws

HIGHEST = 2.0
MEASURES = (*THREE_WAY, "overall")
THREE_WAY_SCHEMA: dict[str, type[pl.DataType]] = {
    "goal": pl.String, "method": pl.String, "scale": pl.Float64, "scale_index": pl.Int64,
    "split": pl.String,
    **{f"{measure}{end}": pl.Float64 for measure in MEASURES for end in ("", "_low", "_high")},
    "n": pl.Int64, "missing": pl.Int64, "selected": pl.Boolean,
}  # fmt: skip


def harmonic_mean(
    ratings: Float[np.ndarray, "aspects groups samples"],
) -> Float[np.ndarray, "groups samples"]:
    """The harmonic mean over the first axis: 0 where a rating is 0, NaN where one is missing."""
    with np.errstate(divide="ignore"):
        return len(ratings) / (1 / ratings).sum(axis=0)


def three_way(
    paired: PairedScores,
    completions: pl.DataFrame,
    scores: pl.DataFrame,
    weights: dict[str, Float[np.ndarray, "draws samples_and_unseen"]],
    settings: Summary,
) -> pl.DataFrame:
    """Every group's mean ratings with intervals; a completion counts only with all three.

    The scale is chosen by the overall rating on one half of the samples, the same as for the
    product, and is to be read on the other.

    Args:
        weights: random weights of the samples of each split.

    Returns:
        The columns of `THREE_WAY_SCHEMA`; no rows where the protocol was not asked for.
    """
    asked = scores.filter(pl.col("criterion").is_in(THREE_WAY))
    if asked.is_empty():
        return pl.DataFrame(schema=THREE_WAY_SCHEMA)
    ratings = HIGHEST * np.stack(
        [
            on_grid(
                paired,
                completions,
                asked.filter(criterion=name).select("completion_id", value="score"),
            )
            for name in THREE_WAY
        ]
    )
    overall = harmonic_mean(ratings)
    grids = dict(
        zip(MEASURES, [*np.where(np.isnan(overall), np.nan, ratings), overall], strict=True)
    )
    tables = {
        split: _estimates(paired, grids, split, weights[split], settings.level) for split in SPLITS
    }
    scored = [
        pl.Series(table["n"] >= settings.least_scored * (table["n"] + table["missing"]))
        for table in tables.values()
    ]
    chosen = (
        tables["selection"]
        .with_row_index("group")
        .filter(pl.all_horizontal(pl.Series(paired.candidates), *scored[1:]))
        .drop_nulls("overall")
        .sort("overall", pl.col("scale").abs(), "scale_index", descending=[True, False, False])
        .unique(["goal", "method"], keep="first")["group"]
    )
    selected = pl.Series(np.isin(np.arange(len(paired.groups)), chosen.to_numpy()))
    together = pl.concat(
        table.with_columns(selected=selected).with_row_index("group") for table in tables.values()
    )
    return together.sort("group", pl.col("split").cast(pl.Enum(SPLITS))).drop("group")


def _estimates(
    paired: PairedScores,
    grids: dict[str, Float[np.ndarray, "groups samples"]],
    split: str,
    weights: Float[np.ndarray, "draws samples_and_unseen"],
    level: float,
) -> pl.DataFrame:
    columns = paired.columns(split)
    n = (~np.isnan(grids["overall"][:, columns])).sum(axis=1)
    table = {"n": n, "missing": paired.present[:, columns].sum(axis=1) - n}
    for measure, grid in grids.items():
        own = grid[:, columns]
        low, high = interval(mean_draws(own / HIGHEST, weights, paired.unseen_of), level)
        table |= {
            measure: means(own, own).behaviour,
            f"{measure}_low": HIGHEST * low,
            f"{measure}_high": HIGHEST * high,
        }
    return pl.concat(
        [paired.groups, pl.DataFrame(table).fill_nan(None)], how="horizontal"
    ).with_columns(split=pl.lit(split))
