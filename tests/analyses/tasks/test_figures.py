"""Figures of tasks: what is written beside the lines can be read."""

from __future__ import annotations

from itertools import combinations

import polars as pl
from drawing import SMALL
from matplotlib.text import Annotation

from saeflow.analyses.tasks.figures import tasks_numbers


def test_names_of_levels_do_not_lie_upon_each_other() -> None:
    losses = {"zero_shot": 7.7, "few_shot": 0.5, "mean": 7.6, "cleaned": 7.2}
    rows = pl.DataFrame(
        {
            "sae": "late",
            "task": "plural",
            "method": list(losses),
            "latents": [None, None, None, 4],
            "loss": list(losses.values()),
            "loss_low": [loss - 0.2 for loss in losses.values()],
            "loss_high": [loss + 0.2 for loss in losses.values()],
            "chosen": [False, False, False, True],
        }
    )
    drawing = tasks_numbers(rows, SMALL)
    drawing.canvas.draw()
    labels = [label for label in drawing.axes[0].findobj(Annotation) if label.get_text()]
    assert {label.get_text() for label in labels} == {
        "no examples",
        "with examples",
        "mean, whole",
    }
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
