"""What the list of latents is made of: every statistic of every latent, small enough to be there at
once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from saeflow.report.payload import half_floats, integers
from saeflow.report.wording import Statistic

PROMOTED = 4
"""Of a latent's most promoted tokens, so many stand in the list and can be searched."""
CLASSES = ("none", "partition", "suppression", "prediction")


STATISTICS = (
    Statistic("density", "fires on", "share of tokens on which it fires", "share"),
    Statistic("maximum", "maximum", "its largest activation"),
    Statistic("mean_active", "mean active", "its mean activation where it fires"),
    Statistic(
        "top_token_share",
        "purity",
        "share of its firings that are on one token, the one it fires on most",
    ),
    Statistic(
        "std", "weight spread", "standard deviation of its logit weights over the vocabulary"
    ),
    Statistic(
        "skewness",
        "skewness",
        "of its logit weights: above 0 it promotes few tokens, below 0 suppresses few",
    ),
    Statistic(
        "kurtosis",
        "kurtosis",
        "excess kurtosis of its logit weights: large where a few tokens stand out",
    ),
    Statistic(
        "entropy",
        "entropy",
        "of the softmax of its logit weights, nats: small where it points at few tokens",
    ),
    Statistic(
        "ks",
        "best set",
        "signed Kolmogorov-Smirnov score of the token set that it tells apart best",
    ),
    Statistic("r2", "R²", "share of the variance of effects on it that the approximator predicts"),
)


class LatentTables(NamedTuple):
    """The tables about the latents of an SAE, each with the column latent; empty where the study
    has none."""

    activity: pl.DataFrame
    """density, tokens, maximum, mean_active, top_token, top_token_share."""
    lens: pl.DataFrame
    """mean, std, skewness, kurtosis, entropy, log10_density, class."""
    promoted: pl.DataFrame
    """rank, token: the first ``PROMOTED`` of each."""
    sets: pl.DataFrame
    """set, ks: of each latent that has any, the enriched set with the largest score."""
    fits: pl.DataFrame
    """r2."""

    @property
    def any_measured(self) -> bool:
        """Whether there is anything to say about latents."""
        return not self.activity.is_empty() or not self.lens.is_empty()

    @property
    def latents(self) -> int:
        """How many latents there are."""
        tables = [table for table in (self.activity, self.lens) if len(table)]
        return max((int(table["latent"].max() or 0) + 1 for table in tables), default=0)  # type: ignore[arg-type]


def joined(tables: LatentTables) -> pl.DataFrame:
    """One row per latent, in order of number, with every statistic that is known of any.

    Columns are named as in ``STATISTICS``; ``density`` is the decimal logarithm (null for latents
    that never fire).
    """
    table = pl.DataFrame({"latent": np.arange(tables.latents, dtype=np.int32)})
    for columns in tables._replace(promoted=pl.DataFrame()):
        if len(columns):
            table = table.join(
                columns.cast({"latent": pl.Int32}), on="latent", how="left", maintain_order="left"
            )
    if "density" in table.columns:
        density = pl.col("density")
        table = table.with_columns(density=pl.when(density > 0).then(density.log10()))
    elif "log10_density" in table.columns:
        table = table.with_columns(density=pl.col("log10_density"))
    return table


def known_statistics(table: pl.DataFrame) -> list[Statistic]:
    """The statistics that a study has of its latents."""
    measured = [name for name in table.columns if table[name].null_count() < len(table)]
    return [entry for entry in STATISTICS if entry.name in measured]


def index_value(
    sae: str, table: pl.DataFrame, promoted: pl.DataFrame, neuronpedia: str | None
) -> dict[str, Any]:
    """The list of an SAE's latents as its page reads it.

    Args:
        sae: its name.
        table: from ``joined``.
        promoted: latent, rank, token.
        neuronpedia: what the SAE is called there.

    Returns:
        Columns of numbers in float16 and of words as indices into ``words`` (0 is none), each as
        base64.
    """
    count = len(table)
    words = _Words()
    fires = words.numbers(table["top_token"].to_list()) if "top_token" in table.columns else None
    promotes = [words.numbers(column) for column in _columns(promoted, count)]
    sets = _Words()
    best = sets.numbers(table["set"].cast(pl.String).to_list()) if "set" in table.columns else None
    return {
        "sae": sae,
        "count": count,
        "neuronpedia": neuronpedia,
        "statistics": [
            {**entry._asdict(), "values": _halves(table[entry.name])}
            for entry in known_statistics(table)
        ],
        "classes": list(CLASSES),
        "class": integers(_class_numbers(table["class"])) if "class" in table.columns else None,
        "words": words.texts,
        "fires": None if fires is None else integers(fires),
        "promotes": [integers(column) for column in promotes],
        "sets": sets.texts,
        "set": None if best is None else integers(best),
    }


def _halves(column: pl.Series) -> str:
    return half_floats(column.cast(pl.Float64).fill_null(float("nan")).to_numpy())


def _class_numbers(column: pl.Series) -> NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(CLASSES)}
    return np.array([numbers.get(name, 0) for name in column.to_list()])


def _columns(promoted: pl.DataFrame, count: int) -> list[list[str | None]]:
    """By rank, the token of every latent."""
    if promoted.is_empty():
        return []
    columns: list[list[str | None]] = [[None] * count for _ in range(PROMOTED)]
    for latent, rank, token in promoted.select("latent", "rank", "token").iter_rows():
        if rank < PROMOTED:
            columns[rank][latent] = token
    return columns


class _Words:
    """Words by number, from 1 in the order of their first use; 0 is no word."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {None: 0}

    @property
    def texts(self) -> list[str]:
        return [word or "" for word in self._numbers]

    def numbers(self, words: list[str | None]) -> NDArray[np.int64]:
        return np.array(
            [self._numbers.setdefault(word, len(self._numbers)) for word in words], dtype=np.int64
        )
