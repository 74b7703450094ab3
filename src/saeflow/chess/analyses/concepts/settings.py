"""Concepts of chess in an SAE's latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from saeflow.config.section import Names, Section

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
