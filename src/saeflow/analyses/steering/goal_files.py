"""The files of a study's goals, held against the SAE that the study targets."""

from __future__ import annotations

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
            lacks.
    """
    goal = read_goal_for(own.judge, file)
    name = study.target_sae
    listed = goal.latents.get(name, {})
    width = _latents_known(study) if listed else None
    if width and (beyond := [latent for latent in listed if latent >= width]):
        raise SaeflowError(
            f"{file}: latents.{name}.{beyond[0]}: SAE '{name}' has latents 0 to {width - 1}"
        )
    return goal


def _latents_known(study: Study) -> int | None:
    """How many latents the targeted SAE has, where its config or its files tell that already."""
    sae = study.saes[study.target_sae]
    if sae.path and Path(sae.path).exists():
        try:
            return latents_of(Path(sae.path), sae.format)
        except SaeflowError:  # told by those that look at the SAE alone
            return None
    return sae.declared_width
