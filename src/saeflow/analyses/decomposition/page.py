"""The page of directions in SAEs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from saeflow.analyses.decomposition.settings import Decomposition
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact, estimate, readable

SHARES = (0.5, 0.1)
"""Errors for which it is told how many latents they take."""
PROMOTED = 4
"""Tokens that tell what a latent promotes, where the logit lens was applied."""


class LatentLine(NamedTuple):
    """One latent of a sum."""

    latent: int
    weight: str
    cosine: str
    chosen: str
    density: str
    words: str


class DirectionPart(NamedTuple):
    """What is said of one direction in one SAE."""

    sae: str
    direction: str
    sentences: list[str]
    latents: list[LatentLine]


def contribute(
    folder: StudyFolder, own: Decomposition, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page, and a sentence for each SAE that a direction was decomposed in."""
    parts = []
    for sae in folder.names("decomposition")["decomposed_sae"]:
        tables = {
            name: folder.table(f"decomposition/{sae}/{name}")
            for name in ("curves", "latents", "stability", "encoder", "fidelity")
        }
        if tables["curves"].is_empty():
            continue
        names = tables["curves"].filter(kind="direction")["direction"].unique(maintain_order=True)
        lens = folder.table(f"logit_lens/{sae}/tokens")
        for name in names:
            part = _part(sae, name, tables, lens)
            more = _stand_in(folder.table(f"decomposition/{sae}/{name}/edits"))
            parts.append(part._replace(sentences=[*part.sentences, *more]))
    kept = [_kept(row) for row in folder.table("decomposition/fidelity").to_dicts()]
    if not parts:
        return Contribution()
    context = {
        "parts": parts,
        "kept": kept,
        "apart": [_apart(row) for row in folder.table("decomposition/differences").to_dicts()],
    }
    tile = Fact("directions", str(len({part.direction for part in parts})), "decomposed")
    return Contribution(
        pages={
            "decomposition": Page(
                template="decomposition.html", context=context, label="Decomposition"
            )
        },
        headline=[part.sentences[0] for part in parts[:1]],
        tiles=[tile],
    )


def _part(
    sae: str, direction: str, tables: Mapping[str, pl.DataFrame], lens: pl.DataFrame
) -> DirectionPart:
    own = {
        name: table.filter(direction=direction) if len(table) else table
        for name, table in tables.items()
    }
    sentences = [_how_many(sae, direction, tables["curves"])]
    if len(own["encoder"]):
        sentences.append(_encoder(own["encoder"].row(0, named=True)))
    if len(own["stability"]):
        last = own["stability"].sort("k").row(-1, named=True)
        sentences.append(
            f"Made of other draws of its texts, the direction has a cosine of "
            f"{readable(last['cosine'])} with itself, and the first {last['k']} latents overlap by "
            f"{readable(last['overlap'])}."
        )
    listed = own["latents"].filter(method="orthogonal") if len(own["latents"]) else own["latents"]
    return DirectionPart(sae, direction, sentences, [_line(row, lens) for row in listed.to_dicts()])


def _stand_in(edits: pl.DataFrame) -> Iterator[str]:
    """What the longest sum does in place of the direction, by edit and class of prompts."""
    if edits.is_empty():
        return
    odds = edits.filter(measure="log_odds")
    most = max(odds["latents"].drop_nulls().to_list())

    def with_interval(edit: str, kind: str, label: str) -> str:
        k = None if kind == "whole" else most
        rows = odds.filter(
            pl.col("latents").eq_missing(k), edit=edit, kind=kind, label=label
        ).to_dicts()
        return estimate(rows[0]["value"], rows[0]["low"], rows[0]["high"], places=1)

    for edit, what in (("ablate", "taken out"), ("add", "added")):
        for label in odds["label"].unique(maintain_order=True):
            yield (
                f"With a sum of {most} latents {what} in its place, the log-odds of the behaviour "
                f"on '{label}' go from {with_interval('none', 'whole', label)} to "
                f"{with_interval(edit, 'sum', label)}; with the direction itself to "
                f"{with_interval(edit, 'whole', label)}, with such sums for random directions to "
                f"{with_interval(edit, 'random', label)}."
            )


def _how_many(sae: str, direction: str, curves: pl.DataFrame) -> str:
    """What the first sums leave, beside random directions."""
    by_pursuit = curves.filter(method="orthogonal")
    own = by_pursuit.filter(kind="direction", direction=direction).sort("k")
    null = by_pursuit.filter(kind="random").sort("k")
    if own.is_empty():
        return f"'{direction}' was decomposed in {sae}, but not by orthogonal matching pursuit."
    takes = []
    for share in SHARES:
        enough = own.filter(pl.col("error") <= share)["k"].to_list()
        most = own["k"].to_list()[-1]
        takes.append(
            f"{enough[0]} for an error of {share:g}"
            if enough
            else f"more than {most} for one of {share:g}"
        )
    last = own.row(-1, named=True)
    against = ""
    if len(null):
        beside = null.row(-1, named=True)
        against = f"; of random directions {readable(beside['error'])} is left"
    return (
        f"'{direction}' takes {', '.join(takes)} of the latents of {sae}. With {last['k']} of them "
        f"an error of {readable(last['error'])} is left{against}."
    )


def _encoder(row: dict[str, Any]) -> str:
    return (
        f"The encoder does not tell this: of the direction it makes {row['active']} active "
        f"latents, {row['of_bias']} of which are active without it, and the decoded sum has a "
        f"cosine of {readable(row['cosine'])} with the direction. The direction moves latents by "
        f"{readable(row['from_direction'])} (root mean square) and their biases by "
        f"{readable(row['from_bias'])}; {readable(row['negative'])} of the squared weights are "
        "negative, which an encoder cannot give."
    )


def _line(row: dict[str, Any], lens: pl.DataFrame) -> LatentLine:
    tokens = pl.DataFrame()
    if len(lens):
        tokens = lens.filter(
            pl.col("side") == "top", pl.col("rank") < PROMOTED, pl.col("latent") == row["latent"]
        )
    return LatentLine(
        row["latent"],
        readable(row["weight"]),
        readable(row["cosine"]),
        "" if row["chosen"] is None else readable(row["chosen"]),
        readable(row["density"]),
        " ".join(tokens["token"].to_list()) if len(tokens) else "",
    )


def _kept(row: dict[str, Any]) -> list[str]:
    interval = ""
    if row["cosine_low"] is not None:
        interval = f" ({readable(row['cosine_low'])} to {readable(row['cosine_high'])})"
    share = row["concept_share"]
    return [
        row["saes"],
        row["direction"],
        str(row["seeds"]),
        readable(row["cosine"]) + interval,
        readable(row["repeated_cosine"]),
        readable(row["error"]),
        f"{readable(row['best_cosine'])} ({readable(row['null_cosine'])})",
        readable(row["best_density"]),
        "" if share is None else readable(share),
    ]


def _apart(row: dict[str, Any]) -> str:
    """How far two trainings are from each other."""
    ends = f"{readable(row['low'])} to {readable(row['high'])}"
    excludes_zero = "" if row["low"] <= 0 <= row["high"] else ", which is not zero"
    return (
        f"{row['direction']}: the {row['measure']} of {row['first']} less that of {row['second']} "
        f"is {readable(row['difference'])} ({ends}, {row['seeds']} seeds each){excludes_zero}."
    )
