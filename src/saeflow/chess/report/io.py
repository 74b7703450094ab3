"""Writing the report of a study of chess."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from saeflow.artifacts import atomic, check_replaceable
from saeflow.chess.report.boards import piece_symbols, position
from saeflow.chess.report.concept_list import list_value
from saeflow.chess.report.concept_page import (
    concept_context,
    family_rows,
    position_file,
    skill_value,
)
from saeflow.chess.report.latent_pages import LatentTables, page_values
from saeflow.chess.report.latent_pages import list_value as latents_value
from saeflow.chess.report.page import chess_context, concept_lines
from saeflow.chess.report.results import ChessFolder, ChessResults, ConceptTables
from saeflow.chess.report.wording import BOARD_METRICS
from saeflow.report.files import write_assets, write_figures
from saeflow.report.payload import write_script
from saeflow.report.sae_page import sae_context, training_value
from saeflow.report.site import Site

PACKAGE = "saeflow.chess.report"
LATENT_PAGES = "saeflow.analyses.examples"
"""Whose script finds a latent's page by its address."""

PAGES = {"index": "Study", "latents": "Latents", "concepts": "Concepts", "saes": "SAEs"}
"""What the bar of every page links to, by the pages' names; that of an analysis where it was asked
for."""


def write_report(root: Path, output: Path, stages: pl.DataFrame | None = None) -> Path:
    """Write the report of a study of chess into a folder that needs nothing beside itself.

    An earlier report is replaced as a whole. Memory: the tables of concepts.

    Args:
        root: the study's folder.
        output: the folder to write.
        stages: what its rules took, for its cost.

    Returns:
        The first page.

    Raises:
        SaeflowError: ``config.yaml`` is absent, a file that is there cannot be read, or the folder
            to write holds something else.
    """
    check_replaceable(output)
    results = ChessFolder(root).results(pl.DataFrame() if stages is None else stages)
    with atomic(output) as temporary:
        own = {PACKAGE: ("concepts.js", "board-page.js"), LATENT_PAGES: ("latents.js",)}
        write_assets(temporary, own)
        write_figures(root, results, temporary)
        _write(results, temporary)
    return output / "index.html"


def _write(results: ChessResults, output: Path) -> None:
    sought = results.study.concepts is not None
    looked_at = [sae for sae, tables in results.latents.items() if not tables.latents.is_empty()]
    asked = {"concepts": sought, "latents": bool(looked_at)}
    pages = {name: label for name, label in PAGES.items() if asked.get(name, True)}
    site = Site(results, pages, [PACKAGE], latents=looked_at)
    write_script(output, "saes", training_value(results))
    hooks = list(dict.fromkeys(map(results.study.hook_of, results.study.saes)))
    context = {"lines": concept_lines(results), "families": family_rows(results)}
    written = {
        "index.html": ("chess.html", chess_context(results)),
        "saes.html": (
            "saes.html",
            sae_context(results, hooks, [], BOARD_METRICS, "positions of games"),
        ),
    }
    if sought:
        written["concepts.html"] = ("concepts.html", context)
    if looked_at:
        written["latents.html"] = ("chess_latents.html", {"pieces": piece_symbols()})
    for sae in looked_at:
        _write_latents(sae, results.latents[sae], results.strata, output)
    for sae, tables in results.tables.items() if sought else ():
        _write_concepts(sae, tables, sae in looked_at, output)
        written[f"concepts-{sae}.html"] = ("sae_concepts.html", concept_context(results, sae))
    for name, (template, values) in written.items():
        (output / name).write_bytes(site.page(template, values))


def _write_latents(sae: str, tables: LatentTables, strata: int, output: Path) -> None:
    """Write the list of an SAE's latents and their pages."""
    write_script(output, f"latents-{sae}", latents_value(sae, tables.statistics))
    for number, pages in enumerate(page_values(tables, strata)):
        write_script(output, f"latents-{sae}/{number:05d}", pages)


def _write_concepts(sae: str, tables: ConceptTables, with_pages: bool, output: Path) -> None:
    """Write the data and the pictures of an SAE's page."""
    shown = set() if tables.boards.is_empty() else set(tables.boards["concept"])
    if not tables.best.is_empty():
        write_script(output, f"concepts-{sae}", list_value(sae, tables.best, shown, with_pages))
    write_script(output, f"skill-{sae}", skill_value(tables.skill))
    for number, row in enumerate(tables.boards.to_dicts()):
        file = output / position_file(sae, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        square = row["square"] if row["square"] >= 0 else None
        file.write_text(position(row["fen"], row["move"], square), encoding="utf-8")
