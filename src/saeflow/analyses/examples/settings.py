"""What is kept of where latents fire."""

from __future__ import annotations

from pydantic import Field

from saeflow.config.section import Section


class Examples(Section):
    """Where latents fire, from the cache of activations."""

    top: int = Field(default=12, ge=1)
    """Contexts per latent with the largest activations, one per block of text."""
    strata: int = Field(default=4, ge=0)
    """Equal parts of the range from 0 to a latent's largest activation, from each of which contexts
    are drawn."""
    per_stratum: int = Field(default=4, ge=1)
    """Contexts drawn from each part."""
    before: int = Field(default=20, ge=0)
    """Tokens shown before the one that fires."""
    after: int = Field(default=6, ge=0)
    """Tokens shown after it."""
    cofiring: int = Field(default=8, ge=0)
    """Latents listed per latent that fire together with it."""
    cofiring_rows: int = Field(default=100_000, ge=1)
    """Rows of the cache drawn to find them."""
