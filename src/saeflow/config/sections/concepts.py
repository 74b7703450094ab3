"""Concepts of chess in an SAE's latents, how they go with skill, and interventions on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from saeflow.config.section import Names, Section, Unique

Share = Annotated[float, Field(gt=0, lt=1)]


class Concepts(Section):
    """Which concepts are looked for among an SAE's latents, and how."""

    families: Names = Field(
        default=["defensive_threat", "offensive_threat", "piece", "strategic", "tactical"],
        min_length=1,
    )
    """Families of concepts: ``defensive_threat`` and ``offensive_threat`` (more attackers than
    protectors, one concept per square), ``defensive_exchange`` and ``offensive_exchange`` (captures
    on the square win material), ``piece`` (a piece of a kind on a square), ``strategic`` (the
    published list), ``tactical`` (forks and pins), ``user`` (entry points
    ``saeflow.chess_concepts`` of installed packages)."""
    positions: int = Field(default=20_000, ge=100)
    """Most positions that are studied; whole games, but for the last, are drawn at random."""
    held_out: Share = 0.5
    """Share of the games that have no part in choosing latents; what is reported is measured on
    them."""
    minimum: int = Field(default=25, ge=2)
    """A concept is skipped, and named, where fewer positions of either half have it, or lack it. A
    latent that fires in fewer positions of the half that chooses is not chosen."""
    games: int = Field(default=30, ge=2)
    """Held-out games in which a concept must hold somewhere, and as many in which it must be absent
    somewhere, for an interval, p and q. Games are the units of all three; of fewer nothing is
    claimed, and the tables say so."""
    latents: int = Field(default=5, ge=1)
    """Latents kept per concept and direction."""
    rotations: int = Field(default=20, ge=1)
    """How often the best latent is sought with labels and positions out of step by a game or more:
    what a search over so many latents finds where there is nothing."""
    draws: int = Field(default=4000, ge=100)
    """How often held-out games get the labels of other games, rotated within them: p is the share
    of draws with an area as far from one half, so that none is below 1 / (1 + draws)."""
    correction: Literal["bh", "by"] = "bh"
    """False discovery rate over all kept pairs: Benjamini and Hochberg, or Benjamini and Yekutieli,
    which holds under any dependence."""
    interval: Share = 0.95
    """Level of all intervals."""
    probe_penalty: float = Field(default=1e-3, gt=0)
    """Of the linear probes: the L2 penalty on weights of standardised activations, beside the mean
    loss."""


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


class Transitions(Section):
    """Positions that the model solves when told a rating from some bin upwards."""

    correct: Literal["played", "strongest", "best"] = "strongest"
    """As in ``skill``."""
    positions: int = Field(default=1000, ge=1)
    """Most positions that are examined, drawn at random."""
