"""Figures of the logit lens show the token sets that stand out, by kind and latent."""

from __future__ import annotations

import warnings

import figure_tables as made
import polars as pl
from drawing import drawn, texts


def test_token_sets_stand_beside_others_of_their_kind() -> None:
    rows = drawn("lens_manhattan").rows
    kinds = dict(made.lens_sets().iter_rows())
    assert rows["kind"].to_list() == [kinds[name] for name in rows["set"]]
    order = rows.unique("place", maintain_order=True)["kind"].to_list()
    assert order == sorted(order)


def test_the_heat_map_names_for_each_set_the_latent_that_is_enriched_most_for_it() -> None:
    enrichment = made.lens_enrichment()
    rows = drawn("lens_heat_map").rows
    size = pl.col("effect").abs()
    leaders = enrichment.sort(size, descending=True).unique("set", keep="first")
    assert set(rows["set"]) == set(leaders["set"])
    assert set(rows["latent"]) == set(leaders["latent"])
    assert rows.height == leaders["set"].n_unique() * leaders["latent"].n_unique()


def test_correlations_over_the_vocabulary_stand_with_their_latents() -> None:
    drawing, alt, rows = drawn("lens_causal")
    assert rows["r_addition"].unique().to_list() == [0.8]
    assert "r = 0.80" in texts(drawing)
    assert "latent 3 0.80" in alt
    unchecked = drawn("lens_causal", made.lens_causal(), pl.DataFrame())
    assert unchecked.alt == "No data: no latent was checked."


def test_a_name_without_end_leaves_room_for_the_figure() -> None:
    changes = made.lens_causal(latents=4)
    endless = pl.format("{}{} of {}", pl.lit("word " * 3000), "set", "latent")
    drawing = drawn("lens_causal", changes.with_columns(set=endless), made.lens_causal_latents(4))[
        0
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib gives up its layout with a warning
        drawing.draw_without_rendering()
    titles = [
        text
        for text in texts(drawing).split(" | ")
        if text.startswith("latent ") and " of " in text
    ]
    assert [title[-5:] for title in titles] == [" of 0", " of 1", " of 2", " of 3"]
    assert max(map(len, titles)) < 80


def test_of_many_latents_of_no_class_a_part_is_drawn_and_said_to_be() -> None:
    drawing, _, rows = drawn("lens_moments", made.lens_latents(latents=5000))
    plain = (rows["class"] == "none").sum()
    first = drawing.axes[0].collections[0].get_offsets()
    assert plain > len(first) > 1000
    assert f"none ({plain:,}, {len(first):,} drawn)" in texts(drawing)
    few, _, rows = drawn("lens_moments")
    assert len(few.axes[0].collections[0].get_offsets()) == (rows["class"] == "none").sum()


def test_every_dot_of_a_token_set_stands_beside_its_name() -> None:
    drawing, _, rows = drawn("lens_manhattan")
    (panel,) = drawing.axes
    named = [label.get_text() for label in panel.get_yticklabels()]
    assert named == [name.replace("_", " ") for name in rows["set"].unique(maintain_order=True)]
    heights = [y for dots in panel.collections for y in dots.get_offsets()[:, 1]]
    assert sorted(round(float(y)) for y in heights) == sorted(rows["place"].to_list())
