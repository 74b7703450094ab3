"""Changes of latents while the model chooses its move."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from saeflow.config.section import Names, Section, Unique

Share = Annotated[float, Field(gt=0, lt=1)]


class Interventions(Section):
    """Changes of a concept's latents while the model chooses its move."""

    groups: Names = Field(default=["defensive_threat", "offensive_threat"], min_length=1)
    """As in ``skill``."""
    modes: Annotated[list[Literal["multiply", "add", "clamp"]], Unique] = Field(
        default=["multiply", "add", "clamp"], min_length=1
    )
    """``multiply`` a latent by the strength, ``add`` the strength, or ``clamp`` to it; the latter
    two in units of the latent's mean where it fires."""
    strengths: Annotated[list[float], Unique] = Field(default=[2.0, 5.0, 10.0, 20.0], min_length=1)
    """Tried on the games that choose."""
    latents: Annotated[list[Annotated[int, Field(ge=1)]], Unique] = Field(
        default=[1, 3], min_length=1
    )
    """Numbers of latents changed together, the concept's best first."""
    directions: Annotated[list[Literal["probe", "difference_of_means"]], Unique] = Field(
        default=["probe"]
    )
    """Edits along directions of the activations' own space, beside those of latents: of linear
    probes, of differences of means; their modes are those of ``modes`` but ``multiply``. Empty
    edits latents alone."""
    direction_strengths: Annotated[list[float], Unique] = Field(
        default=[1.0, 2.0, 4.0], min_length=1
    )
    """Tried along directions, in units of what lies along one between the means of positions that
    lack the concept and of those that have it."""
    positions: int = Field(default=600, ge=10)
    """Most positions per group and half that need the concept, that have it without need, and that
    lack it."""
    correct: Literal["played", "strongest", "best"] = "strongest"
    """As in ``skill``."""
    bins: Annotated[list[Annotated[int, Field(ge=0)]], Unique] = Field(default=[])
    """Rating bins to tell the model, counted from 0; empty is all but the strongest."""
    minimum: int = Field(default=20, ge=2)
    """A rating bin of a group is skipped where fewer positions of either half need the concept."""
    controls: int = Field(default=3, ge=1)
    """Draws of random latents that fire about as often, changed in the same way."""
    resamples: int = Field(default=1000, ge=100)
    """Draws of weights of games that intervals of means rest on."""
    interval: Share = 0.95
    """Level of all intervals."""

    @field_validator("strengths")
    @classmethod
    def _strengths_do_something(cls, strengths: list[float]) -> list[float]:
        if 1.0 in strengths:
            raise ValueError(
                "1.0 changes nothing when it multiplies, it is the control that is made anyway; "
                "remove it"
            )
        return strengths

    @model_validator(mode="after")
    def _directions_have_a_mode(self) -> Interventions:
        if self.directions and not set(self.modes) & {"add", "clamp"}:
            raise ValueError(
                "directions cannot be multiplied, and modes has nothing else; add 'add' or 'clamp' "
                "to modes, or set directions: []"
            )
        return self
