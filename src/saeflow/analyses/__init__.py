"""What may be asked of a study beside its core: one folder per analysis.

Two lines register an analysis: its face in `ANALYSES`, and its section in `Study`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from saeflow.analyses import (
    decomposition,
    diffing,
    directions,
    dreaming,
    effects,
    examples,
    geometry,
    labels,
    logit_lens,
    probing,
    steering,
    tasks,
)
from saeflow.analyses.decomposition.settings import Decomposition
from saeflow.analyses.diffing.settings import Diffing
from saeflow.analyses.directions.settings import Directions
from saeflow.analyses.dreaming.settings import Dreaming
from saeflow.analyses.effects.settings import Effects
from saeflow.analyses.examples.settings import Examples
from saeflow.analyses.geometry.settings import Geometry
from saeflow.analyses.labels.settings import Labels
from saeflow.analyses.logit_lens.settings import LogitLens
from saeflow.analyses.probing.settings import Probing
from saeflow.analyses.steering.settings import Steering
from saeflow.analyses.tasks.settings import Tasks
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint
from saeflow.config.sections.study import Core

ANALYSES = (
    examples.ANALYSIS,
    logit_lens.ANALYSIS,
    probing.ANALYSIS,
    effects.ANALYSIS,
    steering.ANALYSIS,
    directions.ANALYSIS,
    decomposition.ANALYSIS,
    geometry.ANALYSIS,
    tasks.ANALYSIS,
    dreaming.ANALYSIS,
    labels.ANALYSIS,
    diffing.ANALYSIS,
)
"""In the order of plans and reports."""


class Study(Core):
    """The whole config of a study of a language model."""

    analyses: ClassVar[Sequence[Analysis[Any, Any]]] = ANALYSES

    examples: Examples | None = None
    """Where latents fire; null leaves it out of the study, ``{}`` takes the defaults."""
    logit_lens: LogitLens | None = None
    """What latents do to the logits; null leaves it out, ``{}`` takes the defaults."""
    probing: Probing | None = None
    """What probes tell of texts from latents and from activations; null leaves it out."""
    effects: Effects | None = None
    """What steering vectors do to latents; null leaves it out, ``{}`` takes the defaults."""
    steering: Steering | None = None
    """Steering towards goals; null leaves it out."""
    directions: Directions | None = None
    """Directions of a behaviour, taken out and added; null leaves it out."""
    decomposition: Decomposition | None = None
    """Directions as sums of few decoder rows of SAEs; null leaves it out."""
    geometry: Geometry | None = None
    """Circles of words and lines of numbers; null leaves it out."""
    tasks: Tasks | None = None
    """Tasks of examples as vectors and as latents; null leaves it out, ``{}`` takes the
    defaults."""
    dreaming: Dreaming | None = None
    """Prompts that move latents most; null leaves it out, ``{}`` takes the defaults."""
    labels: Labels | None = None
    """Words for latents; null leaves it out, ``{}`` takes the defaults."""
    diffing: Diffing | None = None
    """What sets models apart; null leaves it out, ``{}`` takes the defaults."""

    @property
    def target_sae(self) -> str:
        """The SAE whose latents are targeted, and whose effects are measured."""
        named = (self.steering and self.steering.sae) or (self.effects and self.effects.sae)
        return named or next(iter(self.saes))

    def complaints_about_target(self, key: str) -> list[Complaint]:
        """What is wrong with the SAE whose latents are targeted.

        Args:
            key: that names it, or may.
        """
        name = self.target_sae
        if not (source := self.saes.get(name)):
            return [(key, f"there is no SAE '{name}'; saes names {', '.join(self.saes)}")]
        if source.kind != "sae":
            analysis = key.partition(".")[0]
            return [(key, f"'{name}' is a {source.kind}, and {analysis} needs an SAE; name one")]
        if source.model not in (None, self.model.name):
            reason = f"reads '{source.model}', and latents of '{self.model.name}' are targeted"
            return [(f"saes.{name}.model", f"{reason}; name another SAE in {key}")]
        if source.hook not in (None, self.hook):
            reason = f"'{source.hook}' is not the study's hook '{self.hook}', where latents are"
            return [(f"saes.{name}.hook", f"{reason} targeted; name another SAE in {key}")]
        return []
