"""Writing the report of a study of chess."""

from __future__ import annotations

from pathlib import Path

from saeflow.report.boards import position
from saeflow.report.chess_page import chess_context, concept_lines
from saeflow.report.chess_results import ChessResults, ConceptTables
from saeflow.report.concept_list import list_value
from saeflow.report.concept_page import concept_context, family_rows, position_file, skill_value
from saeflow.report.payload import write_script
from saeflow.report.sae_page import sae_context, training_value
from saeflow.report.site import CHESS_PAGES, Site


def write_chess(found: ChessResults, output: Path) -> None:
    """Write the pages of a study of chess beside the assets and figures of its report.

    Args:
        found: the study.
        output: the report's folder.
    """
    site = Site(found, [], CHESS_PAGES)
    write_script(output, "saes", training_value(found))
    for sae, tables in found.tables.items():
        _write_concepts(sae, tables, output)
    pages = {
        "index.html": ("chess.html", chess_context(found)),
        "concepts.html": (
            "concepts.html",
            {"lines": concept_lines(found), "families": family_rows(found)},
        ),
        "saes.html": ("saes.html", sae_context(found, [])),
        **{
            f"concepts-{sae}.html": ("sae_concepts.html", concept_context(found, sae))
            for sae in found.tables
        },
    }
    for name, (template, context) in pages.items():
        (output / name).write_bytes(site.page(template, context))


def _write_concepts(sae: str, tables: ConceptTables, output: Path) -> None:
    """Write the data and the pictures of an SAE's page."""
    shown = set() if tables.boards.is_empty() else set(tables.boards["concept"])
    if not tables.best.is_empty():
        write_script(output, f"concepts-{sae}", list_value(sae, tables.best, shown))
    write_script(output, f"skill-{sae}", skill_value(tables.skill))
    for number, row in enumerate(tables.boards.to_dicts()):
        file = output / position_file(sae, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        square = row["square"] if row["square"] >= 0 else None
        file.write_text(position(row["fen"], row["move"], square), encoding="utf-8")
