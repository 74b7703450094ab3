"""Panels leave room for what stands above them."""

from __future__ import annotations

import itertools

import pytest

from saeflow.config.sections import Figures
from saeflow.figures.style import panels


@pytest.mark.parametrize("width", [5.0, 9.0])
@pytest.mark.parametrize("title", ["short", "a title of about thirty letters", "x" * 60])
def test_no_title_runs_into_the_next_panel(title: str, width: float) -> None:
    figure, axes = panels(12, Figures(width=width), 2.0, titles=[title] * 12)
    for panel in axes:
        panel.set_title(title, fontweight="bold")
    figure.draw_without_rendering()
    boxes = [panel.title.get_window_extent() for panel in axes]
    for box, following in itertools.pairwise(boxes):
        if abs(box.y0 - following.y0) < 1:
            assert box.x1 < following.x0
