"""What the page of geometry says of latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from saeflow.analyses.geometry.latent_points import ACTIVATIONS, REBUILT
from saeflow.analyses.geometry.splitting import COSINE, TOGETHER
from saeflow.report.wording import readable

MOST_SPLITS = 200
"""Rows of the table of splits on the page."""


def of_latents(tables: Mapping[str, pl.DataFrame]) -> list[str]:
    """A sentence for every group and SAE that has latents, and for every line that they stand
    along."""
    sentences = []
    for row in tables["latent_groups"].to_dicts():
        if row["left_out"] is None:
            sentences.append(
                f"{row['latents']} latents of {row['sae']} stand for {row['group']}: "
                f"{row['specific']} for one word each, {row['words']} words in all, and "
                f"{row['general']} for several.{_rebuilt(tables['latent_circles'], row)}"
            )
    for row in tables["dated_latents"].to_dicts():
        if row["left_out"] is None:
            verdict = "stand" if row["rank"] > row["null_high"] else "do not stand"
            sentences.append(
                f"{row['latents']} latents of {row['sae']} {verdict} along the line of "
                f"{row['line']} in the order of their numbers, by {row['of']}: rank correlation "
                f"{readable(row['rank'])} ({readable(row['low'])} to {readable(row['high'])}), "
                f"lines of exchanged numbers up to {readable(row['null_high'])}."
            )
    return sentences


def _rebuilt(circles: pl.DataFrame, group: Mapping[str, Any]) -> str:
    """What the latents of a group rebuild of the circle of its words."""
    if circles.is_empty():
        return ""
    own = circles.filter(group=group["group"], sae=group["sae"]).drop_nulls("r2")
    r2 = {row["points"]: row for row in own.to_dicts()}
    if not {ACTIVATIONS, REBUILT} <= set(r2):
        return ""
    rebuilt = r2[REBUILT]
    return (
        f" Alone they rebuild {readable(rebuilt['variance'])} of what sets the words apart, and "
        f"its best plane explains {readable(rebuilt['r2'])} of the circle; that of the "
        f"activations {readable(r2[ACTIVATIONS]['r2'])}, other orders up to "
        f"{readable(rebuilt['null_high'])} and {readable(r2[ACTIVATIONS]['null_high'])}."
    )


def latent_context(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Tables of latents as rows of text, and what was left out and why."""
    left_out = [
        row["left_out"]
        for name in ("latent_groups", "latent_circles", "dated_latents")
        for row in tables[name].to_dicts()
        if row["left_out"] is not None
    ]
    circles = [row for row in tables["latent_circles"].to_dicts() if row["r2"] is not None]
    dated = [row for row in tables["dated_latents"].to_dicts() if row["rank"] is not None]
    return {
        "left_out": [f"{sentence.rstrip('.')}." for sentence in left_out],
        "latent_groups": [_group(row) for row in tables["latent_groups"].to_dicts()],
        "latent_circles": [_circle(row) for row in circles],
        "splits": _splits(tables["splits"]),
        "dated_latents": [_dated(row) for row in dated],
    }


def _group(row: Mapping[str, Any]) -> list[str]:
    counts = (row["latents"], row["specific"], row["general"], row["words"])
    return [row["group"], row["sae"], f"{row['width']:,}", *map(str, counts)]


def _circle(row: Mapping[str, Any]) -> list[str]:
    interval = ""
    if row["low"] is not None:
        interval = f" ({readable(row['low'])} to {readable(row['high'])})"
    return [
        row["group"],
        row["sae"],
        row["points"],
        str(row["words"]),
        f"{readable(row['r2'])}{interval}",
        readable(row["null_high"]),
        readable(row["p"]),
        f"{row['neighbours']} of {row['words']}",
        "" if row["variance"] is None else readable(row["variance"]),
    ]


def _splits(splits: pl.DataFrame) -> list[list[str | tuple[str, int]]]:
    """A row for every latent, with its parent of either kind; latents as SAE and number."""
    if splits.is_empty():
        return []
    key = ["group", "narrow", "wide", "latent"]
    together = splits.filter(by=TOGETHER).select(*key, "parent", "value", "covered")
    both = splits.filter(by=COSINE).join(together, on=key, suffix="_together", how="left")
    return [
        [
            row["group"],
            row["wide"],
            (row["wide"], row["latent"]),
            row["word"] if row["kind"] == "specific" else "several words",
            row["narrow"],
            (row["narrow"], row["parent"]),
            f"{readable(row['value'])} ({readable(row['against'])})",
            (row["narrow"], row["parent_together"]),
            readable(row["value_together"]),
            readable(row["covered_together"]),
        ]
        for row in both.head(MOST_SPLITS).to_dicts()
    ]


def _dated(row: Mapping[str, Any]) -> list[str]:
    return [
        row["line"],
        row["sae"],
        row["of"],
        str(row["latents"]),
        f"{readable(row['rank'])} ({readable(row['low'])} to {readable(row['high'])})",
        readable(row["null_high"]),
        readable(row["p"]),
    ]
