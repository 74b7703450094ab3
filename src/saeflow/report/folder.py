"""A study's files as the report reads them: those that its config names, and nothing that an older
config left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import polars as pl

from saeflow import seals
from saeflow.artifacts import check_checksums, read_json
from saeflow.config import AnyStudy
from saeflow.config.locations import place_in
from saeflow.config.sections import Core
from saeflow.errors import DamagedError, SaeflowError
from saeflow.figures.figure import figures_of
from saeflow.report.page import FigureText, StudyFindings
from saeflow.tables import read_table

T = TypeVar("T")
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"


class Folder:
    """The folder of a study of any kind.

    Args:
        root: the folder.
        read: reads the config of this kind of study.
        needed: files that must be in it; all others may be missing, and what they hold is left out.

    Raises:
        SaeflowError: a file that every report needs is absent, or the config is wrong.
    """

    study: AnyStudy

    def __init__(
        self,
        root: Path,
        read: Callable[[Path], AnyStudy],
        needed: tuple[str, ...] = ("config.yaml",),
    ) -> None:
        self.root = Path(root)
        for name in needed:
            if not (self.root / name).is_file():
                raise SaeflowError(
                    f"{self.root / name}: no such file; a report needs it, run the study up to "
                    "there"
                )
        seals.check(self.root / "config.yaml")
        self.study = read(self.root / "config.yaml")

    def path(self, name: str) -> Path:
        """Where a file of the study lies: in its folder, or among the published ones that were
        fetched."""
        return place_in(self.study, self.root, name)

    def table(self, name: str) -> pl.DataFrame:
        """A table by its path without suffix; without rows and columns where the study has none."""
        return self.read(f"{name}.parquet", read_table, pl.DataFrame())

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file; empty where the study has none."""
        return self.read(name, read_json, {})

    def read(self, name: str, read: Callable[[Path], T], otherwise: T) -> T:
        """A file by its path, as a function reads it; `otherwise` where the study has none."""
        path = self.path(name)
        return read(path) if path.is_file() else otherwise

    def figures(self) -> dict[str, FigureText]:
        """The words of the study's figures; those that were not drawn are left out."""
        texts = {}
        for figure in figures_of(self.study).values():
            svg = self.root / f"figures/{figure.name}.svg"
            if svg.is_file():
                check_checksums(svg.with_suffix(".json"))
                texts[figure.name] = FigureText(
                    figure.name,
                    figure.section,
                    figure.title,
                    figure.caption,
                    *_described(svg, figure.title),
                )
        return texts

    def saes(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], pl.DataFrame]]:
        """Name, ``cfg.json``, ``metrics.json`` and training curve of every SAE."""
        for name in self.study.saes:
            folder = f"saes/{name}"
            yield (
                name,
                self.json(f"{folder}/cfg.json"),
                self.json(f"{folder}/metrics.json"),
                self.table(f"{folder}/training"),
            )

    def config(self) -> str:
        """The study's config as text."""
        return (self.root / "config.yaml").read_text(encoding="utf-8")


class StudyFolder(Folder):
    """The folder of a study of a language model.

    Args:
        root: the folder.
        read: reads its config.
        beside: where files lie that the config names and pages show, by the key of the analysis; by
            default where the config says.
    """

    study: Core

    def __init__(
        self,
        root: Path,
        read: Callable[[Path], Core],
        beside: Mapping[str, Path] | None = None,
    ) -> None:
        super().__init__(root, read)
        self.beside = dict(beside or {})

    def section(self, key: str) -> Any:
        """The section of an analysis; None where the study does not ask for it."""
        return next((own for analysis, own in self.study.asked if analysis.key == key), None)

    def names(self, key: str) -> Mapping[str, Sequence[str]]:
        """What names in braces stand for in the paths of an analysis; nothing where it is not asked
        for."""
        asked = {analysis.key: (analysis, own) for analysis, own in self.study.asked}
        if key not in asked:
            return {}
        analysis, own = asked[key]
        return analysis.names(self.study, own)

    def recovery(self) -> pl.DataFrame:
        """How well each SAE found what was planted, with the column sae; empty where the corpus
        plants nothing."""
        if self.study.corpus.kind != "tales":
            return pl.DataFrame()
        names = self.study.saes_of("sae", "transcoder")
        tables = ((name, self.table(f"saes/{name}/recovery")) for name in names)
        return joined_tables(
            [table.with_columns(sae=pl.lit(name)) for name, table in tables if len(table)]
        )

    def results(self) -> StudyFindings:
        """What is known of the study beside its analyses."""
        saes = list(self.saes())
        return StudyFindings(
            study=self.study,
            provenance=self.json("provenance.json"),
            config=self.config(),
            figures=self.figures(),
            model_metrics=self.json(f"models/{self.study.model.name}.metrics.json"),
            sae_configs={name: config for name, config, _, _ in saes},
            sae_metrics={name: metrics for name, _, metrics, _ in saes},
            sae_training={name: table for name, _, _, table in saes if len(table)},
            recovery=self.recovery(),
        )


def joined_tables(tables: list[pl.DataFrame]) -> pl.DataFrame:
    """Tables one after another, with all columns that any has; empty where there are none."""
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def _described(svg: Path, otherwise: str) -> tuple[str, float, float]:
    """The text that a figure carries for those who do not see it, its width and height in
    points."""
    try:
        root = ElementTree.parse(svg).getroot()
        _, _, width, height = map(float, root.attrib["viewBox"].split())
    except (OSError, KeyError, ValueError, ElementTree.ParseError) as error:
        raise DamagedError(f"{svg}: cannot be read as SVG ({error})", [svg]) from None
    node = next(root.iter(DESCRIPTION), None)
    return (node.text if node is not None else None) or otherwise, width, height
