"""The small model that comes with saeflow, and which studies take it instead of training it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.config.sections.data import Model, ModelTraining

if TYPE_CHECKING:
    from saeflow.config.sections import Core

EMBEDDED = Path(__file__).parents[1] / "models" / "tales-lm"
"""The folder of its checkpoint. ``recipe.json`` says what it was trained by."""


def is_embedded(study: Core, model: Model) -> bool:
    """Whether training a model of a study would give the one that comes with saeflow, and the study
    does not insist on it."""
    if model.source == "compute" or model.train is None or study.corpus.kind != "tales":
        return False
    recipe = {
        "seed": study.seed,
        "context": study.corpus.context,
        "tokens": study.corpus.tokens.model,
    }
    return (model.train, recipe) == _recipe()


@cache
def embedded_digest() -> str:
    """The SHA-256 of its weights: another version of saeflow may come with others."""
    return hashlib.sha256((EMBEDDED / "model.safetensors").read_bytes()).hexdigest()


@cache
def _recipe() -> tuple[ModelTraining, dict[str, int]]:
    recipe = json.loads((EMBEDDED / "recipe.json").read_text(encoding="utf-8"))
    return ModelTraining(**recipe.pop("train")), recipe["corpus"]
