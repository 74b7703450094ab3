"""How well a model of human play predicts the moves of players of each rating."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saeflow.config.sections import Figures
from saeflow.figures.figure import Figure
from saeflow.figures.style import legend, no_data, panels, styled
from saeflow.palette import BLUE, GREY, ORANGE, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
NO_ACCURACY = "the model's accuracy was not measured"


def of_players(accuracy: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """By rating bin: the accuracy told the true bin, and of the other bins the one that did
    best."""
    if accuracy.is_empty():
        return accuracy
    best = accuracy.group_by("rating_bin").agg(
        pl.col("told").sort_by("top1").last().alias("best_told"),
        pl.col("top1").max().alias("best_top1"),
    )
    return (
        accuracy.filter(pl.col("told") == pl.col("rating_bin"))
        .join(best, on="rating_bin")
        .sort("rating_bin")
    )


@styled
def chess_accuracy(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """Share of moves that are predicted, and their loss, by rating of the player, with both
    baselines.

    Args:
        rows: from ``of_players``.
    """
    if rows.is_empty():
        return no_data(settings, NO_ACCURACY)
    figure, (hits, losses) = panels(2, settings, height=2.8, share_y=False, columns=2)
    at = rows["rating_bin"].to_numpy()
    hits.fill_between(at, rows["top1_low"], rows["top1_high"], color=BLUE, alpha=0.2)
    hits.plot(at, rows["top1"], color=BLUE, marker="o", label="the model's first move")
    hits.plot(at, rows["top3"], color=ORANGE, marker="s", label="among its first three")
    hits.plot(
        at, rows["top1_frequent"], color=GREY, marker="x", label="the most frequent legal move"
    )
    hits.plot(at, rows["top1_uniform"], color=VERMILLION, marker="+", label="any legal move")
    hits.set(ylabel="share of moves", ylim=(0, 1))
    losses.plot(at, rows["loss"], color=BLUE, marker="o")
    losses.plot(at, rows["loss_frequent"], color=GREY, marker="x")
    losses.plot(at, rows["loss_uniform"], color=VERMILLION, marker="+")
    losses.set(ylabel="loss, nats per move")
    for panel in (hits, losses):
        panel.set_xticks(at, rows["ratings"].to_list(), rotation=60, ha="right")
        panel.set(xlabel="rating of the player")
    legend(figure, hits.get_legend_handles_labels()[0])
    return figure


def chess_accuracy_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    rows = rows if rows.is_empty() else rows.drop_nulls(["top1", "top1_frequent"])
    if rows.is_empty():
        return f"No data: {NO_ACCURACY}."
    low, high, blind = (
        rows.select(pl.min("top1"), high=pl.max("top1"), blind=pl.max("top1_frequent"))
    ).row(0)
    return (
        "Line charts by rating of the player. The model's first move is the one played in "
        f"{low:.0%} to {high:.0%} of positions; the most frequent legal move in at most "
        f"{blind:.0%}."
    )


FIGURES = (
    Figure(
        name="chess_accuracy",
        tables=("models/{model}.accuracy.parquet",),
        rows=of_players,
        draw=chess_accuracy,
        alt=chess_accuracy_alt,
        title="How well the model predicts what people play",
        caption="Held-out games, by the rating of the player, which the model is told: how often "
        "the move that was played is the model's first, or among its first three legal moves, and "
        "its loss. Beside it two players who do not look at the board: any legal move, and the "
        "legal move that is played most often.",
        section="player",
    ),
)
