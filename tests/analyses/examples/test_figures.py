"""The figure of how often latents fire."""

from __future__ import annotations

import figure_tables as made
import numpy as np
import polars as pl
from drawing import drawn, texts


def test_every_latent_stands_in_one_bin_of_its_density_or_is_told_never_to_fire() -> None:
    table = made.densities(["main", "other"])
    drawing, alt, rows = drawn("latent_density", table)
    for name in ("main", "other"):
        own, bins = (each.filter(pl.col("sae") == name) for each in (table, rows))
        density = own["density"].to_numpy()
        assert bins["latents"].sum() + bins["never"][0] == len(own) == bins["all"][0]
        assert bins["never"][0] == (density == 0).sum() == 40
        low, high, count = bins.select("low", "high", "latents").row(bins["latents"].arg_max())
        assert ((density >= low) & (density < high)).sum() == count
        assert bins["median"][0] == np.median(density[density > 0])
    assert np.allclose(np.diff(np.log10(rows.filter(sae="main")["low"])), 1 / 8)
    assert drawing.axes[0].get_xscale() == "log"
    assert "40 of 400 never fire" in texts(drawing)
    assert "other: of 400 latents 40 never fire" in alt


def test_an_sae_whose_latents_all_fire_always_or_never_is_drawn() -> None:
    always = pl.DataFrame({"sae": ["a"] * 3, "latent": [0, 1, 2], "density": [1.0, 1.0, 1.0]})
    drawing, _, rows = drawn("latent_density", always)
    drawing.draw_without_rendering()
    assert rows["latents"].sum() == 3
    drawing, alt, rows = drawn("latent_density", always.with_columns(density=pl.lit(0.0)))
    drawing.draw_without_rendering()
    assert rows["never"][0] == 3
    assert "none fires" in alt
