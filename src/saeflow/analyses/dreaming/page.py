"""The page of dreamed prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.dreaming import WITHOUT_SAE
from saeflow.analyses.dreaming.settings import Dreaming
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact, readable

DEPTHS = 9
"""Grounds of tokens, from faint to deep."""
BESIDE = 5
"""Contexts of the data that are shown."""
WAYS = {"adaptive": "adaptive search", "epo": "EPO", "random": "search without gradients"}


class Piece(NamedTuple):
    """A token of a prompt."""

    text: str
    depth: int
    """Of its ground; 0 has none."""
    hint: str


class PromptLine(NamedTuple):
    """A prompt with its numbers."""

    pieces: list[Piece]
    value: str
    cross_entropy: str
    note: str


class SearchPart(NamedTuple):
    """What one method found."""

    method: str
    lines: list[PromptLine]


class TargetPart(NamedTuple):
    """What is said of one target."""

    name: str
    latent: int | None
    dreamed: str
    sentences: list[str]
    searches: list[SearchPart]
    contexts: list[PromptLine]


def contribute(
    folder: StudyFolder, own: Dreaming, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page, and how often dreams beat the data."""
    parts, rows = [], []
    for dreamed in folder.names("dreaming")["dreamed"]:
        tables = {
            name: folder.table(f"dreaming/{dreamed}/{name}")
            for name in ("targets", "fronts", "contexts")
        }
        if tables["targets"].is_empty():
            continue
        names = tables["targets"]["target"].unique(maintain_order=True)
        parts += [_part(dreamed, name, tables) for name in names]
        rows += tables["targets"].to_dicts()
    if not parts:
        return Contribution()
    context = {"parts": parts, "beaten": beaten(rows)}
    return Contribution(
        pages={"dreaming": Page(template="dreaming.html", context=context, label="Dreams")},
        headline=beaten(rows)[:1],
        tiles=[Fact("dreams", str(len(parts)), "targets")],
    )


def beaten(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences on how often the data's own text was beaten, by method."""
    sentences = []
    for method, words in WAYS.items():
        own = [row for row in rows if row["method"] == method]
        full = [row["beats_activation"] for row in own if row["beats_activation"] is not None]
        matched = [row["beats_matched"] for row in own if row["beats_matched"] is not None]
        parts = []
        if full:
            parts.append(
                f"{sum(full)} of {len(full)} latents were moved more than by any stored context"
            )
        if matched:
            verb = "" if full else "were moved "
            parts.append(
                f"{sum(matched)} of {len(matched)} targets {verb}more than by the data's best text "
                "of the same length that is no likelier"
            )
        if parts:
            sentences.append(f"By {words} {', and '.join(parts)}.")
    return sentences


def _part(dreamed: str, name: str, tables: Mapping[str, pl.DataFrame]) -> TargetPart:
    own = tables["targets"].filter(target=name).to_dicts()
    front, beside = (tables[table].filter(target=name) for table in ("fronts", "contexts"))
    most = max((each for row in front["along"].to_list() for each in row), default=0.0)
    contexts = beside.sort("value", descending=True, maintain_order=True).head(BESIDE)
    latents = own[0]["latents"]
    given = set(map(tuple, beside["token_ids"].to_list()))
    return TargetPart(
        name,
        latents[0] if own[0]["kind"] == "latent" else None,
        "" if dreamed == WITHOUT_SAE else dreamed,
        [_sentence(row) for row in own],
        [
            SearchPart(
                WAYS.get(row["method"], row["method"]),
                [
                    _line(each, most, _of_text(each, tuple(each["token_ids"]) in given))
                    for each in front.filter(method=row["method"]).sort("place").to_dicts()
                ],
            )
            for row in own
        ],
        [
            _line(row, most, f"{readable(row['activation'])} where it stands")
            for row in contexts.to_dicts()
        ],
    )


def _sentence(row: Mapping[str, Any]) -> str:
    text = (
        f"By {WAYS.get(row['method'], row['method'])} the target reaches {readable(row['best'])} "
        f"at {readable(row['best_cross_entropy'])} nats per token, for {row['spent']:,} passes of "
        "one prompt."
    )
    if row["context_value"] is not None:
        text += (
            f" The data's best text of this length reaches {readable(row['context_value'])} at "
            f"{readable(row['context_cross_entropy'])} nats; no less likely, dreams reach "
            + ("nothing." if row["matched"] is None else f"{readable(row['matched'])}.")
        )
    if row["distinct"] is not None:
        text += f" Two of its prompts differ in {100 * row['distinct']:.0f}% of their tokens."
    return text


def _of_text(row: Mapping[str, Any], given: bool) -> str:
    if given:
        return "the data's own text, with which the search began"
    if row["reads_back"]:
        return ""
    if row["text_value"] is None:
        return "its text is read as more tokens than the model's context holds"
    return f"its text is read as other tokens, and is worth {readable(row['text_value'])}"


def _line(row: Mapping[str, Any], most: float, note: str) -> PromptLine:
    lent = row.get("lent") or [None] * len(row["tokens"])
    pieces = []
    for token, along, share in zip(row["tokens"], row["along"], lent, strict=True):
        depth = round(DEPTHS * min(max(along / most, 0.0), 1.0)) if most > 0 else 0
        hint = f"{readable(along)} here"
        if share is not None:
            hint += f"; lends {readable(share)} to the value"
        pieces.append(Piece(token, depth, hint))
    return PromptLine(pieces, readable(row["value"]), readable(row["cross_entropy"]), note)
