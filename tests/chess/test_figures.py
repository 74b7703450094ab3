"""Figures of chess show what their tables hold, on boards seen from White's side."""

from __future__ import annotations

import chess_tables as made
import numpy as np
import polars as pl
import pytest
from drawing import drawn, texts

TABLES = {
    "chess_board_auc": made.associations,
    "chess_skill": made.skill,
    "chess_awareness": made.awareness,
    "chess_interventions": made.interventions,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_figure_of_chess_tells_of_every_sae_and_group(name: str) -> None:
    figure, alt, _ = drawn(name, TABLES[name](("standard", "jumprelu")))
    figure.canvas.draw()
    shown = texts(figure)
    for word in ("standard", "jumprelu", "defensive threat", "offensive threat"):
        assert word in shown
        assert word in alt


def test_boards_have_a1_at_bottom_left_and_show_first_latent_that_fires_with_the_concept() -> None:
    figure, alt, _ = drawn("chess_board_auc", made.associations())
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
    figure, alt, _ = drawn("chess_interventions", made.interventions())
    heights = [line.get_ydata() for axes in figure.axes for line in axes.get_lines()]
    assert max(float(np.max(height)) for height in heights if len(height)) == pytest.approx(0.4)
    assert "the concept is needed: +0.25" in alt


def test_edited_transitions_show_the_share_solved_from_each_rating_on_with_ratings_named() -> None:
    figure, alt, rows = drawn(
        "chess_edited_transitions", made.interventions(), made.edited_transitions()
    )
    shares = {
        (kind, rating): solved
        for kind, rating, solved in rows.filter(group="offensive_threat")
        .select("kind", "rating", "solved")
        .iter_rows()
    }
    for kind, start in (("as_it_is", [1, 3, 99, 9]), ("edited", [0, 0, 99, 9])):
        for rating in range(10):
            assert shares[kind, rating] == np.mean(np.array(start) <= rating)
    assert "no edit 0.00, the concept's latents 0.50, random latents 0.00" in alt
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels[0] == "<1100"
    assert labels[-1] == "1900-1999"


def test_concepts_that_are_unknown_at_an_end_of_the_ratings_are_left_out() -> None:
    _, alt, rows = drawn("chess_awareness", made.awareness())
    assert rows.height == 48
    assert "24 concepts" in alt


def test_changes_of_concepts_fill_their_panel_however_long_intervals_are() -> None:
    long = [pl.col(f"awareness_change{end}") * 50 for end in ("_low", "_high")]
    figure, _, rows = drawn("chess_awareness", made.awareness().with_columns(long))
    figure.canvas.draw()
    most = rows["awareness_change"].abs().max()
    assert rows["awareness_change_high"].max() > 10 * most
    assert max(map(abs, figure.axes[0].get_xlim())) == pytest.approx(1.25 * most)
