"""Figures of geometry: what there is much of stays readable."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import polars as pl
from drawing import SMALL
from matplotlib.text import Annotation

from saeflow.analyses.geometry.figures import (
    geometry_causes,
    geometry_circles,
    geometry_lines,
    of_causes,
)
from saeflow.analyses.geometry.latent_figures import BRANCHES, geometry_splitting
from saeflow.analyses.geometry.moving import CAUSES


def test_a_tree_of_many_latents_shows_so_many_of_each_sae_and_the_parents_of_these() -> None:
    def level(narrow: str, wide: str, widths: tuple[int, int], latents: int) -> pl.DataFrame:
        numbers = np.arange(latents)
        return pl.DataFrame(
            {
                "group": "number",
                "narrow": narrow,
                "narrow_width": widths[0],
                "wide": wide,
                "wide_width": widths[1],
                "latent": numbers,
                "word": "7",
                "kind": "general",
                "by": "decoder cosine",
                "parent": latents - 1 - numbers,
                "parent_in_group": True,
                "value": 1 - numbers / 1000,
            }
        )

    rows = pl.concat(
        [level("small", "middle", (512, 2048), 100), level("middle", "large", (2048, 8192), 100)]
    )
    panel = geometry_splitting(rows, SMALL).axes[0]
    shown = Counter(round(note.xy[0]) for note in panel.findobj(Annotation))
    assert shown == {0: BRANCHES, 1: BRANCHES, 2: BRANCHES}
    middle = {note.get_text() for note in panel.findobj(Annotation) if note.xy[0] == 1}
    assert middle == {str(latent) for latent in range(76, 100)}  # parents of the clearest of large
    assert "24 of its 100 latents in large" in panel.get_title(loc="left") + panel.get_title()


def test_a_text_that_is_told_an_impossible_number_leaves_room_for_the_others() -> None:
    years = np.linspace(1800, 2000, 40)
    rows = pl.DataFrame(
        {
            "line": "birth",
            "hook": "blocks.4.hook_resid_post",
            "r2": 0.9,
            "null_high": 0.0,
            "of": ["held out"] * 40 + ["headline"] * 40,
            "value": [*years, *years],
            "predicted": [*(years + 5), *years[:-1], 25_000.0],
        }
    )
    panel = geometry_lines(rows, SMALL).axes[0]
    assert panel.get_ylim()[1] < 2100
    edge = [line for line in panel.lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert [len(line.get_xdata()) for line in edge] == [1]


def test_decoding_and_effect_of_every_circle_stand_in_one_row() -> None:
    hooks = [f"blocks.{layer}.hook_resid_post" for layer in range(8)]
    rows = pl.DataFrame(
        {
            "of": "month",
            "hook": [hook for hook in hooks for _ in range(2)],
            "kind": ["circle", "random"] * 8,
            "measure": "moved",
            "value": [0.2, 0.1] * 8,
            "low": 0.05,
            "high": 0.4,
            "r2": 0.91,
            "null_high": 0.5,
        }
    )
    decoding, effect = geometry_causes(rows, SMALL).axes
    names = [label.get_text() for label in decoding.get_yticklabels()]
    assert names == [f"month, layer {layer}" for layer in range(8)]
    assert decoding.get_ylim() == effect.get_ylim()


def test_names_of_words_that_lie_close_can_all_be_read() -> None:
    angles = np.array([0.0, 0.05, 0.1, 0.12, 1.5, 1.55, 1.6, 3.1, 3.12, 4.6, 4.7, 4.75])
    months = "January February March April May June July August September October November December"
    rows = pl.DataFrame(
        {
            "group": "month",
            "hook": "blocks.4.hook_resid_post",
            "word": months.split(),
            "x": np.cos(angles),
            "y": np.sin(angles),
            "r2": 0.9,
            "null_high": 0.5,
        }
    )
    drawing = geometry_circles(rows, SMALL)
    drawing.canvas.draw()
    boxes = [note.get_window_extent() for note in drawing.axes[0].findobj(Annotation)]
    assert len(boxes) == 12
    assert not any(first.overlaps(second) for first, second in combinations(boxes, 2))


def test_the_farthest_move_stands_beside_what_the_line_tells() -> None:
    hook = "blocks.4.hook_resid_post"
    lines = pl.DataFrame(
        {"line": "time", "hook": hook, "method": "ridge", "r2": 0.9, "null_high": 0.1}
    )
    for steps, shown in (([-2.0, -1.0], -2.0), ([-2.0, 1.0, 2.0], 2.0)):
        causes = pl.DataFrame(
            [
                ("time", hook, "shift", "line", step, "change", step, step, step, 5)
                for step in steps
            ],
            schema=CAUSES,
            orient="row",
        )
        assert of_causes(pl.DataFrame(), lines, causes, SMALL)["value"].to_list() == [shown]
