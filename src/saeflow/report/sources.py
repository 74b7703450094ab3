"""A study's files as the report reads them: those that its config names, and nothing that an older
config left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import polars as pl
from safetensors import SafetensorError, safe_open

from saeflow import seals
from saeflow.analyses import Study
from saeflow.analyses.reading import read_study
from saeflow.analyses.steering.methods import PLANTED
from saeflow.analyses.steering.tables import of_chosen_latents
from saeflow.artifacts import check_checksums, read_json
from saeflow.config import AnyStudy, Goal, read_goal
from saeflow.config.locations import fetched, location
from saeflow.endpoint.ledger import Ledger
from saeflow.errors import DamagedError, SaeflowError
from saeflow.figures.figure import declared
from saeflow.report.asked import steered
from saeflow.report.dark import has_dark
from saeflow.report.page import Cost, FigureText, StudyResults
from saeflow.report.targets import Planted, TargetRow, target_rows
from saeflow.report.texts import first_samples
from saeflow.tables import read_table
from saeflow.tensors import metadata_of, open_hdf5

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
        base = self.root.parent.parent
        if fetched(self.study, name, lambda file: (base / file).exists()):
            return base / location(self.study, name, lambda file: (base / file).exists())
        return self.root / name

    def table(self, name: str) -> pl.DataFrame:
        """A table by its path without suffix; without rows and columns where the study has none."""
        return self._read(f"{name}.parquet", read_table, pl.DataFrame())

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file; empty where the study has none."""
        return self._read(name, read_json, {})

    def _read(self, name: str, read: Callable[[Path], T], otherwise: T) -> T:
        path = self.path(name)
        return read(path) if path.is_file() else otherwise

    def figures(self, names: list[str]) -> dict[str, FigureText]:
        """The words of some figures; those that were not drawn are left out."""
        texts = {}
        for figure in declared(self.study, self.study.analyses):
            svg = self.root / f"figures/{figure.name}.svg"
            if figure.name in names and svg.is_file():
                check_checksums(svg.with_suffix(".json"))
                texts[figure.name] = FigureText(
                    figure.name,
                    figure.section,
                    figure.title,
                    figure.caption,
                    _alternative(svg) or figure.title,
                    has_dark(svg.read_text("utf-8")),
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
    """The folder of a study of steering; the tables ``steering/summary`` and ``steering/best`` must
    be in it.

    Raises:
        SaeflowError: a file that every report needs is absent, or the config is wrong.
    """

    study: Study

    def __init__(self, root: Path) -> None:
        super().__init__(
            root,
            read_study,
            ("config.yaml", "steering/summary.parquet", "steering/best.parquet"),
        )

    @property
    def methods(self) -> list[str]:
        """The study's methods but those that are given latents which no study of real text
        knows."""
        return [
            method for method in steered(self.study).vectors.methods if not method.endswith(PLANTED)
        ]

    def targets(self, goal: str) -> dict[int, float]:
        """Target latents of a goal with their weights."""
        content = self.json(f"steering/{goal}/latents.json")
        return {int(latent): float(weight) for latent, weight in content.get("latents", {}).items()}

    def target_rows(self, goals: Mapping[str, Goal]) -> list[TargetRow]:
        """What is known of the latents that goals target; of goals of the study."""
        table = self.table("steering/targets")
        own = (
            table.filter(pl.col("goal").is_in(steered(self.study).goals.names))
            if len(table)
            else table
        )
        topics = {name: goal.topic or name for name, goal in goals.items()}
        recovery = self.table(f"saes/{self.study.target_sae}/recovery")
        return target_rows(own, recovery, topics)

    def side_effects(self, goal: str) -> pl.DataFrame:
        """Predicted and measured change of every latent, by method; only methods of the study."""
        table = self.table(f"steering/{goal}/side_effects")
        return table.filter(pl.col("method").is_in(self.methods)) if len(table) else table

    def samples(self, goal: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The first completions of every method and scale of a goal, and their scores."""
        samples, scores = [], []
        for method in self.methods:
            completions = self.table(f"steering/{goal}/{method}/completions")
            if completions.is_empty():
                continue
            samples.append(first_samples(completions))
            found = self.table(f"steering/{goal}/{method}/scores")
            if len(found):
                own = found.select("completion_id", "criterion", "score", "reason")
                scores.append(own.join(samples[-1], on="completion_id", how="semi"))
        return _joined(samples), _joined(scores)

    def goals(self, directory: Path | None) -> dict[str, Goal]:
        """What is known of the goals; nothing of those whose file is not there."""
        if directory is None:
            return {}
        paths = {name: Path(directory, f"{name}.yaml") for name in steered(self.study).goals.names}
        return {name: read_goal(path) for name, path in paths.items() if path.is_file()}

    def recovery(self) -> pl.DataFrame:
        """How well each SAE found what was planted, with the column sae; empty where the corpus
        plants nothing."""
        if self.study.corpus.kind != "tales":
            return pl.DataFrame()
        names = self.study.saes_of("sae", "transcoder")
        tables = ((name, self.table(f"saes/{name}/recovery")) for name in names)
        return _joined(
            [table.with_columns(sae=pl.lit(name)) for name, table in tables if len(table)]
        )

    def baseline(self) -> dict[str, Any]:
        """The metadata of the unsteered baseline."""
        return self._read(f"effects/{self.study.target_sae}/baseline.safetensors", _metadata, {})

    def vector_count(self) -> int:
        """How many vectors' effects were measured."""
        return self._read(f"effects/{self.study.target_sae}/effects.h5", _rows, 0)

    def cost(self) -> Cost | None:
        """What judging cost, where a model was asked."""
        if steered(self.study).judge.kind != "openai":
            return None
        return self._read("judging/ledger.sqlite", _cost, None)

    def results(self, figures: list[str], goals: Path | None) -> StudyResults:
        """All that is known of the study but for its completions and side effects, which are read
        goal by goal."""
        saes, described = list(self.saes()), self.goals(goals)
        best, comparisons = self.table("steering/best"), self.table("steering/comparisons")
        targets = self.target_rows(described)
        return StudyResults(
            study=self.study,
            provenance=self.json("provenance.json"),
            config=self.config(),
            goals=described,
            summary=of_chosen_latents(self.table("steering/summary")),
            best=of_chosen_latents(best),
            comparisons=of_chosen_latents(comparisons),
            ratings=of_chosen_latents(self.table("steering/ratings"))
            if steered(self.study).pairs
            else pl.DataFrame(),
            targets=targets,
            planted=Planted.of(best, comparisons, targets),
            figures=self.figures(figures),
            model_metrics=self.json(f"models/{self.study.model.name}.metrics.json"),
            sae_configs={name: config for name, config, _, _ in saes},
            sae_metrics={name: metrics for name, _, metrics, _ in saes},
            sae_training={name: table for name, _, _, table in saes if len(table)},
            recovery=self.recovery(),
            approximator_metrics=self.json(f"effects/{self.study.target_sae}/metrics.json"),
            baseline=self.baseline(),
            vector_count=self.vector_count(),
            cost=self.cost(),
        )


def _joined(tables: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def _alternative(svg: Path) -> str:
    """The text that a figure carries for those who do not see it."""
    try:
        node = next(ElementTree.parse(svg).iter(DESCRIPTION), None)
    except (OSError, ElementTree.ParseError) as error:
        raise DamagedError(f"{svg}: cannot be read as SVG ({error})", [svg]) from None
    return (node.text or "") if node is not None else ""


def _metadata(path: Path) -> dict[str, Any]:
    try:
        seals.check(path)
        with safe_open(path, framework="numpy") as file:
            return metadata_of(file, path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DamagedError(f"{path}: is no whole baseline ({error})", [path]) from None


def _rows(path: Path) -> int:
    try:
        seals.check(path)
        with open_hdf5(path) as file:
            return int(file["scale"].shape[0])
    except (OSError, KeyError) as error:
        raise DamagedError(f"{path}: cannot be read as effects ({error})", [path]) from None


def _cost(path: Path) -> Cost:
    ledger = Ledger(path)
    try:
        spent = ledger.spent()
        return Cost(spent.calls, spent.usd, ledger.usage())
    finally:
        ledger.close()
