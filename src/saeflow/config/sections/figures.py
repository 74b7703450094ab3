"""How figures look."""

from __future__ import annotations

from pydantic import Field

from saeflow.config.section import Names, Section


class Figures(Section):
    """How figures look; nothing else depends on it."""

    dpi: int = Field(default=120, ge=50, le=600)
    """Dots per inch of the .png files."""
    detail_goals: Names = Field(default=[])
    """Goals drawn in detail; empty is the first two."""
    width: float = Field(default=9.0, ge=3, le=30)
    """Width of a figure in inches."""
