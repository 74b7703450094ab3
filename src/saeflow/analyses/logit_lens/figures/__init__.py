"""Every figure of the logit lens, in the order of the report."""

from __future__ import annotations

from saeflow.analyses.logit_lens.figures import causal, latents, sets

FIGURES = (*latents.FIGURES, *sets.FIGURES, *causal.FIGURES)
