"""Reading the tables that figures are drawn from, and writing figures."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import matplotlib.style
import polars as pl
from matplotlib.figure import Figure

from saeflow import seals
from saeflow.artifacts import atomic, read_json, write_checksums
from saeflow.config.sections import Figures
from saeflow.errors import DamagedError
from saeflow.figures.registry import FigureKind
from saeflow.figures.style import STYLE
from saeflow.figures.tables import of_chosen_latents
from saeflow.tables import read_table, write_table
from saeflow.tensors import open_hdf5


class StudyTables(NamedTuple):
    """The tables of a study; one that does not exist is empty."""

    summary: pl.DataFrame
    best: pl.DataFrame
    comparisons: pl.DataFrame
    matched: pl.DataFrame
    side_effects: pl.DataFrame
    """With the column goal."""
    predictions: pl.DataFrame
    """With the columns r2 and r2_ceiling where they are known over all held-out effects."""
    recovery: pl.DataFrame
    """With the column sae."""
    saes: pl.DataFrame
    """All SAEs, those that differ in the seed alone as one row."""
    sources: pl.DataFrame
    """Of crosscoders, with the column sae."""
    sae_training: pl.DataFrame
    """With the column sae."""
    model_training: pl.DataFrame
    """With the column entropy where it is known."""
    effects: pl.DataFrame
    """Scale and status of every vector whose effects were measured."""
    lens_latents: pl.DataFrame
    """With the column sae."""
    lens_splits: pl.DataFrame
    lens_enrichment: pl.DataFrame
    """With the columns sae and kind."""
    lens_scores: pl.DataFrame
    """With the columns kind and strongest: whether no other latent stands out more for the set."""
    lens_causal: pl.DataFrame
    """With the columns set, r_addition and r_ablation of its latent."""


def read_tables(root: Path, paths: Iterable[Path]) -> StudyTables:
    """Read the tables among some files of a study.

    Args:
        root: the folder of the study.
        paths: files below it; those that hold no table are passed over.

    Raises:
        SaeflowError: a file is absent or cannot be read.
    """
    tables = Tables(root, sorted(paths, key=str))
    return StudyTables(
        summary=of_chosen_latents(tables.table("steering/summary.parquet")),
        best=of_chosen_latents(tables.table("steering/best.parquet")),
        comparisons=of_chosen_latents(tables.table("steering/comparisons.parquet")),
        matched=of_chosen_latents(tables.table("steering/matched.parquet")),
        side_effects=of_chosen_latents(tables.table("steering/*/side_effects.parquet", "goal")),
        predictions=tables.with_metric(
            tables.with_metric(
                tables.table("effects/*/predictions.parquet"),
                "r2",
                "effects/*/metrics.json",
            ),
            "r2_ceiling",
            "effects/*/metrics.json",
        ),
        recovery=tables.table("saes/*/recovery.parquet", "sae"),
        saes=tables.table("saes/summary.parquet"),
        sources=tables.table("saes/*/sources.parquet", "sae"),
        sae_training=tables.table("saes/*/training.parquet", "sae"),
        model_training=tables.with_metric(
            tables.table("models/*/training.parquet"), "entropy", "models/*.metrics.json"
        ),
        effects=tables.effects(),
        lens_latents=tables.table("logit_lens/*/latents.parquet", "sae"),
        lens_splits=tables.table("logit_lens/*/splits.parquet"),
        lens_enrichment=(
            enrichment := tables.with_kinds(tables.table("logit_lens/*/enrichment.parquet", "sae"))
        ),
        lens_scores=with_strongest(
            tables.with_kinds(tables.table("logit_lens/*/scores.parquet")), enrichment
        ),
        lens_causal=tables.joined(
            "logit_lens/*/causal.parquet", "logit_lens/*/causal_latents.parquet", "latent"
        ),
    )


def matching(root: Path, paths: Iterable[Path], pattern: str) -> Iterator[Path]:
    """Those of the paths that match a pattern of ``docs/design.md`` §6; a star stands for one
    folder's name.

    What was fetched lies outside the study's folder, in a folder of the same layout.
    """
    wanted = PurePosixPath(pattern).parts
    for path in paths:
        parts = (
            path.relative_to(root).parts
            if path.is_relative_to(root)
            else path.parts[-len(wanted) :]
        )
        if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
            yield path


class Tables:
    """The tables among some files of a study, read when asked for.

    Args:
        root: the folder of the study.
        paths: files below it.
    """

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        self.root, self.paths = root, paths

    def table(self, pattern: str, folder: str | None = None) -> pl.DataFrame:
        """All tables that match, one below the other; ``folder`` names a column that holds the name
        of their folder."""
        found = []
        for path in matching(self.root, self.paths, pattern):
            table = read_table(path)
            found.append(
                table.with_columns(pl.lit(path.parent.name).alias(folder)) if folder else table
            )
        return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame()

    def with_metric(self, table: pl.DataFrame, name: str, pattern: str) -> pl.DataFrame:
        """The table with one number of a metrics file in a column of that name, where the file has
        it."""
        for path in matching(self.root, self.paths, pattern):
            value = read_json(path).get(name)
            if value is not None and not table.is_empty():
                return table.with_columns(pl.lit(float(value)).alias(name))
        return table

    def with_kinds(self, table: pl.DataFrame) -> pl.DataFrame:
        """The table with the kind of each token set."""
        sets = self.table("logit_lens/sets.parquet")
        if table.is_empty() or sets.is_empty():
            return table.clear()
        return table.with_columns(pl.col("set").cast(pl.String)).join(
            sets.select("set", "kind"), on="set", how="left"
        )

    def joined(self, pattern: str, others: str, key: str) -> pl.DataFrame:
        """One table with the columns of another beside it."""
        table, other = self.table(pattern), self.table(others)
        return (
            table if table.is_empty() or other.is_empty() else table.join(other, on=key, how="left")
        )

    def effects(self) -> pl.DataFrame:
        found = [_scales(path) for path in matching(self.root, self.paths, "effects/*/effects.h5")]
        return pl.concat(found) if found else pl.DataFrame()


def with_strongest(scores: pl.DataFrame, enrichment: pl.DataFrame) -> pl.DataFrame:
    """Scores with a column that marks the pairs of latent and set that are enriched most for their
    set."""
    if scores.is_empty() or enrichment.is_empty():
        return scores.clear()
    leaders = enrichment.sort(pl.col("effect").abs(), "latent", descending=[True, False]).unique(
        "set", keep="first", maintain_order=True
    )
    marked = leaders.select("latent", "set", strongest=pl.lit(value=True))
    return scores.join(marked, on=["latent", "set"], how="left").with_columns(
        pl.col("strongest").fill_null(value=False)
    )


def _scales(path: Path) -> pl.DataFrame:
    try:
        seals.check(path)
        with open_hdf5(path) as file:
            names, numbers = file["status"].attrs["names"], file["status"][:]
            return pl.DataFrame(
                {"scale": file["scale"][:], "status": [str(names[number]) for number in numbers]}
            )
    except (OSError, KeyError) as error:
        raise DamagedError(f"{path}: cannot be read as effects ({error})", [path]) from None


def table_of(figure: FigureKind, root: Path, paths: Iterable[Path]) -> pl.DataFrame:
    """The table that a figure is drawn from; the arguments are those of `read_tables`."""
    if isinstance(figure.source, str):
        table: pl.DataFrame = getattr(read_tables(root, paths), figure.source)
        return table
    return figure.source(Tables(root, sorted(paths, key=str)))


def write_figure(
    name: str, figure: FigureKind, table: pl.DataFrame, settings: Figures, directory: Path
) -> list[Path]:
    """Draw one figure of a study and save it.

    Args:
        name: of its files.
        figure: which.
        table: from `table_of`.
        settings: of the stage.
        directory: where it is saved.

    Returns:
        The files written, ``<directory>/<name>.png``, ``.svg`` and ``.csv``.

    Raises:
        SaeflowError: a file cannot be written.
    """
    rows = figure.rows(table, settings)
    return save(figure.draw(rows, settings), directory / name, rows, figure.title, figure.alt(rows))


def save(figure: Figure, path: Path, rows: pl.DataFrame, title: str, alt: str) -> list[Path]:
    """Write a figure as PNG and SVG, the rows behind it as CSV, their checksums as JSON; equal
    figures are equal bytes.

    Args:
        path: without suffix.
        title, alt: kept inside the pictures, so that they stay readable to those who do not see
            them.
    """
    path = Path(path)
    told = {"Title": title, "Description": alt}
    kinds = {"png": {**told, "Software": None}, "svg": {**told, "Creator": None, "Date": None}}
    for kind, metadata in kinds.items():
        target = path.with_name(f"{path.name}.{kind}")
        with matplotlib.style.context(STYLE, after_reset=True), atomic(target) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)
    write_table(path.with_name(f"{path.name}.csv"), rows)
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg", "csv")]
    write_checksums(path.with_name(f"{path.name}.json"), files)
    return files
