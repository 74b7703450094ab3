"""The files of a study's goals, held against the SAE that the study targets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.config import Goal
from saeflow.config.sae_files import latents_of
from saeflow.errors import SaeflowError
from saeflow.judging.goals import read_goal_for

if TYPE_CHECKING:
    from saeflow.analyses import Study
    from saeflow.analyses.steering.settings import Steering


def read_goal_of(study: Study, own: Steering, file: Path) -> Goal:
    """Read one goal's file for a study.

    Args:
        study: the study.
        own: what it asks of steering.
        file: the YAML file.

    Raises:
        SaeflowError: as `read_goal_for` does, or the goal names a latent that the study's SAE
            lacks, or an SAE whose name is the study's but for a slip.
    """
    goal = read_goal_for(own.judge, file)
    name = study.target_sae
    listed = goal.latents.get(name, {})
    if not listed and (slip := _misspelt(name, goal.latents.keys() - study.saes.keys())):
        raise SaeflowError(
            f"{file}: latents.{slip}: this study targets the SAE '{name}' and has no '{slip}'; "
            f"write '{name}', or rename one of the two if another study's SAE is meant"
        )
    width = _latents_known(study) if listed else None
    if width and (beyond := [latent for latent in listed if latent >= width]):
        raise SaeflowError(
            f"{file}: latents.{name}.{beyond[0]}: SAE '{name}' has latents 0 to {width - 1}"
        )
    return goal


def _misspelt(name: str, listed: Iterable[str]) -> str | None:
    """The listed name that is nearly this. Goals are shared by studies whose SAEs have other names,
    which often differ in a number: 2b and 9b, layer 10 and 11."""
    letters = {other: re.sub(r"\d+", "", other) for other in (*listed, name)}
    others = [other for other in listed if letters[other] != letters[name]]
    return next(iter(get_close_matches(name, others, 1, 0.85)), None)


def _latents_known(study: Study) -> int | None:
    """How many latents the targeted SAE has, where its config or its files tell that already."""
    sae = study.saes[study.target_sae]
    if sae.path and Path(sae.path).exists():
        try:
            return latents_of(Path(sae.path), sae.format)
        except SaeflowError:  # told by those that look at the SAE alone
            return None
    return sae.declared_width
