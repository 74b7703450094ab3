"""Figures are drawn from tables alone, and equal tables give equal bytes."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import figure_tables as made
import h5py
import matplotlib
import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from saeflow.analyses.steering.methods import BY_NAME
from saeflow.cli.main import app
from saeflow.config.sections import Figures
from saeflow.errors import SaeflowError
from saeflow.figures.io import StudyTables, read_tables, save, write_figure
from saeflow.figures.registry import FIGURES

SMALL = Figures(dpi=50)


def tables(goals: int = 2) -> StudyTables:
    summary = made.summary(goals)
    best = made.best(summary)
    return StudyTables(
        summary=summary,
        best=best,
        comparisons=made.comparisons(best),
        matched=made.matched(goals),
        side_effects=made.side_effects(goals),
        predictions=made.predictions(20, 64),
        recovery=made.recovery(),
        saes=made.saes(),
        sources=made.sources(),
        sae_training=made.sae_training(),
        model_training=made.model_training(),
        effects=made.effects(),
        lens_latents=made.lens_latents(),
        lens_splits=made.lens_splits(),
        lens_enrichment=made.lens_enrichment(),
        lens_scores=made.lens_scores(),
        lens_causal=made.lens_causal(),
    )


def written(name: str, folder: Path) -> list[Path]:
    table = getattr(tables(), FIGURES[name].source)
    return write_figure(name, FIGURES[name], table, SMALL, folder)


def drawn(
    name: str, table: pl.DataFrame, settings: Figures = SMALL
) -> tuple[Figure, str, pl.DataFrame]:
    kind = FIGURES[name]
    rows = kind.rows(table, settings)
    return kind.draw(rows, settings), kind.alt(rows), rows


def texts(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


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
    given = tables(goals)
    figure, alt, _ = drawn(name, getattr(given, FIGURES[name].source))
    shown = texts(figure)
    assert all(goal.replace("_", " ") in shown for goal in made.GOALS[:goals])
    assert len(alt) > 40
    figure.canvas.draw()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_the_same_bytes_twice_and_leaves_its_table(
    name: str, tmp_path: Path
) -> None:
    first, second = (written(name, tmp_path / folder) for folder in ("a", "b"))
    assert [path.name for path in first] == [f"{name}.png", f"{name}.svg", f"{name}.csv"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert not list(tmp_path.rglob("*.part"))
    assert b"matplotlib" not in first[0].read_bytes().lower()
    _, _, rows = drawn(name, getattr(tables(), FIGURES[name].source))
    kept = pl.read_csv(first[2])
    assert (kept.columns, len(kept)) == (rows.columns, len(rows))


@pytest.mark.parametrize("name", ["product_by_scale", "goal_detail", "pareto"])
def test_scales_with_too_few_scores_to_be_chosen_are_marked(name: str) -> None:
    summary = made.summary(2)
    without, _, _ = drawn(name, summary)
    barred, _, _ = drawn(name, summary.with_columns(eligible=pl.col("scale_index") != 3))
    assert "too few scores" not in texts(without)
    assert "too few scores to be chosen" in texts(barred)


@pytest.mark.parametrize("name", FIGURES)
def test_an_empty_table_gives_a_figure_that_says_so(name: str) -> None:
    source = getattr(tables(), FIGURES[name].source)
    for empty in (pl.DataFrame(), source.clear()):
        figure, alt, _ = drawn(name, empty)
        assert "no data" in texts(figure)
        assert alt.startswith("No data")


@pytest.mark.parametrize("name", FIGURES)
def test_missing_values_are_skipped(name: str) -> None:
    source = getattr(tables(), FIGURES[name].source)
    constant = {"entropy", "latent", "row", "low", "high"}
    numbers = [
        column
        for column, kind in source.schema.items()
        if kind == pl.Float64 and column not in constant
    ]
    holes = source.with_row_index("at").with_columns(
        pl.when(pl.col("at") % 5 == 1).then(None).otherwise(pl.col(column)).alias(column)
        for column in numbers
    )
    figure, alt, _ = drawn(name, holes.drop("at"))
    figure.canvas.draw()
    assert "nan" not in alt.lower()


@pytest.mark.parametrize("count", [1, 6, 20, 60])
def test_every_line_of_a_sweep_looks_different(count: int) -> None:
    names = [f"main-k-{k}" for k in range(count)]
    figure, _, _ = drawn("sae_training", made.sae_training(names))
    lines = figure.axes[0].get_lines()
    assert (
        len({(str(line.get_color()), str(line._unscaled_dash_pattern)) for line in lines})
        == len(lines)
        == count
    )
    named = [text.get_text() for each in figure.legends for text in each.get_texts()]
    assert named == (
        [] if count == 1 else names if count < 60 else [names[0], names[30], names[59]]
    )


def test_saes_are_points_of_a_line_per_architecture_and_place() -> None:
    figure, alt, rows = drawn("sae_frontier", made.saes())
    assert rows["series"].n_unique() == 4
    shown = [text.get_text() for each in figure.legends for text in each.get_texts()]
    assert "batchtopk, 512 latents at blocks.1.hook_resid_post" in shown
    assert "topk, 512 latents at blocks.0.hook_resid_post, blocks.1.hook_resid_post" in shown
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert [list(line.get_xdata()) for line in lines[:3]] == [[8.0, 16.0, 32.0, 64.0]] * 3
    assert "topk-8-0: L0 8.0, explained variance 0.788" in alt
    alone = drawn("sae_frontier", made.saes().filter(pl.col("kind") == "sae"))[2]
    assert "topk, 512 latents" in alone["series"].to_list()


def test_crosscoders_are_drawn_each_with_its_sources_and_silent_latents_are_left_out() -> None:
    figure, alt, rows = drawn("crosscoder_sources", made.sources())
    shown = texts(figure)
    assert all(
        word in shown
        for word in ("layers", "models", "blocks.1.hook_resid_post", "tuned", "of base")
    )
    assert rows.filter(pl.col("latent") == 7).is_empty()
    alone = rows.filter(
        (pl.col("sae") == "models") & (pl.col("name") == "tuned") & (pl.col("relative_norm") > 0.9)
    )
    assert f"{len(alone)} look exclusive to tuned" in alt
    assert "of 59 latents that fire" in alt


def test_a_method_that_is_missing_for_one_goal_is_left_out_there() -> None:
    summary = tables().summary.filter(~((pl.col("goal") == "anger") & (pl.col("method") == "caa")))
    figure, _, _ = drawn("product_by_scale", summary)
    first, second = figure.axes[:2]
    assert len(second.get_lines()) - len(first.get_lines()) == 2  # the line and its ring


def test_a_method_looks_the_same_in_every_study() -> None:
    colours, markers = zip(*(method.look for method in BY_NAME.values()), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(BY_NAME)
    alone = tables().summary.filter(pl.col("method") == "sae_ts")
    figure, _, _ = drawn("product_by_scale", alone)
    assert figure.axes[0].get_lines()[0].get_color() == BY_NAME["sae_ts"].look.colour


def test_the_unsteered_bar_stands_once_per_goal() -> None:
    _, _, rows = drawn("steered_vs_unsteered", tables(3).summary)
    assert rows.filter(pl.col("method") == "unsteered")["scale"].to_list() == [0.0] * 3
    assert len(rows) == 3 * 7


def test_detail_goals_are_those_of_the_settings() -> None:
    table = tables(9).summary
    assert set(drawn("goal_detail", table)[2]["goal"]) == {"anger", "christian_evangelist"}
    assert set(drawn("goal_detail", table, Figures(detail_goals=["wedding"]))[2]["goal"]) == {
        "wedding"
    }


def test_r2_is_one_for_a_perfect_prediction_and_zero_for_the_mean() -> None:
    pairs = made.predictions(10, 30)
    perfect = pairs.with_columns(predicted=pl.col("measured"))
    mean = pairs.with_columns(
        predicted=pl.col("measured").filter(pl.col("kind") == "sample").mean()
    )
    assert drawn("effects_predicted_measured", perfect)[2]["r2"][0] == pytest.approx(1)
    assert drawn("effects_predicted_measured", mean)[2]["r2"][0] == pytest.approx(0)
    rows = drawn("effects_predicted_measured", pairs)[2]
    assert rows.filter(pl.col("kind") == "cell")["count"].sum() == 300
    assert rows.filter(pl.col("kind") == "top").height == 30


def test_r2_over_all_effects_is_taken_where_it_is_known(tmp_path: Path) -> None:
    table, metrics = (
        tmp_path / "approximators/topk/predictions.parquet",
        tmp_path / "approximators/topk/metrics.json",
    )
    table.parent.mkdir(parents=True)
    made.predictions(10, 30).write_parquet(table)
    metrics.write_text('{"r2": 0.25, "r2_ceiling": 0.5}')
    figure, _, rows = drawn(
        "effects_predicted_measured", read_tables(tmp_path, [table, metrics]).predictions
    )
    assert rows.select("r2", "r2_ceiling").row(0) == (0.25, 0.5)
    assert "R² = 0.250 (noise leaves about 0.500)" in texts(figure)


def test_statuses_are_read_from_the_merged_effects(tmp_path: Path) -> None:
    path = tmp_path / "effects/topk/effects.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["scale"], file["status"] = [1.0, 2.5], np.array([0, 2], dtype=np.uint8)
        file["status"].attrs["names"] = ["ok", "above_at_zero", "never_reached", "clamped"]
    assert read_tables(tmp_path, [path]).effects.rows() == [(1.0, "ok"), (2.5, "never_reached")]


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


def test_a_picture_carries_its_title_and_alternative_text(tmp_path: Path) -> None:
    rows = tables().best
    save(drawn("methods_forest", rows)[0], tmp_path / "x", rows, "A title", "What < is seen & said")
    found = [
        node.text
        for node in ElementTree.parse(tmp_path / "x.svg").iter(
            "{http://purl.org/dc/elements/1.1/}description"
        )
    ]
    assert found == ["What < is seen & said"]


def test_the_look_does_not_depend_on_the_settings_of_the_user(tmp_path: Path) -> None:
    plain = written("effect_scales", tmp_path / "plain")[1].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        assert written("effect_scales", tmp_path / "other")[1].read_bytes() == plain


def test_tables_of_a_study_are_found_by_their_place(tmp_path: Path) -> None:
    summary, effects = (
        tmp_path / "steering/summary.parquet",
        tmp_path / "steering/london/side_effects.parquet",
    )
    curve = tmp_path / "saes/topk/training.parquet"
    for path, table in (
        (summary, tables().summary),
        (effects, made.side_effects(1).drop("goal")),
        (curve, made.sae_training().drop("sae")),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(path)
    found = read_tables(tmp_path, [summary, effects, curve])
    assert found.summary.equals(tables().summary)
    assert found.side_effects["goal"].unique().to_list() == ["london"]
    assert found.sae_training["sae"].unique().to_list() == ["topk"]
    assert found.best.is_empty()


def test_an_unknown_figure_and_an_absent_table_are_told_in_one_sentence(tmp_path: Path) -> None:
    asked = ["figures", "draw", "heatmap", "x.parquet", "--study", ".", "--settings", "{}"]
    done = CliRunner().invoke(app, [*asked, "--output", str(tmp_path)])
    assert "there is no figure 'heatmap'" in str(done.exception)
    with pytest.raises(SaeflowError, match="no such file"):
        read_tables(tmp_path, [tmp_path / "steering/best.parquet"])
