"""A goal: a behaviour to steer towards, described by one YAML file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from saeflow.config.section import Examples, Name, Section, Text, refuse

Latent = Annotated[int, Field(ge=0)]
Weights = Annotated[dict[Latent, float], Field(min_length=1)]


class Goal(Section):
    """One goal's file."""

    title: Text
    """Its name in figures and tables."""
    criterion: Text
    """What a judge is asked: a sentence that is true of a text that shows the behaviour."""
    instruction: Text | None = None
    """``prompt``: what the model is told; by default that its text is to meet the criterion."""
    topic: Name | None = None
    """``planted``: the topic of the corpus ``tales``; default is the file's name."""
    positive: Examples
    """Texts that show the behaviour: contrast examples for ``caa`` and for choosing latents."""
    negative: Examples
    """Texts that do not."""
    words: list[Text] = Field(default=[])
    """``lexical``: words and phrases; a trailing ``*`` matches any ending."""
    latents: dict[Name, Weights] = Field(default={})
    """By SAE: the latents to target and their weights; chosen from the examples where absent."""

    @model_validator(mode="after")
    def _tells_apart(self) -> Goal:
        positive = set(self.positive)
        both = [text for text in self.negative if text in positive]
        bare = [word for word in self.words if not word.strip("* ")]
        idle = [
            f"latents.{sae}.{latent}"
            for sae, weights in self.latents.items()
            for latent, weight in weights.items()
            if weight == 0
        ]
        refuse(
            [("negative", f"{text!r} is also in positive") for text in both]
            + [("words", f"{word!r} matches everything; put letters before the *") for word in bare]
            + [(key, "weight 0 targets nothing; remove it") for key in idle]
        )
        return self
