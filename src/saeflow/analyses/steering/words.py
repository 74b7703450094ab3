"""Plain words for what steering names: judges, and what intervals are for."""

from __future__ import annotations


def intervals_for(prompts: int) -> str:
    """For what completions the intervals of scores are, by how many different prompts the study
    has."""
    if prompts == 1:
        return "for more completions of the study's one prompt and for no other prompts"
    return f"for prompts like the study's {prompts}, which are drawn with all their completions"
