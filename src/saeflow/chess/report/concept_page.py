"""What the page of an SAE's concepts shows: boards of areas, positions, skill and interventions."""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

import chess
import polars as pl

from saeflow.chess.analyses.concepts.figures import best_by_square
from saeflow.chess.analyses.interventions.figures import KINDS, SETS, kinds_of
from saeflow.chess.games.positions import RATING_BINS
from saeflow.chess.report import wording
from saeflow.chess.report.boards import heat_map, spoken
from saeflow.chess.report.results import ChessResults, ConceptTables
from saeflow.counting import counted
from saeflow.figures.style import words
from saeflow.report.wording import digits, estimate, interval, number

RANKS = range(8, 0, -1)
TOLD_OF = ("edited", "probe", "difference_of_means")
"""Kinds whose way of editing is told; their controls are edited alike."""
UNFOLDED = 12
"""Rows of a table of edits that are shown without being asked for."""


class HeatMap(NamedTuple):
    """A family of concepts of squares, as a board."""

    title: str
    svg: str
    summary: str
    rows: list[tuple[int, list[str]]]
    """From the eighth rank down: the rank, and of its squares the areas."""


class Position(NamedTuple):
    """A position as a picture with its words."""

    file: str
    alt: str
    caption: str


class ShownConcept(NamedTuple):
    """A concept with positions in which its latent is most active."""

    name: str
    title: str
    latent: int
    auc: str
    having: str
    """How many of the positions have the concept."""
    positions: list[Position]


class EditRow(NamedTuple):
    """One rating and set of positions of the table of interventions."""

    rating: str
    edits: list[str]
    """The ways of editing: of latents, and along directions."""
    cases: str
    n: str
    before: str
    gains: list[tuple[str, str]]
    """Of the edits and their controls, in the order of `KINDS`: the gain and its interval."""
    right: tuple[str, str]
    """By how much the edit raises the probability of the right move, and its interval."""
    first: bool
    """Of its rating."""


def concept_context(results: ChessResults, sae: str) -> dict[str, Any]:
    """What the page of an SAE's concepts is filled from."""
    tables = results.tables[sae]
    names = list(results.study.saes)
    place = names.index(sae)
    return {
        "sae": sae,
        "hook": results.study.hook_of(sae),
        "before": names[place - 1] if place else None,
        "after": names[place + 1] if place + 1 < len(names) else None,
        "count": len(tables.best),
        "maps": heat_maps(sae, tables.associations),
        "shown": shown_concepts(sae, tables),
        "skill": skill_rows(tables.skill),
        "curves": wording.GROUP_CURVES,
        "edits": edit_rows(tables.interventions),
        "unfolded": UNFOLDED,
        "kinds": [KINDS[kind][0] for kind in edit_kinds(tables.interventions)],
        "shifts": shift_rows(tables.shifts),
        "left_out": skipped_groups(tables.interventions),
        "skipped": tables.skipped.to_dicts(),
        "level": results.study.concepts.interval if results.study.concepts else None,
    }


def heat_maps(sae: str, associations: pl.DataFrame) -> list[HeatMap]:
    """A board per family of concepts of squares; pieces by their kind."""
    if associations.is_empty():
        return []
    best = best_by_square(associations.with_columns(sae=pl.lit(sae)))
    named = best.with_columns(pl.col("auc").fill_nan(None)).drop_nulls("auc")
    boards = [
        (str(family), rows) for (family,), rows in named.group_by("family", maintain_order=True)
    ]
    whole = set(associations["family"].unique())  # families of their own before kinds of pieces
    return [
        _heat_map(family, rows)
        for family, rows in sorted(boards, key=lambda board: board[0] not in whole)
    ]


def _heat_map(family: str, rows: pl.DataFrame) -> HeatMap:
    areas = dict(rows.select("square", "auc").iter_rows())
    low, high = min(areas, key=areas.__getitem__), max(areas, key=areas.__getitem__)
    summary = (
        f"{counted(len(areas), 'square')}, median {median(areas.values()):.2f}, from "
        f"{areas[low]:.2f} on {chess.square_name(low)} to {areas[high]:.2f} on "
        f"{chess.square_name(high)}"
    )
    title = words(family)
    table = [
        (rank, [number(areas.get(chess.square(file, rank - 1))) for file in range(8)])
        for rank in RANKS
    ]
    svg = heat_map(
        areas,
        f"Board of {title}, area under the ROC curve of the best latent per square: {summary}.",
    )
    return HeatMap(title, svg, summary, table)


def position_file(sae: str, number: int) -> str:
    """The path of a position's picture, by its row in the table of boards."""
    return f"boards/{sae}/{number:03d}.svg"


def shown_concepts(sae: str, tables: ConceptTables) -> list[ShownConcept]:
    """The concepts that have boards, with the positions of each."""
    if tables.boards.is_empty():
        return []
    areas = {
        row["concept"]: row
        for row in tables.best.select("concept", "auc", "auc_low", "auc_high").to_dicts()
    }
    shown = []
    for (name,), rows in tables.boards.with_row_index("number").group_by(
        "concept", maintain_order=True
    ):
        area = areas.get(name, {})
        having = int(rows["holds"].sum())
        shown.append(
            ShownConcept(
                name=str(name),
                title=words(str(name)),
                latent=rows["latent"][0],
                auc=f"{number(area.get('auc'))} {interval(area, 'auc')}".strip(),
                having=f"{having} of {len(rows)}",
                positions=[_position(sae, row) for row in rows.to_dicts()],
            )
        )
    return shown


def _position(sae: str, row: dict[str, Any]) -> Position:
    square = f" Marked: {chess.square_name(row['square'])}." if row["square"] >= 0 else ""
    move = chess.Board(row["fen"]).san(chess.Move.from_uci(row["move"]))
    holds = "has the concept" if row["holds"] else "lacks the concept"
    return Position(
        file=position_file(sae, row["number"]),
        alt=f"{spoken(row['fen'])}{square} Move played: {move}.",
        caption=(
            f"{holds} · activation {row['activation']:.2f} · {move} by a player of "
            f"{RATING_BINS[row['rating']]}"
        ),
    )


def skill_rows(skill: pl.DataFrame) -> dict[str, list[dict[str, str]]]:
    """By group a row per rating, every curve with its interval."""
    by_group: dict[str, list[dict[str, str]]] = {}
    followed = (
        skill.drop_nulls("rating").sort("group", "rating") if "rating" in skill.columns else skill
    )
    for row in followed.to_dicts():
        values = {
            name: f"{number(row[name])} {interval(row, name)}".strip()
            for name in wording.GROUP_CURVES
        }
        counts = {
            "rating": RATING_BINS[row["rating"]],
            "n": f"{row['n']:,}",
            "needed": f"{row['n_needed'] or 0:,}",
        }
        by_group.setdefault(row["group"], []).append(counts | values)
    return by_group


def skill_value(skill: pl.DataFrame) -> dict[str, Any]:
    """What the curves along the ratings are drawn from."""
    groups: dict[str, dict[str, list[list[float | None]]]] = {}
    followed = (
        skill.drop_nulls("rating").sort("group", "rating") if "rating" in skill.columns else skill
    )
    for row in followed.to_dicts():
        for name in wording.GROUP_CURVES:
            ends = [digits(row[f"{name}{end}"]) for end in ("", "_low", "_high")]
            groups.setdefault(row["group"], {}).setdefault(name, []).append([row["rating"], *ends])
    return {"ratings": RATING_BINS, "groups": groups}


def edit_rows(interventions: pl.DataFrame) -> dict[str, list[EditRow]]:
    """By group a row per rating and set of positions: the gain of the chosen edit, and of every
    control."""
    if "split" not in interventions.columns:
        return {}
    reported = interventions.filter(pl.col("split") == "report")
    kinds = edit_kinds(interventions)
    by_group: dict[str, list[EditRow]] = {}
    for (group, rating), rows in reported.group_by("group", "rating", maintain_order=True):
        by_set = {(row["set"], row["kind"]): row for row in rows.to_dicts()}
        for cases, label in SETS.items():
            edited = by_set.get((cases, "edited"))
            if edited is None:
                continue
            by_group.setdefault(str(group), []).append(
                EditRow(
                    rating=RATING_BINS[int(rating)],
                    edits=[
                        _edit(by_set[cases, kind])
                        for kind in kinds
                        if kind in TOLD_OF and (cases, kind) in by_set
                    ],
                    cases=label,
                    n=f"{edited['n']:,}",
                    before=number(edited["accuracy_before"]),
                    gains=[_gain(by_set.get((cases, kind))) for kind in kinds],
                    right=_gain(edited, "right_gain"),
                    first=cases == next(iter(SETS)),
                )
            )
    return by_group


def edit_kinds(interventions: pl.DataFrame) -> list[str]:
    """The kinds of edits that were reported, in the order of `KINDS`."""
    if "split" not in interventions.columns:
        return []
    return kinds_of(interventions.filter(pl.col("split") == "report"))


class ShiftRow(NamedTuple):
    """One kind of edit, and what it does to the ratings from which on positions are solved."""

    group: str
    edit: str
    n: str
    shares: list[str]
    """Solved from some rating on before and under the edit; from an earlier one; from a later one
    or none."""
    first: bool
    """Of its group."""


def shift_rows(shifts: pl.DataFrame) -> list[ShiftRow]:
    """The table of transition points before and under edits."""
    names = ("solved_before", "solved_after", "earlier", "later")
    return (
        [
            ShiftRow(
                group=words(str(group)),
                edit=KINDS[row["kind"]][0],
                n=f"{row['n']:,}",
                shares=[f"{number(row[name])} {interval(row, name)}".strip() for name in names],
                first=place == 0,
            )
            for (group,), rows in shifts.group_by("group", maintain_order=True)
            for place, row in enumerate(rows.to_dicts())
        ]
        if len(shifts)
        else []
    )


def _edit(row: dict[str, Any]) -> str:
    if row["mode"] is None:
        return "–"
    latents = row["latents"]
    if latents == 0:
        return f"{KINDS[row['kind']][0]}, {row['mode']} {row['strength']:g}"
    return f"{row['mode']} {row['strength']:g}, {counted(latents, 'latent')}"


def _gain(row: dict[str, Any] | None, name: str = "gain") -> tuple[str, str]:
    if row is None or row[name] is None:
        return "–", ""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    value, _, ends = estimate(row[name], low, high, sign="+").partition(" ")
    return value, ends


def skipped_groups(interventions: pl.DataFrame) -> list[str]:
    """Why some ratings of a group were left out, in sentences."""
    if "skipped" not in interventions.columns:
        return []
    rows = interventions.drop_nulls("skipped").select("group", "rating", "skipped")
    return [
        f"{words(group)}, {RATING_BINS[rating]}: {reason}"
        for group, rating, reason in rows.iter_rows()
    ]


def family_rows(results: ChessResults) -> list[tuple[str, list[str]]]:
    """By family of concepts: of every SAE the median area of the best latents, and in brackets
    of how many concepts."""
    medians: dict[str, dict[str, str]] = {}
    for sae, tables in results.tables.items():
        best = tables.best
        if best.is_empty():
            continue
        for (family,), rows in best.group_by("family", maintain_order=True):
            middle = rows["auc"].median()
            cell = f"{number(middle)} ({len(rows)})"  # type: ignore[arg-type]
            medians.setdefault(str(family), {})[sae] = cell
    return [
        (family, [values.get(sae, "–") for sae in results.tables])
        for family, values in medians.items()
    ]
