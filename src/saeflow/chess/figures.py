"""Every figure of a study of chess."""

from __future__ import annotations

from saeflow.chess.analyses.concepts import figures as concepts
from saeflow.chess.analyses.interventions import figures as interventions
from saeflow.chess.analyses.skill import figures as skill
from saeflow.chess.player import figures as player
from saeflow.figures import registry

SECTIONS = {
    "player": tuple(player.FIGURES),
    "concepts": tuple(concepts.FIGURES),
    "skill": tuple(skill.FIGURES),
    "interventions": tuple(interventions.FIGURES),
    "saes": ("sae_training",),
    "latents": (),
}
"""Where in the report each stands."""
FIGURES: dict[str, registry.FigureKind] = {
    **player.FIGURES,
    **concepts.FIGURES,
    **skill.FIGURES,
    **interventions.FIGURES,
    "sae_training": registry.FIGURES["sae_training"],
}
