"""What a model goes on from: text, or messages for its chat template."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from saeflow.config.section import Section


class Message(Section):
    """A prompt may be a list of messages, which the model's chat template writes as text; the last
    is by the user, or by the assistant and then gone on with."""

    role: Literal["system", "developer", "user", "assistant"]
    """Who speaks, by the names that chat templates know."""
    content: str
    """What is said."""


def _kind(prompt: Any) -> str:
    return "[messages]" if isinstance(prompt, (list, dict)) else "[text]"


Prompt = Annotated[
    Annotated[str, Tag("[text]")]
    | Annotated[list[Message], Field(min_length=1), Tag("[messages]")],
    Discriminator(_kind),
]
