"""What a study of any kind tells: the core asks no more of it, and knows no kind but its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from saeflow.config.face import Analysis
    from saeflow.config.sections.saes import Cache, SAETraining


class AnySAE(Protocol):
    """One of a study's SAEs."""

    @property
    def train(self) -> SAETraining | None:
        """How it is trained here; None for one that is imported."""

    @property
    def path(self) -> str | None:
        """Its folder or file, where it is imported from this machine."""

    @property
    def format(self) -> str:
        """Of `path`."""


class AnyStudy(Protocol):
    """The whole config of a study; `saeflow.kinds` lists the kinds there are."""

    analyses: ClassVar[Sequence[Analysis[Any, Any]]]
    """Those that a study of this kind may ask for."""
    figures_of_core: ClassVar[str]
    """The module that declares the figures of what every study of this kind has."""

    @property
    def kind(self) -> str:
        """What is studied."""

    @property
    def study(self) -> str:
        """Name of the study and of its folder under ``results/``."""

    @property
    def seed(self) -> int:
        """Of every random draw."""

    @property
    def saes(self) -> Mapping[str, AnySAE]:
        """The SAEs by their names."""

    @property
    def asked(self) -> list[tuple[Analysis[Any, Any], Any]]:
        """The analyses that the study asks for, with their sections."""

    @property
    def trainings(self) -> dict[str, list[str]]:
        """The SAEs that one job trains together, by the name of their group."""

    @property
    def caches(self) -> dict[str, list[str]]:
        """Where activations are cached, by model."""

    @property
    def shards(self) -> int:
        """Number of shards of the activation cache at one hook."""

    @property
    def all_models(self) -> Mapping[str, object]:
        """Every model by its name."""

    def sources_of(self, sae: str) -> list[Cache]:
        """What one of the SAEs reads."""

    def caches_of(self, sae: str) -> list[Cache]:
        """What one of the SAEs is trained on."""

    def hook_of(self, sae: str) -> str:
        """Where one of the SAEs reads."""

    def model_dump(self, *, mode: str = ...) -> dict[str, Any]:
        """The config as a mapping, every default filled in."""

    def model_dump_json(self, *, exclude: set[str] | None = ...) -> str:
        """The same as JSON, without some keys."""
