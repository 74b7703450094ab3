"""What an analysis of a language model's latents is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel
    from saeflow.saes.sae import SAE


@dataclass(frozen=True)
class Subject:
    """A language model, an SAE of it, and the place in the model where they meet."""

    lm: LanguageModel
    sae: SAE
    hook: str
    """Where latents are read, or where what they write is added."""
    seed: int
    """Of the study; every draw is named by it and a purpose."""
