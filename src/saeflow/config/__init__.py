"""The configuration of a study."""

from saeflow.config.goal import Goal
from saeflow.config.reading import check_study, read_goal, read_study
from saeflow.config.section import Section
from saeflow.config.sections import (
    SAE,
    Activations,
    Approximator,
    Corpus,
    Effects,
    Fgaa,
    Figures,
    Goals,
    Judge,
    Model,
    ModelTraining,
    SAETraining,
    Sampling,
    Scale,
    Steering,
    Study,
    Summary,
    Tokens,
    Vectors,
)

__all__ = [
    "SAE",
    "Activations",
    "Approximator",
    "Corpus",
    "Effects",
    "Fgaa",
    "Figures",
    "Goal",
    "Goals",
    "Judge",
    "Model",
    "ModelTraining",
    "SAETraining",
    "Sampling",
    "Scale",
    "Section",
    "Steering",
    "Study",
    "Summary",
    "Tokens",
    "Vectors",
    "check_study",
    "read_goal",
    "read_study",
]
