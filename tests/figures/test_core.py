"""Figures of what every study has: its model and its SAEs."""

from __future__ import annotations

import figure_tables as made
import polars as pl
import pytest
from drawing import drawn, texts


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


def test_the_entropy_of_the_corpus_is_drawn_where_it_is_known() -> None:
    curve = made.model_training()
    drawing, alt, _ = drawn("model_training", curve, pl.DataFrame({"entropy": 1.84}))
    assert "entropy of the corpus, 1.840" in texts(drawing)
    assert "The entropy of the corpus is 1.840." in alt
    drawing, alt, _ = drawn("model_training", curve, pl.DataFrame())
    assert "entropy" not in texts(drawing) + alt


def test_a_legend_of_several_lines_is_read_line_by_line() -> None:
    names = [f"main-k-{k}" for k in range(20)]
    figure, _, _ = drawn("sae_training", made.sae_training(names))
    figure.draw_without_rendering()
    entries = [text for each in figure.legends for text in each.get_texts()]
    boxes = [text.get_window_extent() for text in entries]
    lines = sorted({round(box.y0) for box in boxes}, reverse=True)
    assert len(lines) > 1
    placed = sorted(
        zip(boxes, entries, strict=True), key=lambda pair: (-round(pair[0].y0), pair[0].x0)
    )
    assert [text.get_text() for _, text in placed] == names
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
