"""How tokens are drawn."""

from __future__ import annotations

from pydantic import Field

from saeflow.config.section import Section


class Sampling(Section):
    """How the next token is drawn."""

    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_k: int | None = Field(default=None, ge=1)
    """Keep the k most probable tokens; null keeps all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Then keep the smallest set whose probability reaches this; null keeps all.

    The published SAE-TS runs name top_k 50 and top_p 0.3, but the sampler they used ignores top_p
    once top_k is set: write ``{top_k: 50}`` for what they did, both for what they say."""
