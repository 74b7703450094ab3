"""Figures of steering show every goal and method, and mark what was chosen."""

from __future__ import annotations

import figure_tables as made
import polars as pl
import pytest
from drawing import FIGURES, drawn, tables_of, texts
from studies import study_config

from saeflow.analyses.steering.methods import BY_NAME
from saeflow.config.sections import Figures
from saeflow.kinds import check_any_study


@pytest.mark.parametrize("goals", [1, 9, 16])
@pytest.mark.parametrize(
    "name",
    [
        "product_by_scale",
        "methods_forest",
        "pareto",
        "equal_coherence",
        "equal_divergence",
        "steered_vs_unsteered",
        "side_effects",
    ],
)
def test_figures_by_goal_show_every_goal(name: str, goals: int) -> None:
    figure, alt, _ = drawn(name, *tables_of(FIGURES[name], goals))
    shown = texts(figure)
    assert all(goal.replace("_", " ") in shown for goal in made.GOALS[:goals])
    assert len(alt) > 40
    figure.canvas.draw()


@pytest.mark.parametrize("name", ["product_by_scale", "goal_detail", "pareto"])
def test_scales_with_too_few_scores_to_be_chosen_are_marked(name: str) -> None:
    summary = made.summary(2)
    without, _, _ = drawn(name, summary)
    barred, _, _ = drawn(name, summary.with_columns(eligible=pl.col("scale_index") != 3))
    assert "too few scores" not in texts(without)
    assert "too few scores to be chosen" in texts(barred)


@pytest.mark.parametrize("name", ["product_by_scale", "goal_detail"])
def test_axes_speak_in_the_unit_of_the_study_and_tables_keep_the_absolute_scale(name: str) -> None:
    summary = made.summary(2)
    figure = FIGURES[name]
    absolute = figure.rows(summary, Figures())
    assert "scale, length of what is added" in texts(figure.draw(absolute, Figures()))
    rows = figure.rows(summary, Figures(), multiples=list(made.SCALES))
    drawing = figure.draw(rows, Figures())
    assert "scale, multiples of the mean activation norm" in texts(drawing)
    assert rows.drop("multiple").equals(absolute)
    assert rows.select(pl.col("multiple") * made.UNIT).to_series().to_list() == pytest.approx(
        rows["scale"].to_list()
    )
    ends = [line.get_xdata()[-1] for line in drawing.axes[0].get_lines()]
    assert max(ends) == made.SCALES[-1]


def test_figures_are_told_the_unit_that_the_config_says() -> None:
    def facts(unit: str) -> object:
        steering = {
            "steering.completions.scales": [0.0, 0.5],
            "steering.completions.scale_unit": unit,
        }
        study = check_any_study(study_config("reported", steering))
        return FIGURES["product_by_scale"].facts(study)

    assert facts("norm") == {"multiples": [0.0, 0.5]}
    assert facts("absolute") == {"multiples": None}


def test_a_method_that_is_missing_for_one_goal_is_left_out_there() -> None:
    summary = made.summary(2).filter(~((pl.col("goal") == "anger") & (pl.col("method") == "caa")))
    figure, _, _ = drawn("product_by_scale", summary)
    first, second = figure.axes[:2]
    assert len(second.get_lines()) - len(first.get_lines()) == 2  # the line and its ring


def test_a_method_looks_the_same_in_every_study() -> None:
    colours, markers = zip(*(method.look for method in BY_NAME.values()), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(BY_NAME)
    alone = made.summary(2).filter(pl.col("method") == "sae_ts")
    figure, _, _ = drawn("product_by_scale", alone)
    assert figure.axes[0].get_lines()[0].get_color() == BY_NAME["sae_ts"].look.colour


def test_the_unsteered_bar_stands_once_per_goal() -> None:
    _, _, rows = drawn("steered_vs_unsteered", made.summary(3))
    assert rows.filter(pl.col("method") == "unsteered")["scale"].to_list() == [0.0] * 3
    assert len(rows) == 3 * 7


def test_detail_goals_are_those_of_the_settings() -> None:
    table = made.summary(9)
    assert set(drawn("goal_detail", table).rows["goal"]) == {"anger", "christian_evangelist"}
    assert set(
        drawn("goal_detail", table, settings=Figures(detail_goals=["wedding"])).rows["goal"]
    ) == {"wedding"}


def test_side_effects_draw_the_latents_that_move_most() -> None:
    table = made.side_effects(1, latents=300)
    _, _, rows = drawn("side_effects", table)
    assert rows.group_by("method").len()["len"].to_list() == [100] * 6
    size = pl.max_horizontal(pl.col("predicted").abs(), pl.col("measured").abs())
    left_out = table.join(rows, on=["goal", "method", "latent"], how="anti")
    caa = pl.col("method") == "caa"
    assert (
        left_out.filter(caa).select(size.max()).item() <= rows.filter(caa).select(size.min()).item()
    )


def test_methods_that_are_given_latents_which_no_study_of_real_text_knows_are_left_out() -> None:
    planted = made.summary(1).with_columns(method=pl.col("method") + "_planted")
    both = pl.concat([made.summary(1), planted])
    for name in ("pareto", "goal_detail", "steered_vs_unsteered"):
        assert drawn(name, both).rows.equals(drawn(name, made.summary(1)).rows)
