"""What a study publishes, and where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from saeflow.config.section import REPOSITORY, Section, Text, Unique


class Publish(Section):
    """What ``saeflow publish`` and the target ``publish`` put on a hub; nothing else depends on
    it."""

    repo: str | None = Field(default=None, pattern=REPOSITORY)
    """The repository; it is made if need be."""
    repo_type: Literal["model", "dataset"] = "model"
    """Of the repository."""
    private: bool = True
    """Whether a repository that is made is private; one that exists stays what it is."""
    contents: Annotated[list[Text], Unique] | None = Field(default=None, min_length=1)
    """What is published, of what the study computed itself: ``saes``, ``figures``, and analyses by
    their keys; null is all."""
    licence: Text | None = None
    """The hub's key of the licence, such as ``mit`` or ``cc-by-4.0``."""
    upload: bool = False
    """Upload. If not, the card is written and what would be uploaded is listed."""
