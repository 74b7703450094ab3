"""Every figure of the core of a study of a language model."""

from __future__ import annotations

from saeflow.figures import crosscoders, frontiers, trainings

FIGURES = (*frontiers.FIGURES, *trainings.FIGURES, *crosscoders.FIGURES)
