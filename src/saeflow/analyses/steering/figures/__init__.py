"""Every figure of steering, in the order of the report."""

from __future__ import annotations

from saeflow.analyses.steering.figures import (
    behaviour,
    forest,
    matched,
    scales,
    search,
    side_effects,
)

FIGURES = (
    *forest.FIGURES,
    *scales.FIGURES,
    *matched.FIGURES,
    *behaviour.FIGURES,
    *side_effects.FIGURES,
    *search.FIGURES,
)
