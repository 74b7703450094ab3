"""The page of circles and lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.geometry.latent_page import latent_context, of_latents
from saeflow.analyses.geometry.settings import Geometry
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact, readable

METHODS = {
    "ridge": "ridge regression",
    "pls": "partial least squares",
    "difference": "difference of means",
}


def contribute(
    folder: StudyFolder, own: Geometry, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page, a sentence for each group and line, and how many there are."""
    names: tuple[str, ...] = ("circles", "lines", "angles", "read_off", "causes")
    names = (*names, "latent_groups", "latent_circles", "splits", "dated_latents")
    tables = {name: folder.table(f"geometry/{name}") for name in names}
    if all(tables[name].is_empty() for name in ("circles", "lines", "latent_groups")):
        return Contribution()
    level = own.nulls.level
    sentences = [*_of_circles(tables, level), *_of_lines(tables, level), *of_latents(tables)]
    context = {
        "sentences": sentences,
        "circles": [_circle(row) for row in tables["circles"].to_dicts()],
        "lines": [_line(row) for row in tables["lines"].to_dicts()],
        "read_off": [_read_off(row) for row in tables["read_off"].to_dicts()],
        "causes": [_cause(row) for row in tables["causes"].to_dicts()],
        "angles": _angles(tables["angles"]),
        **latent_context(tables),
    }
    count = len(own.points.groups) + len(own.points.lines)
    return Contribution(
        pages={"geometry": Page(template="geometry.html", context=context, label="Geometry")},
        headline=sentences[:1],
        tiles=[Fact("circles and lines", str(count), "held against their nulls")],
    )


class Clearest(NamedTuple):
    """The row of a group or line at the hook where it is clearest.

    Attributes:
        row: of the table.
        stands: whether it stands out of its null: the clearest of several hooks is clearer than one
            by chance alone, so that p counts as often as there are hooks (Bonferroni).
        p: in words.
    """

    row: dict[str, Any]
    stands: bool
    p: str


def clearest(table: pl.DataFrame, name: str, level: float) -> list[Clearest]:
    """Of every group or line.

    Args:
        table: of circles, or of lines by one method.
        name: of the column that names them.
        level: of nulls.
    """
    best = table.sort("r2", descending=True, maintain_order=True).unique(
        name, keep="first", maintain_order=True
    )
    rows = []
    for row in best.to_dicts():
        hooks = table.filter(pl.col(name) == row[name])["hook"].n_unique()
        told = f"p = {readable(row['p'])}"
        told += f" at the clearest of {hooks} hooks" if hooks > 1 else ""
        rows.append(Clearest(row, row["p"] * hooks <= 1 - level + 1e-9, told))
    return rows


def _of_circles(tables: Mapping[str, pl.DataFrame], level: float) -> list[str]:
    """A sentence for the clearest circle of each group, with what turning words does."""
    if tables["circles"].is_empty():
        return []
    sentences = []
    for row, stands, p in clearest(tables["circles"], "group", level):
        verdict = "is there" if stands else "is no better than other orders of the same words"
        sentence = (
            f"The circle of {row['group']} {verdict}: at {row['hook']} the best pair of components "
            f"explains {readable(row['r2'])} of it ({readable(row['low'])} to "
            f"{readable(row['high'])}), other orders up to {readable(row['null_high'])} "
            f"({p}); {row['neighbours']} of {row['words']} neighbours are "
            "beside each other."
        )
        sentences.append(sentence + _turned(tables["causes"], row["group"], row["hook"]))
    return sentences


def _turned(causes: pl.DataFrame, group: str, hook: str) -> str:
    if causes.is_empty():
        return ""
    of_group = causes.filter(pl.col("of") == group, pl.col("hook") == hook)
    own = of_group.filter(edit="turn", measure="moved")
    if own.is_empty():
        return ""
    values = {row["kind"]: row for row in own.to_dicts()}
    usual = of_group.filter(edit="none", measure="right")["value"].item()
    circle, random = values["circle"], values["random"]
    return (
        f" Unedited the model goes on rightly after {readable(usual)} of the words; after a word "
        f"that is turned to another's place it goes on as after that other in "
        f"{readable(circle['value'])} ({readable(circle['low'])} to {readable(circle['high'])}), "
        f"moved as far at random in {readable(random['value'])}."
    )


def _of_lines(tables: Mapping[str, pl.DataFrame], level: float) -> list[str]:
    if tables["lines"].is_empty():
        return []
    sentences = []
    for row, stands, p in clearest(tables["lines"].filter(method="ridge"), "line", level):
        verdict = "is there" if stands else "says no more than numbers exchanged between blocks"
        sentences.append(
            f"The line of {row['line']} {verdict}: at {row['hook']} it explains "
            f"{readable(row['r2'])} ({readable(row['low'])} to {readable(row['high'])}) of the "
            f"numbers of blocks that it was fitted without; the null reaches "
            f"{readable(row['null_high'])} ({p}). Length and last token alone explain "
            f"{readable(row['confounds_r2'])}, and of what they leave it explains "
            f"{readable(row['beyond_r2'])}."
        )
    return sentences


def _circle(row: dict[str, Any]) -> list[str]:
    return [
        row["group"],
        row["hook"],
        f"{readable(row['r2'])} ({readable(row['low'])} to {readable(row['high'])})",
        readable(row["null_high"]),
        readable(row["p"]),
        f"{row['first'] + 1} and {row['second'] + 1}",
        f"{row['neighbours']} of {row['words']}",
    ]


def _line(row: dict[str, Any]) -> list[str]:
    return [
        row["line"],
        row["hook"],
        METHODS[row["method"]],
        f"{row['texts']} in {row['blocks']}",
        f"{readable(row['r2'])} ({readable(row['low'])} to {readable(row['high'])})",
        readable(row["rank"]),
        readable(row["null_high"]),
        readable(row["p"]),
        readable(row["in_sample_r2"]),
    ]


def _read_off(row: dict[str, Any]) -> list[str]:
    return [
        row["line"],
        row["hook"],
        row["of"],
        str(row["texts"]),
        f"{readable(row['rank'])} ({readable(row['rank_low'])} to {readable(row['rank_high'])})",
        f"{readable(row['null_low'])} to {readable(row['null_high'])}",
        readable(row["p"]),
        readable(row["r2"]),
    ]


def _cause(row: dict[str, Any]) -> list[str]:
    edit = row["edit"] if row["step"] is None else f"{row['edit']} by {row['step']:+g}"
    return [
        row["of"],
        row["hook"],
        edit,
        row["kind"],
        row["measure"].replace("_", " "),
        f"{readable(row['value'])} ({readable(row['low'])} to {readable(row['high'])})",
        str(row["n"]),
    ]


def _angles(angles: pl.DataFrame) -> list[str]:
    """The component that each line is closest to."""
    if angles.is_empty():
        return []
    closest = angles.sort("cosine", descending=True).unique(
        ["line", "hook"], keep="first", maintain_order=True
    )
    return [
        f"{row['line']} at {row['hook']}: of the principal components the line is closest to "
        f"number {row['component'] + 1}, which holds {readable(row['variance'])} of the variance, "
        f"with a cosine of {readable(row['cosine'])}; the largest of a random direction stays "
        f"below {readable(row['random_cosine'])}."
        for row in closest.sort("line", "hook").to_dicts()
    ]
