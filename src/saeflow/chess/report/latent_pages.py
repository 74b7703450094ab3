"""The list of an SAE's latents on a chess model, and the page of each: positions in which it is
active, its activations, the pieces that go with it, and the concepts it was chosen for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.examples.latent_pages import by_latent, chunks
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.report.concept_list import values_of
from saeflow.figures.style import words
from saeflow.report.wording import Statistic, digits

LEADING = 10
"""Pieces on squares of which a latent's page tells the numbers."""
CONCEPTS = 12
"""Concepts of each latent that its page lists."""
STATISTICS = (
    Statistic("density", "fires on", "share of positions in which it fires", "share"),
    Statistic("maximum", "maximum", "its largest activation"),
    Statistic("mean_active", "mean active", "its mean activation where it fires"),
    Statistic("games", "games", "in which it fires at least once", "whole"),
    Statistic(
        "correlation",
        "best piece",
        "largest correlation, by its size, with a piece on a square",
    ),
    Statistic(
        "auc", "best concept", "area on held-out games of the concept that it was chosen for"
    ),
)


class LatentTables(NamedTuple):
    """What is known of an SAE's latents; empty where the study does not ask for it."""

    latents: pl.DataFrame
    boards: pl.DataFrame
    histogram: pl.DataFrame
    squares: pl.DataFrame
    associations: pl.DataFrame

    @property
    def leading(self) -> pl.DataFrame:
        """Per latent the pieces on squares that go with it most, the first first."""
        size = pl.col("correlation").abs()
        ranked = self.squares.drop_nulls("correlation").sort(
            "latent", size, descending=[False, True], maintain_order=True
        )
        return ranked.group_by("latent", maintain_order=True).head(LEADING)

    @property
    def chosen_for(self) -> pl.DataFrame:
        """Per latent the concepts that it was kept for, of either direction, the best told
        first."""
        if self.associations.is_empty():
            return pl.DataFrame()
        area = pl.max_horizontal(pl.col("auc"), 1 - pl.col("auc"))
        ranked = self.associations.sort(
            "latent", area, descending=[False, True], nulls_last=True, maintain_order=True
        )
        return ranked.group_by("latent", maintain_order=True).head(CONCEPTS)

    @property
    def statistics(self) -> pl.DataFrame:
        """One row per latent: the numbers of the list, and ``piece``, what goes with it most."""
        first = self.leading.group_by("latent", maintain_order=True).first()
        table = self.latents.join(
            first.select("latent", "correlation", pl.col("concept").alias("piece")),
            on="latent", how="left", maintain_order="left",
        )  # fmt: skip
        if self.associations.is_empty():
            return table.with_columns(auc=pl.lit(None, pl.Float64))
        best = self.associations.filter(direction=1).group_by("latent").agg(pl.col("auc").max())
        return table.join(best, on="latent", how="left", maintain_order="left")


def list_value(sae: str, statistics: pl.DataFrame) -> dict[str, Any]:
    """The list of an SAE's latents, in the form of that of a language model.

    Args:
        sae: its name.
        statistics: from `LatentTables.statistics`.
    """
    pieces = statistics["piece"].to_list()
    names = list(dict.fromkeys(piece for piece in pieces if piece is not None))
    place = {name: number for number, name in enumerate(names, start=1)}
    return {
        "sae": sae,
        "count": len(statistics),
        "neuronpedia": None,
        "statistics": [
            {**column._asdict(), "values": values_of(statistics[column.name], column.form)}
            for column in STATISTICS
        ],
        "classes": [],
        "class": None,
        "words": ["", *map(words, names)],
        "fires": [place.get(piece, 0) for piece in pieces],
        "headings": {"fires": "goes with"},
        "promotes": [],
        "sets": [],
        "set": None,
        "targeted": [],
    }


def page_values(tables: LatentTables, strata: int) -> Iterator[dict[str, Any]]:
    """The files of an SAE's latents in their order, some latents each.

    Args:
        tables: of the SAE.
        strata: parts of a latent's range that positions were drawn from.
    """
    statistics = tables.statistics
    boards, histogram = by_latent(tables.boards), by_latent(tables.histogram)
    leading, concepts = by_latent(tables.leading), by_latent(tables.chosen_for)
    squares = by_latent(_strongest_by_square(tables.squares))
    for latents in chunks(0, len(statistics)):
        rows = statistics.slice(latents.start, len(latents)).to_dicts()
        entries = [
            {
                "statistics": {
                    statistic.name: digits(row[statistic.name], 5) for statistic in STATISTICS
                },
                "boards": [_board(board) for board in boards.get(row["latent"], [])],
                "histogram": _histogram(histogram.get(row["latent"], [])),
                "squares": [
                    [
                        pair["square"],
                        pair["concept"].rpartition("_on_")[0],
                        digits(pair["correlation"]),
                    ]
                    for pair in squares.get(row["latent"], [])
                ],
                "leading": [_piece(pair) for pair in leading.get(row["latent"], [])],
                "concepts": [_concept(pair) for pair in concepts.get(row["latent"], [])],
            }
            for row in rows
        ]
        yield {
            "first": latents.start,
            "ratings": RATING_BINS,
            "strata": strata,
            "latents": entries,
        }


def _strongest_by_square(squares: pl.DataFrame) -> pl.DataFrame:
    """Of each latent, square and side the piece whose correlation is largest."""
    sided = squares.drop_nulls("correlation").with_columns(
        side=pl.col("concept").str.starts_with("my_"), size=pl.col("correlation").abs()
    )
    ranked = sided.sort("size", descending=True, maintain_order=True)
    return ranked.unique(["latent", "square", "side"], keep="first", maintain_order=True).sort(
        "latent", "side", "square", maintain_order=True
    )


def _board(row: dict[str, Any]) -> list[Any]:
    return [row["group"], digits(row["activation"]), row["fen"], row["move"], row["rating"]]


def _histogram(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not rows:
        return None
    (row,) = rows
    return {"low": digits(row["low"]), "high": digits(row["high"]), "counts": row["counts"]}


def _piece(row: dict[str, Any]) -> list[Any]:
    numbers = (digits(row[name]) for name in ("correlation", "mean_with", "mean_without"))
    return [words(row["concept"]), *numbers, row["positions"]]


def _concept(row: dict[str, Any]) -> list[Any]:
    claimed = row["untested"] is None
    areas = [digits(row[name]) for name in ("auc", "auc_low", "auc_high")]
    return [
        words(row["concept"]),
        row["direction"],
        row["rank"] + 1,
        areas[0],
        *(areas[1:] if claimed else (None, None)),
        digits(row["q"]) if claimed else None,
    ]
