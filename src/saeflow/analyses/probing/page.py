"""The pages of probing: all sets, and one page per set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from saeflow.analyses.probing.figures import series
from saeflow.analyses.probing.quality import SCORES
from saeflow.analyses.probing.settings import Probing
from saeflow.analyses.probing.summary import ON_ACTIVATIONS
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact, brackets, estimate, number

QUIVER = "quiver"
_LEFT_OUT = ("blank", "other", "repeated", "contradictory")


def contribute(
    folder: StudyFolder, own: Probing, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page of all sets, one page per set, and what was found."""
    summary, sets = folder.table("probing/summary"), folder.table("probing/sets")
    differences, basis = folder.table("probing/differences"), folder.table("probing/basis")
    scored = folder.table("probing/saes")
    probed = _probed(own, sets)
    context = {
        "sets": [_set_line(name, sets, summary) for name in own.sets],
        "rows": area_rows(summary),
        "differences": difference_rows(differences),
        "level": own.comparison.level,
        "scores": score_rows(scored),
        "headline": sentences(differences),
    }
    pages = {"probing": Page(template="probing.html", context=context, label="Probing")}
    for name in probed:
        pages[f"probing-{name}"] = Page(
            template="probing_set.html",
            context={
                "name": name,
                "told": _facts(name, sets),
                "rows": method_rows(summary, name),
                "bases": basis_rows(basis, name),
            },
        )
    return Contribution(
        pages=pages,
        assets=("probing.js",),
        sae_metrics={
            name: {metric: row[metric] for metric in SCORES if row[metric] is not None}
            for row in scored.to_dicts()
            for name in row["sae"].split(", ")
        },
        headline=sentences(differences),
        tiles=[Fact("sets probed", str(len(probed)), f"of {len(own.sets)}")] if len(sets) else [],
    )


def _probed(own: Probing, sets: pl.DataFrame) -> list[str]:
    if sets.is_empty():
        return []
    skipped = set(sets.filter(pl.col("skipped").is_not_null())["set"])
    return [name for name in own.sets if name not in skipped]


def sentences(differences: pl.DataFrame) -> list[str]:
    """What the comparison across sets says."""
    if differences.is_empty():
        return []
    full = differences.filter(regime="full", shifted=False)
    lines = []
    latents = full.filter(kind="latents").sort("auc", descending=True)
    for row in latents.filter(than=ON_ACTIVATIONS).head(1).to_dicts():
        lines.append(
            f"Over {row['sets']} sets the best probe on latents ({series(row)}) has a mean area of "
            f"{row['auc']:.3f}, logistic regression on activations {row['baseline']:.3f}: it is "
            f"better in {row['better']}, worse in {row['worse']}, and in {row['none']} the "
            "difference is smaller than what new splits make."
        )
    of_controls = latents.filter(pl.col("than") != ON_ACTIVATIONS)
    for row in of_controls.unique("than", keep="first", maintain_order=True).to_dicts():
        control = row["than"].rpartition(" ")[2]
        lines.append(
            f"The area of {series(row)} less that of the same on the control {control}: "
            f"{_difference(row)}."
        )
    for row in full.filter(kind=QUIVER).to_dicts():
        lines.append(
            "Whoever chooses each set's probe by validation among activations and latents has an "
            "area that differs from that of choosing among activations alone by "
            f"{_difference(row)}."
        )
    return lines


def _difference(row: Mapping[str, Any]) -> str:
    return estimate(row["difference"], row["low"], row["high"], places=3, sign="+")


def _set_line(name: str, sets: pl.DataFrame, summary: pl.DataFrame) -> dict[str, Any]:
    own = sets.filter(set=name, test_set="") if len(sets) else sets
    row = own.row(0, named=True) if len(own) else {}
    return {
        "name": name,
        "task": row.get("task") or "",
        "classes": row.get("classes") or "",
        "rows": row.get("rows"),
        "left_out": sum(
            row.get(key) or 0 for key in ("blank", "other", "repeated", "contradictory")
        ),
        "truncated": row.get("truncated"),
        "licence": row.get("licence") or "",
        "skipped": row.get("skipped"),
    }


def _facts(name: str, sets: pl.DataFrame) -> list[Fact]:
    words = {
        "rows": "as many of each class",
        "groups": "rows of one are never on both sides of a split",
        "repeated": "left out: an earlier row says the same",
        "contradictory": "left out: one text with several labels",
        "truncated": "have lost their beginning",
    }
    facts = []
    for row in sets.filter(set=name).to_dicts():
        where = f" of {row['test_set']}" if row["test_set"] else ""
        facts += [
            Fact(f"{key}{where}", f"{row[key]:,}", note)
            for key, note in words.items()
            if row[key] is not None
        ]
    return facts


def area_rows(summary: pl.DataFrame) -> list[dict[str, Any]]:
    """A line per set and method on all training rows."""
    if summary.is_empty():
        return []
    full = summary.filter(regime="full")
    return [_row(row) for row in full.sort("set", "auc", descending=[False, True]).to_dicts()]


def method_rows(summary: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """A line per regime and method of one set."""
    if summary.is_empty():
        return []
    own = summary.filter(set=name)
    return [_row(row) for row in own.to_dicts()]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    level = f" {row['level']:g}" if row["level"] else ""
    return {
        "set": row["set"],
        "regime": f"{row['regime']}{level}",
        "test_set": row["test_set"] or "own",
        "method": series(row),
        "auc": number(row["auc"], 3),
        "interval": brackets(row["low"], row["high"], places=3),
        "spread": number(row["spread"], 3),
        "validation": number(row["validation"], 3),
        "optimism": "–" if row["optimism"] is None else f"{row['optimism']:+.3f}",
        "train_rows": row["train_rows"],
    }


def difference_rows(differences: pl.DataFrame) -> list[dict[str, Any]]:
    """A line per method on all training rows, against logistic regression on activations."""
    if differences.is_empty():
        return []
    full = differences.filter(regime="full").sort("shifted", "difference", descending=[False, True])
    return [
        {
            "method": "chosen with latents in the quiver" if row["kind"] == QUIVER else series(row),
            "than": row["than"].replace("logistic_ridge", "logistic ridge"),
            "tests": "shifted" if row["shifted"] else "own",
            "sets": row["sets"],
            "auc": number(row["auc"], 3),
            "difference": _difference(row),
            "p": "–" if row["wilcoxon_p"] is None else f"{row['wilcoxon_p']:.2g}",
            "verdicts": f"{row['better']} / {row['worse']} / {row['none']}",
        }
        for row in full.to_dicts()
    ]


def score_rows(scored: pl.DataFrame) -> list[dict[str, Any]]:
    """A line per SAE, or per SAEs that differ in their seed alone: its scores with what they are
    uncertain by."""

    def said(row: Mapping[str, Any], metric: str) -> str:
        error = row[f"{metric}_se"]
        return number(row[metric], 3) + ("" if error is None else f" ± {error:.3f}")

    return [
        {
            "sae": row["sae"],
            "control": (row["control"] or "").replace("_", " "),
            "over": row["se_over"],
            **{metric: said(row, metric) for metric in SCORES},
        }
        for row in scored.to_dicts()
    ]


def basis_rows(basis: pl.DataFrame, name: str) -> list[dict[str, Any]]:
    """The latents that sparse probes of one set choose."""
    if basis.is_empty():
        return []
    return [
        {
            "sae": row["sae"],
            "class": row["class"],
            "latent": row["latent"],
            "seeds": row["seeds"],
            "auc": number(row["auc"], 3),
            "active": f"{row['active']:.0%} / {row['active_other']:.0%}",
            "token": row["token"],
            "token_share": f"{row['token_share']:.0%}",
            "suspicious": row["suspicious"],
        }
        for row in basis.filter(set=name).sort("sae", "class", "rank").to_dicts()
    ]
