"""Crosscoders with the models that they read, for commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saeflow import options
from saeflow.analyses.diffing.scaling import Sides, sides_by_model
from saeflow.analyses.diffing.texts import Text, check_comparable
from saeflow.config.sections import Activations
from saeflow.saes.comparison import Seen
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.io import load_of_models
from saeflow.saes.placing import sources_of


def open_crosscoder(
    models: Sequence[Path],
    sae: Path,
    base: str,
    tokens: Any,
    activations: str,
    cached: Sequence[str],
    dtype: str,
) -> tuple[Crosscoder, Text, dict[str, Sides]]:
    """A crosscoder on this process's device, the text as its sources see it, and by the name of
    every model that is compared with the base the two sides."""
    crosscoder = load_of_models(sae)
    opened = {folder.name: options.open_model(folder, dtype) for folder in models}
    places = sources_of(crosscoder, opened)
    seen = [Seen(name, opened[name], hook) for name, hook in places]
    pairs = sides_by_model(places, base)
    for sides in pairs.values():
        check_comparable(seen[sides.base[0]], seen[sides.tuned[0]], tokens)
    exclusion = options.parsed(Activations, activations)
    text = Text(seen, tokens, exclusion, hooks_by_model(cached))
    return crosscoder.to(options.device()), text, pairs


def hooks_by_model(cached: Sequence[str]) -> dict[str, list[str]]:
    """By model the hooks of caches that are named ``model:hook``."""
    hooks: dict[str, list[str]] = {}
    for model, _, hook in (place.rpartition(":") for place in cached):
        hooks.setdefault(model, []).append(hook)
    return hooks
