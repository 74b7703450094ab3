"""What is kept of where latents are active."""

from __future__ import annotations

from pydantic import Field

from saeflow.config.section import Section


class Examples(Section):
    """Positions in which each latent of an SAE is active, how strongly, and with which pieces."""

    positions: int = Field(default=20_000, ge=100)
    """Most positions that are looked at; whole games, but for the last, are drawn at random, the
    same as those of ``concepts``."""
    top: int = Field(default=8, ge=1)
    """Positions per latent with the largest activations, one of a game."""
    strata: int = Field(default=4, ge=0)
    """Equal parts of the range from 0 to a latent's largest activation, from each of which
    positions are drawn."""
    per_stratum: int = Field(default=2, ge=1)
    """Positions drawn from each part."""
    bins: int = Field(default=40, ge=2)
    """Of the histogram of activations above 0."""
    minimum: int = Field(default=25, ge=2)
    """A piece on a square is looked at where as many positions have it, and as many have not."""
