"""How latents and moves go with skill."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from saeflow.config.section import Names, Section

Share = Annotated[float, Field(gt=0, lt=1)]


class Skill(Section):
    """How a concept's latents and the model's moves go with the rating that the model is told."""

    groups: Names = Field(default=["defensive_threat", "offensive_threat"], min_length=1)
    """Families whose concepts are studied together (their moves tell whether a threat is met or
    taken), or names of single concepts."""
    positions: int = Field(default=2000, ge=10)
    """Most positions per group, drawn at random from the held-out games."""
    correct: Literal["played", "strongest", "best"] = "strongest"
    """What counts as the right move: the one ``played``, the model's own when told the
    ``strongest`` rating, or the ``best`` by an engine, where positions have it."""
    controls: int = Field(default=5, ge=1)
    """Random latents drawn per concept as a control; they fire about as often as the concept's."""
    resamples: int = Field(default=1000, ge=100)
    """Draws of weights of games that intervals of means rest on."""
    interval: Share = 0.95
    """Level of all intervals."""
