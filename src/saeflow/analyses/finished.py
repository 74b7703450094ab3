"""A finished study of a language model, for commands that try something of it at the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saeflow.analyses import Study
from saeflow.analyses.reading import read_study
from saeflow.config.locations import SAE_FILES, place_in
from saeflow.errors import SaeflowError


@dataclass(frozen=True)
class FinishedStudy:
    """A study and where its results lie."""

    study: Study
    results: Path

    @classmethod
    def read(cls, results: Path) -> FinishedStudy:
        """The study in a folder of results.

        Raises:
            SaeflowError: there is none.
        """
        record = results / "config.yaml"
        if not record.is_file():
            raise SaeflowError(f"{results}: holds no results of a study; name another folder")
        return cls(read_study(record), results.resolve())

    def file(self, path: str) -> Path:
        """Where an artifact lies, its own or a published one.

        Args:
            path: below the study's folder.
        """
        return place_in(self.study, self.results, path)

    @property
    def model(self) -> Path:
        """The model's folder."""
        return self.file(f"models/{self.study.model.name}")

    def sae(self, name: str) -> Path:
        """The folder of one of its SAEs.

        Raises:
            SaeflowError: it has no such SAE.
        """
        if name not in self.study.saes:
            there = ", ".join(self.study.saes)
            raise SaeflowError(f"{self.results}: there is no SAE '{name}'; there are {there}")
        return self.file(f"saes/{name}/{SAE_FILES[1]}").parent


def only_study() -> Path:
    """The folder of the only study below ``results/``.

    Raises:
        SaeflowError: there is none, or there are several.
    """
    studies = [path.parent for path in sorted(Path("results").glob("*/config.yaml"))]
    if len(studies) != 1:
        held = "several studies" if studies else "no study"
        raise SaeflowError(f"results/ holds {held}; name the folder of one with --study")
    return studies[0]
