"""Plain words for what steering names: judges, and what intervals are for."""

from __future__ import annotations

from saeflow.analyses.steering.settings import Steering


def intervals(settings: Steering) -> str:
    """What brackets and bands of scores are, and for what completions."""
    prompts = len(set(map(str, settings.completions.prompts)))
    return f"{100 * settings.summary.level:g} % intervals, {intervals_for(prompts)}"


def intervals_for(prompts: int) -> str:
    """For what completions the intervals of scores are, by how many different prompts the study
    has."""
    if prompts == 1:
        return "for more completions of the study's one prompt and for no other prompts"
    return f"for prompts like the study's {prompts}, which are drawn with all their completions"
