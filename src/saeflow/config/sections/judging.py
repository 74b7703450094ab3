"""Who scores completions, and how scores are summarised."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from saeflow.config.section import Section


class Judge(Section):
    """Who scores completions, between 0 and 1, for behaviour and for coherence."""

    kind: Literal["planted", "lexical"] = "planted"
    """``planted``: exact, by the grammar; only for the corpus ``tales``. ``lexical``: word lists of the goal for the
    behaviour, the unsteered model's own loss for the coherence; for any language model."""
    saturation: float = Field(default=0.2, gt=0, le=1)
    """``lexical``: share of a completion's words, from the goal's list, that scores 1."""


class Summary(Section):
    """Tables of goals, methods and scales."""

    bootstrap: int = Field(default=1000, ge=100)
    """Resamples of the completions behind every interval."""
    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the intervals."""
    selection: float = Field(default=0.5, gt=0, lt=1)
    """Share of the completions that choose the scale; the others report."""
