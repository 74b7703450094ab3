"""An engine's word on positions."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from saeflow.config.section import LocalPath, Section, refuse


class Engine(Section):
    """An engine that says which moves are best, and how much others lose. Each position is asked
    about with one thread and an empty memory, so that the answers are the same in any order and on
    any machine."""

    command: LocalPath = "stockfish"
    """A program that speaks UCI: its name, or its path."""
    depth: int | None = Field(default=12, ge=1, le=60)
    """Where its search ends, in half moves; null is no limit."""
    nodes: int | None = Field(default=None, ge=1)
    """Where its search ends, too: positions looked at, so that every question costs the same; null
    is no limit."""
    hash: int = Field(default=16, ge=1, le=65_536)
    """Memory of its search, in MB."""
    split: Literal["model", "sae", "eval"] = "eval"
    """Whose games are evaluated."""
    positions: int = Field(default=1000, ge=1)
    """Most positions that are evaluated, drawn at random."""
    positions_per_job: int = Field(default=250, ge=1)
    """How many of them one job evaluates."""

    @model_validator(mode="after")
    def _search_ends(self) -> Engine:
        if self.depth is None and self.nodes is None:
            refuse([("", "give depth or nodes, or both; a search must end")])
        return self

    @property
    def jobs(self) -> int:
        """How many jobs evaluate the positions."""
        return math.ceil(self.positions / self.positions_per_job)
