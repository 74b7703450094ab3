"""Moves that lose much."""

from __future__ import annotations

from pydantic import Field

from saeflow.config.section import Section


class Blunders(Section):
    """Moves that lose much: those that were played, and those that the model chooses when told the
    weakest rating, where a stronger one is right."""

    least: float = Field(default=1.5, gt=0)
    """Pawns that a move must lose to be a blunder."""
