"""Every figure of the core of a study of chess."""

from __future__ import annotations

from saeflow.chess.player import figures as player
from saeflow.figures.trainings import SAE_TRAINING

FIGURES = (*player.FIGURES, SAE_TRAINING)
