"""Plain words for what steering names: judges, and what intervals are for."""

from __future__ import annotations

JUDGES = {
    "planted": "Scores are exact: the grammar that wrote the corpus tells how much of a text is "
    "about the topic, and "
    "how much of it the grammar could have written.",
    "lexical": "Behaviour is the share of a text's words that are on the goal's list; coherence "
    "compares the unsteered "
    "model's loss on the text with its loss on its own texts.",
    "openai": "Scores are a language model's answers to one question per text and criterion.",
}


def intervals_for(prompts: int) -> str:
    """For what completions the intervals of scores are, by how many different prompts the study
    has."""
    if prompts == 1:
        return "for more completions of the study's one prompt and for no other prompts"
    return f"for prompts like the study's {prompts}, which are drawn with all their completions"
