"""What a study of chess found, read from its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from polars.exceptions import PolarsError

from saeflow.chess.analyses.concepts import TABLES as CONCEPT_TABLES
from saeflow.chess.analyses.examples import TABLES as LATENT_TABLES
from saeflow.chess.report.latent_pages import LatentTables
from saeflow.chess.study import ChessStudy
from saeflow.config.reading import checked, merged_files
from saeflow.errors import DamagedError
from saeflow.report.folder import Folder
from saeflow.report.page import Findings

PROBE, DIFFERENCE = "probe", "difference_of_means"


class ConceptTables(NamedTuple):
    """The tables about concepts in one SAE; empty where the study has none."""

    concepts: pl.DataFrame
    associations: pl.DataFrame
    probes: pl.DataFrame
    boards: pl.DataFrame
    skill: pl.DataFrame
    interventions: pl.DataFrame
    shifts: pl.DataFrame

    @property
    def best(self) -> pl.DataFrame:
        """Per concept the latent that was chosen first and fires with it, and the areas of both
        baselines.

        Columns are those of associations, ``probe``, ``means`` and ``positions`` (held-out ones
        that have the concept). Where nothing is claimed, because too few games have the concept,
        interval, p and q are null.
        """
        if self.associations.is_empty():
            return pl.DataFrame()
        table = self.associations.filter((pl.col("direction") == 1) & (pl.col("rank") == 0))
        for name, method in (("probe", PROBE), ("means", DIFFERENCE)):
            if self.probes.is_empty():
                table = table.with_columns(pl.lit(None, pl.Float64).alias(name))
                continue
            own = self.probes.filter(pl.col("method") == method).select(
                "concept", pl.col("auc").alias(name)
            )
            table = table.join(own, on="concept", how="left", maintain_order="left")
        counts = pl.DataFrame(schema={"concept": pl.String, "positions": pl.Int64})
        if not self.concepts.is_empty():
            counts = self.concepts.select(
                "concept", pl.col("held_out_positives").alias("positions")
            )
        joined = table.join(counts, on="concept", how="left", maintain_order="left")
        numbers = [name for name, kind in joined.schema.items() if kind == pl.Float64]
        claims = pl.col("auc_low", "auc_high", "p", "q")
        return joined.with_columns(pl.col(numbers).fill_nan(None)).with_columns(
            pl.when(pl.col("untested").is_null()).then(claims)
        )

    @property
    def skipped(self) -> pl.DataFrame:
        """family, skipped (the reason), concepts (how many)."""
        if self.concepts.is_empty():
            return pl.DataFrame()
        left = self.concepts.drop_nulls("skipped").group_by(
            "family", "skipped", maintain_order=True
        )
        return left.agg(pl.len().alias("concepts"))

    @property
    def studied(self) -> tuple[int, int]:
        """How many positions chose latents, and how many were held out."""
        if self.concepts.is_empty():
            return 0, 0
        row = self.concepts.row(0, named=True)
        return row["positives"] + row["negatives"], row["held_out_positives"] + row[
            "held_out_negatives"
        ]


@dataclass(frozen=True, kw_only=True)
class ChessResults(Findings):
    """What is known of a study of chess."""

    study: ChessStudy
    tables: dict[str, ConceptTables]
    """By SAE."""
    latents: dict[str, LatentTables]
    """By SAE."""
    accuracy: pl.DataFrame = field(default_factory=pl.DataFrame)
    transitions: pl.DataFrame = field(default_factory=pl.DataFrame)
    engine: pl.DataFrame = field(default_factory=pl.DataFrame)
    """What an engine says of positions; this and what follows from it where the config asks one."""
    blunders: pl.DataFrame = field(default_factory=pl.DataFrame)
    fine_tuning: pl.DataFrame = field(default_factory=pl.DataFrame)
    positions: int = 0
    games: int = 0
    read: dict[str, Any] = field(default_factory=dict)
    """What became of the games of a file."""
    stages: pl.DataFrame = field(default_factory=pl.DataFrame)
    """What every rule took: rule, jobs, seconds, cpu_seconds, peak_mb."""

    @property
    def strata(self) -> int:
        """Parts of each latent's range that positions were drawn from."""
        return self.study.examples.strata if self.study.examples else 0


class ChessFolder(Folder):
    """The folder of a study of chess; ``config.yaml`` must be in it."""

    study: ChessStudy

    def __init__(self, root: Path) -> None:
        super().__init__(
            root, lambda config: checked(ChessStudy, merged_files(config), str(config))
        )

    def concepts(self, sae: str) -> ConceptTables:
        """The tables about concepts in one SAE."""
        concepts, associations, probes, boards = (
            self.asked_table("concepts", f"{sae}/{name}") for name in CONCEPT_TABLES
        )
        skill = self.asked_table("skill", f"{sae}/skill")
        interventions, shifts = (
            self.asked_table("interventions", f"{sae}/{name}")
            for name in ("interventions", "shifts")
        )
        return ConceptTables(concepts, associations, probes, boards, skill, interventions, shifts)

    def latents(self, sae: str) -> LatentTables:
        """The tables about the latents of one SAE."""
        latents, boards, histogram, squares = (
            self.asked_table("examples", f"{sae}/{name}") for name in LATENT_TABLES
        )
        associations = self.asked_table("concepts", f"{sae}/associations")
        return LatentTables(latents, boards, histogram, squares, associations)

    def asked_table(self, key: str, name: str) -> pl.DataFrame:
        """A table of an analysis; without rows and columns where the study does not ask for it."""
        asked = getattr(self.study, key) is not None
        return self.table(f"{key}/{name}") if asked else pl.DataFrame()

    def results(self, stages: pl.DataFrame) -> ChessResults:
        """All that is known of the study."""
        saes = list(self.saes())
        positions, games = self.read("games/positions.parquet", _counts, (0, 0))
        return ChessResults(
            study=self.study,
            provenance=self.json("provenance.json"),
            config=self.config(),
            figures=self.figures(),
            sae_configs={name: config for name, config, _, _ in saes},
            sae_metrics={name: metrics for name, _, metrics, _ in saes},
            sae_training={name: table for name, _, _, table in saes if len(table)},
            tables={name: self.concepts(name) for name in self.study.saes},
            latents={name: self.latents(name) for name in self.study.saes},
            accuracy=self.table(f"models/{self.study.model.name}.accuracy"),
            transitions=self.asked_table("transitions", "transitions"),
            engine=self.asked_table("engine", "evaluations"),
            blunders=self.asked_table("blunders", "blunders"),
            fine_tuning=self.asked_table("fine_tune", "accuracy"),
            positions=positions,
            games=games,
            read=self.json("games/positions.json"),
            stages=stages,
        )


def _counts(path: Path) -> tuple[int, int]:
    """How many positions and games there are, without the positions in memory."""
    try:
        counts = (
            pl.scan_parquet(path)
            .select(pl.len(), pl.col("game").n_unique().alias("games"))
            .collect()
        )
    except (OSError, PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise DamagedError(f"{path}: cannot be read as positions ({reason})", [path]) from None
    return counts.row(0)[0], counts.row(0)[1]
