"""Figures of chess show what their tables hold, on boards seen from White's side."""

from __future__ import annotations

from pathlib import Path

import chess_tables as made
import matplotlib
import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from saeflow.chess.figures import FIGURES, SECTIONS
from saeflow.config.sections import Figures
from saeflow.figures.io import write_figure

SMALL = Figures(dpi=50)
TABLES = {
    "chess_accuracy": made.accuracy,
    "chess_board_auc": made.associations,
    "chess_skill": made.skill,
    "chess_awareness": made.awareness,
    "chess_interventions": made.interventions,
}


def drawn(name: str, table: pl.DataFrame) -> tuple[Figure, str]:
    rows = FIGURES[name].rows(table, SMALL)
    return FIGURES[name].draw(rows, SMALL), FIGURES[name].alt(rows)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


@pytest.mark.parametrize("name", [name for name in TABLES if name != "chess_accuracy"])
def test_every_figure_of_chess_tells_of_every_sae_and_group(name: str) -> None:
    figure, alt = drawn(name, TABLES[name](("standard", "jumprelu")))
    figure.canvas.draw()
    shown = " | ".join(texts(figure))
    for word in ("standard", "jumprelu", "defensive threat", "offensive threat"):
        assert word in shown
        assert word in alt


@pytest.mark.parametrize("name", TABLES)
def test_a_study_without_chess_gets_a_figure_that_says_so(name: str) -> None:
    for empty in (pl.DataFrame(), TABLES[name]().clear()):
        figure, alt = drawn(name, empty)
        assert any(text.startswith("no data") for text in texts(figure))
        assert alt.startswith("No data")


def test_boards_have_a1_at_bottom_left_and_show_first_latent_that_fires_with_the_concept() -> None:
    figure, alt = drawn("chess_board_auc", made.associations())
    board = figure.axes[0]
    grid = np.asarray(board.images[0].get_array())
    assert board.images[0].origin == "lower"
    assert grid[0, 0] == pytest.approx(0.55)
    assert grid[6, 7] == pytest.approx(0.55 + 0.4 * 13 / 14)
    assert np.isnan(grid[7]).all()
    assert [tick.get_text() for tick in board.get_xticklabels()] == list("abcdefgh")
    assert [tick.get_text() for tick in board.get_yticklabels()] == list("12345678")
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [
        "defensive threat",
        "offensive threat",
        "their rook",
    ]
    assert "best 0.92, 56 squares" in alt


def test_gains_are_those_of_held_out_games() -> None:
    figure, alt = drawn("chess_interventions", made.interventions())
    heights = [line.get_ydata() for axes in figure.axes for line in axes.get_lines()]
    assert max(float(np.max(height)) for height in heights if len(height)) == pytest.approx(0.25)
    assert "the concept is needed: +0.25" in alt


def test_concepts_that_are_unknown_at_an_end_of_the_ratings_are_left_out() -> None:
    rows = FIGURES["chess_awareness"].rows(made.awareness(), SMALL)
    assert rows.height == 48
    assert "24 concepts" in FIGURES["chess_awareness"].alt(rows)


@pytest.mark.parametrize("name", TABLES)
def test_every_figure_of_chess_is_the_same_bytes_twice(name: str, tmp_path: Path) -> None:
    first, second = (
        write_figure(name, FIGURES[name], TABLES[name](), SMALL, tmp_path / folder)
        for folder in ("a", "b")
    )
    assert [path.name for path in first] == [f"{name}.png", f"{name}.svg", f"{name}.csv"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    rows = FIGURES[name].rows(TABLES[name](), SMALL)
    kept = pl.read_csv(first[2])
    assert (kept.columns, len(kept)) == (rows.columns, len(rows))


@pytest.mark.parametrize("name", TABLES)
def test_a_figure_of_chess_skips_missing_values(name: str) -> None:
    source = TABLES[name]()
    numbers = [column for column, kind in source.schema.items() if kind == pl.Float64]
    holes = source.with_row_index("at").with_columns(
        pl.when(pl.col("at") % 5 == 1).then(None).otherwise(pl.col(column)).alias(column)
        for column in numbers
    )
    figure, alt = drawn(name, holes.drop("at"))
    figure.canvas.draw()
    assert "nan" not in alt.lower()


def test_every_figure_of_chess_has_its_table_and_its_place_in_the_report() -> None:
    assert {*TABLES, "sae_training"} == set(FIGURES)
    assert sorted(FIGURES) == sorted(name for names in SECTIONS.values() for name in names)
