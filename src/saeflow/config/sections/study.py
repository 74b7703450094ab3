"""The whole config."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from saeflow.config.agreement import disagreements
from saeflow.config.section import HookName, Name, Section, refuse
from saeflow.config.sections.data import Activations, Corpus, Model
from saeflow.config.sections.effects import Approximator, Effects
from saeflow.config.sections.figures import Figures
from saeflow.config.sections.judging import Calls, Judge, Summary
from saeflow.config.sections.publish import Publish
from saeflow.config.sections.saes import SAE, without_sweeps
from saeflow.config.sections.steering import Goals, Steering


class Study(Section):
    """The whole config."""

    study: Name
    """Name of the study and of its folder under ``results/``."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of every random draw."""
    corpus: Corpus = Corpus()
    model: Model
    hook: HookName
    """Where vectors are added, and where SAEs read that name no hook of their own; a TransformerLens name:
    ``blocks.2.hook_resid_post``."""
    activations: Activations = Activations()
    saes: Annotated[dict[Name, SAE], BeforeValidator(without_sweeps)] = Field(min_length=1)
    effects: Effects = Effects()
    approximator: Approximator = Approximator()
    goals: Goals
    steering: Steering = Steering()
    judge: Judge = Judge()
    calls: Calls = Calls()
    summary: Summary = Summary()
    figures: Figures = Figures()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _sections_agree(self) -> Study:
        refuse(disagreements(self))
        return self

    @property
    def steering_sae(self) -> str:
        """The SAE whose latents are targeted."""
        return self.steering.sae or next(iter(self.saes))

    @property
    def trainings(self) -> dict[str, list[str]]:
        """The SAEs that one job trains together, by the name of their group; alone, by their own."""
        found: dict[str, list[str]] = {}
        for name, sae in self.saes.items():
            if sae.train:
                found.setdefault(sae.group or name, []).append(name)
        return found

    @property
    def hooks(self) -> list[str]:
        """Where activations are cached; first the hook that is steered."""
        trained = [self.hook_of(name) for name, sae in self.saes.items() if sae.train]
        return list(dict.fromkeys([self.hook, *self.activations.hooks, *trained]))

    def hook_of(self, sae: str) -> str:
        """Where one of the SAEs reads."""
        return self.saes[sae].hook or self.hook

    @property
    def layer(self) -> int:
        """The layer of the hook."""
        return int(self.hook.split(".")[1])

    @property
    def last_layer(self) -> int:
        """The last layer that is run for the cache."""
        return max(int(hook.split(".")[1]) for hook in self.hooks)
