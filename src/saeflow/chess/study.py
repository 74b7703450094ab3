"""The whole config of a study of chess."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from saeflow.chess.analyses import ANALYSES
from saeflow.chess.analyses.blunders.settings import Blunders
from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.chess.analyses.engine.settings import Engine
from saeflow.chess.analyses.examples.settings import Examples
from saeflow.chess.analyses.fine_tune.settings import FineTuning
from saeflow.chess.analyses.interventions.settings import Interventions
from saeflow.chess.analyses.skill.settings import Skill
from saeflow.chess.analyses.transitions.settings import Transitions
from saeflow.chess.games.settings import Positions
from saeflow.chess.player.settings import Accuracy, ChessPlayer
from saeflow.chess.saes.settings import ChessActivations, ChessSAE
from saeflow.config.agreement import (
    about_names,
    group_disagreements,
    initial_disagreements,
    too_many_jobs,
)
from saeflow.config.face import Analysis
from saeflow.config.section import Complaint, Name, Section, refuse
from saeflow.config.sections.figures import Figures
from saeflow.config.sections.saes import Cache, spelled_out, trained_together


class ChessStudy(Section):
    """The whole config of a study of chess: SAEs on a model of human play."""

    analyses: ClassVar[Sequence[Analysis[Any, Any]]] = ANALYSES
    figures_of_core: ClassVar[str] = "saeflow.chess.figures"

    kind: Literal["chess"]
    """What is studied."""
    study: Name
    """Name of the study and of its folder under ``results/``."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of every random draw."""
    positions: Positions
    model: ChessPlayer = ChessPlayer(embedded="maia2-mini")
    accuracy: Accuracy = Accuracy()
    activations: ChessActivations = ChessActivations()
    saes: Annotated[dict[Name, ChessSAE], BeforeValidator(spelled_out)] = Field(min_length=1)
    examples: Examples | None = None
    """Where latents are active; null leaves it out, ``{}`` takes the defaults."""
    concepts: Concepts | None = None
    """Which latents tell which concepts; null leaves it out, ``{}`` takes the defaults."""
    skill: Skill | None = None
    """How latents and moves go with skill; null leaves it out, ``{}`` takes the defaults."""
    interventions: Interventions | None = None
    """Changes of concepts' latents; null leaves it out, ``{}`` takes the defaults."""
    transitions: Transitions | None = None
    """Positions solved from some rating upwards; null leaves it out, ``{}`` takes the defaults."""
    engine: Engine | None = None
    """Ask an engine about moves; null asks none, and none need be installed."""
    blunders: Blunders | None = None
    """Moves that lose much, by the word of ``engine``; null leaves it out."""
    fine_tune: FineTuning | None = None
    """Train the player further on ``blunders``, beside the one that is studied; null does not."""
    figures: Figures = Figures()

    @model_validator(mode="after")
    def _sections_agree(self) -> ChessStudy:
        complaints: list[Complaint] = [
            *about_names(self),
            *group_disagreements(self),
            *initial_disagreements(self),
            *(
                complaint
                for analysis, own in self.asked
                for complaint in analysis.complaints(self, own)
            ),
        ]
        complaints += too_many_jobs(
            "activations.positions", self.shards, "activations.positions_per_shard"
        )
        if self.model.train and self.positions.self_play:
            reason = (
                "a model that is trained here has no games of its own to learn from; give path, or "
                "embedded"
            )
            complaints.append(("positions.self_play", reason))
        blocks = 2 if self.model.embedded or self.model.official else self.model.shape.blocks_vit
        for name, sae in self.saes.items():
            if int(sae.hook.split(".")[1]) >= blocks:
                reason = (
                    f"'{sae.hook}' does not exist; the model has {blocks} blocks (0..{blocks - 1})"
                )
                complaints.append((f"saes.{name}.hook", reason))
        refuse(complaints)
        return self

    @property
    def asked(self) -> list[tuple[Analysis[Any, Any], Any]]:
        """The analyses that the study asks for, with their sections."""
        sections = ((analysis, analysis.section(self)) for analysis in self.analyses)
        return [(analysis, section) for analysis, section in sections if section is not None]

    @property
    def trainings(self) -> dict[str, list[str]]:
        """The SAEs that one job trains together, by the name of their group; alone, by their
        own."""
        return trained_together(self.saes)

    @property
    def hooks(self) -> list[str]:
        """Where activations are cached."""
        return list(dict.fromkeys(sae.hook for sae in self.saes.values() if sae.train))

    @property
    def caches(self) -> dict[str, list[str]]:
        """Where activations are cached, by model."""
        return {self.model.name: self.hooks}

    @property
    def shards(self) -> int:
        """Number of shards of the activation cache at one hook."""
        return -(-self.activations.positions // self.activations.positions_per_shard)

    @property
    def all_models(self) -> dict[str, ChessPlayer]:
        """The one model by its name."""
        return {self.model.name: self.model}

    def sources_of(self, sae: str) -> list[Cache]:
        """What one of the SAEs reads."""
        return [Cache(self.model.name, self.saes[sae].hook)]

    def caches_of(self, sae: str) -> list[Cache]:
        """What one of the SAEs is trained on."""
        return self.sources_of(sae)

    def hook_of(self, sae: str) -> str:
        """Where one of the SAEs reads."""
        return self.saes[sae].hook
