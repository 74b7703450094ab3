"""The configuration of a study: every key, its default, its meaning, and what must agree with what.

The JSON schema for Snakemake and the config reference of the docs are generated from these models.
Nothing here imports torch: a wrong config is refused before anything heavy is loaded.

A section holds only what changes the stage's result. Machines (threads, devices, batch sizes) are
told to the workflow by profiles and to commands by options.
"""

from saeflow.config.sections.data import (
    Activations,
    Corpus,
    Model,
    ModelTraining,
    Tokens,
    Tuning,
)
from saeflow.config.sections.figures import Figures
from saeflow.config.sections.judging import Calls, Judge, Price
from saeflow.config.sections.prompts import Message, Prompt
from saeflow.config.sections.publish import Publish
from saeflow.config.sections.published import Dataset, Fetchable, Package, PackageFile, Published
from saeflow.config.sections.saes import SAE, SAETraining
from saeflow.config.sections.sampling import Sampling
from saeflow.config.sections.study import Core

__all__ = [
    "SAE",
    "Activations",
    "Calls",
    "Core",
    "Corpus",
    "Dataset",
    "Fetchable",
    "Figures",
    "Judge",
    "Message",
    "Model",
    "ModelTraining",
    "Package",
    "PackageFile",
    "Price",
    "Prompt",
    "Publish",
    "Published",
    "SAETraining",
    "Sampling",
    "Tokens",
    "Tuning",
]
