"""What latents know of squares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from saeflow.config.sections import Figures
from saeflow.counting import counted
from saeflow.figures.figure import Figure
from saeflow.figures.style import no_data, panels, styled, words
from saeflow.palette import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

DEFAULT = Figures()
FILES = "abcdefgh"
MOST_BOARDS = 24  # of a picture that still fits a page
BOARD: dict[str, Any] = {
    "cmap": "cividis",
    "vmin": 0.5,
    "vmax": 1.0,
    "origin": "lower",
    "interpolation": "nearest",
}
NO_SQUARES = "no concept of a square was associated with a latent"


def best_by_square(associations: pl.DataFrame, settings: Figures = DEFAULT) -> pl.DataFrame:
    """Of every concept of a square the latent that was chosen first and fires with it.

    Returns:
        sae, family (pieces by their kind), square, concept, latent, auc, q.
    """
    if "square" not in associations.columns:
        return pl.DataFrame()
    first = associations.filter(
        (pl.col("square") >= 0) & (pl.col("direction") == 1) & (pl.col("rank") == 0)
    )
    kind = pl.when(pl.col("family") == "piece").then(pl.col("concept").str.replace(r"_on_..$", ""))
    named = first.with_columns(family=kind.otherwise(pl.col("family")))
    return named.select("sae", "family", "square", "concept", "latent", "auc", "q").sort(
        "sae", "family", "square"
    )


@styled
def board_auc(rows: pl.DataFrame, settings: Figures = DEFAULT) -> Drawing:
    """A board per family of concepts: on every square how well the best latent tells its concept on
    held-out games.

    Args:
        rows: from ``best_by_square``.
    """
    boards = _boards(rows)
    if not boards:
        return no_data(settings, NO_SQUARES)
    figure, axes = panels(
        len(boards), settings, height=2.5, share_x=False, share_y=False, columns=min(4, len(boards))
    )
    for (sae, family), panel in zip(boards, axes, strict=True):
        of_board = rows.filter((pl.col("sae") == sae) & (pl.col("family") == family))
        several = rows["sae"].n_unique() > 1
        picture = _board(panel, of_board, f"{words(family)}\n{sae}" if several else words(family))
    figure.colorbar(picture, ax=axes, label="AUC on held-out games", shrink=0.8, pad=0.01)
    if left_out := _left_out(rows, boards):
        figure.supxlabel(left_out, fontsize=9)
    return figure


def _boards(rows: pl.DataFrame) -> list[tuple[str, str]]:
    """The boards to draw: families in their order, those of whole-board threats before pieces."""
    if rows.is_empty():
        return []
    boards = rows.select("sae", "family").unique(maintain_order=True)
    order = boards.with_columns(piece=pl.col("family").str.contains("^(my|their)_")).sort(
        "piece", maintain_order=True
    )
    return [(sae, family) for sae, family, _ in order.iter_rows()][:MOST_BOARDS]


def _left_out(rows: pl.DataFrame, boards: list[tuple[str, str]]) -> str:
    """What is said of the boards that are not drawn; nothing where all are."""
    count = len(rows.select("sae", "family").unique()) - len(boards)
    if not count:
        return ""
    return f"{counted(count, 'board')} more on the pages of SAEs"


def _board(panel: Axes, rows: pl.DataFrame, title: str) -> Any:
    grid = np.full((8, 8), np.nan)
    rank, file = np.divmod(rows["square"].to_numpy(), 8)
    grid[rank, file] = rows["auc"].to_numpy()
    panel.set_facecolor(FAINT)
    picture = panel.imshow(grid, **BOARD)
    for row, column in zip(rank, file, strict=True):
        value = grid[row, column]
        colour = "white" if value < 0.78 else INK
        panel.text(
            column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5, color=colour
        )
    panel.set_xticks(range(8), list(FILES))
    panel.set_yticks(range(8), [str(rank_number) for rank_number in range(1, 9)])
    panel.tick_params(length=0)
    panel.grid(visible=False)
    for edge in np.arange(-0.5, 8):
        panel.axhline(edge, color="white", linewidth=0.6)
        panel.axvline(edge, color="white", linewidth=0.6)
    panel.set_title(title)
    return picture


def board_auc_alt(rows: pl.DataFrame) -> str:
    """The text for those who do not see the figure."""
    boards = _boards(rows)
    if not boards:
        return f"No data: {NO_SQUARES}."
    summaries = []
    for sae, family in boards:
        areas = (
            rows.filter((pl.col("sae") == sae) & (pl.col("family") == family))["auc"]
            .fill_nan(None)
            .drop_nulls()
        )
        if areas.is_empty():
            continue
        middle, best = float(np.median(areas)), float(areas.to_numpy().max())
        summaries.append(
            f"{words(family)} ({sae}): median {middle:.2f}, best {best:.2f}, "
            f"{counted(len(areas), 'square')}"
        )
    left_out = _left_out(rows, boards)
    return (
        f"Chess boards coloured by the AUC of the best latent per square. {'; '.join(summaries)}."
        f"{f' {left_out}.' if left_out else ''}"
    )


FIGURES = (
    Figure(
        name="chess_board_auc",
        tables=("concepts/{sae}/associations.parquet",),
        rows=best_by_square,
        draw=board_auc,
        alt=board_auc_alt,
        title="What latents know of squares",
        caption="For every square: how well the best latent tells positions that have the concept "
        "there from those that do not, as area under the ROC curve in hundredths; 50 is chance. "
        "The latent was chosen on some games, the area is that on others. White is the player to "
        "move; grey squares had too few positions.",
        section="concepts",
    ),
)
