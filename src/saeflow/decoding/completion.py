"""A text that a model made of a prompt."""

from __future__ import annotations

from typing import NamedTuple


class Completion(NamedTuple):
    """A prompt and the text a model made of it."""

    prompt: str
    text: str
    """Prompt and continuation."""
    prompt_ids: tuple[int, ...] | None = None
    """The tokens that the model read, BOS first; None where the prompt is known as text alone."""
    continuation_ids: tuple[int, ...] | None = None
    """The tokens that the model drew; None where the continuation is known as text alone."""

    @property
    def continuation(self) -> str | None:
        """The text without its prompt; None if the text does not open with the prompt, as one from
        elsewhere may.

        In such a text white space around the prompt is overlooked: tokenizers add and drop it.
        """
        if self.text.startswith(self.prompt):
            return self.text[len(self.prompt) :]
        text, prompt = self.text.lstrip(), self.prompt.strip()
        return text[len(prompt) :] if text.startswith(prompt) else None
