"""Positions that are solved from some rating upwards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from saeflow.config.section import Section


class Transitions(Section):
    """Positions that the model solves when told a rating from some bin upwards."""

    correct: Literal["played", "strongest", "best"] = "strongest"
    """As in ``skill``."""
    positions: int = Field(default=1000, ge=1)
    """Most positions that are examined, drawn at random."""
