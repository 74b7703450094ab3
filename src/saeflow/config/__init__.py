"""The configuration of a study."""

from saeflow.config.any_study import AnyStudy
from saeflow.config.goal import Goal
from saeflow.config.questions import Question, Questions
from saeflow.config.reading import (
    read_catalogue,
    read_goal,
    read_pairs,
    read_questions,
    read_token_sets,
)
from saeflow.config.section import Section
from saeflow.config.sections import (
    SAE,
    Activations,
    Calls,
    Corpus,
    Dataset,
    Figures,
    Judge,
    Message,
    Model,
    ModelTraining,
    Package,
    Publish,
    Published,
    SAETraining,
    Sampling,
    Tokens,
    Tuning,
)
from saeflow.config.token_sets import TokenSet, TokenSets

__all__ = [
    "SAE",
    "Activations",
    "AnyStudy",
    "Calls",
    "Corpus",
    "Dataset",
    "Figures",
    "Goal",
    "Judge",
    "Message",
    "Model",
    "ModelTraining",
    "Package",
    "Publish",
    "Published",
    "Question",
    "Questions",
    "SAETraining",
    "Sampling",
    "Section",
    "TokenSet",
    "TokenSets",
    "Tokens",
    "Tuning",
    "read_catalogue",
    "read_goal",
    "read_pairs",
    "read_questions",
    "read_token_sets",
]
