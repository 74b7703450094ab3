"""The pages of directions: one for all, and one for each that says what it does in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from saeflow.analyses.directions.settings import Directions
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact, estimate, readable

KINDS = {
    "contrast": "the difference of the mean activations of two classes of prompts",
    "latent": "the decoder direction of a latent",
    "vector": "a vector of a file",
    "difference_of_models": "the mean difference between what two models hold of the same prompts",
}
MEASURES = {
    "phrases": "share that shows it",
    "log_odds": "log-odds of it",
    "judged": "score of the judge",
    "kl_first": "KL of the first token",
    "kl_token": "KL per token",
    "loss": "loss on text",
    "loss_increase": "increase of that loss",
}
EDITS = {"none": "unedited", "ablate": "ablated", "add": "added"}
CONTROLS = {
    "direction": "",
    "random": "random directions",
    "shuffled": "of shuffled labels",
    "candidate": "other candidates",
}


def contribute(
    folder: StudyFolder, own: Directions, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page of all directions, a page of each, and what they do in a sentence each."""
    names = folder.names("directions")
    shown = {
        name: [_of_model(folder, own, model, name) for model in names["directed_model"]]
        for name in names["direction"]
    }
    pages = {
        "directions": Page(
            template="directions.html",
            context={
                "directions": shown,
                "tunings": list(_tunings(folder)),
                "prompts": own.prompts,
            },
            label="Directions",
        )
    }
    for name, of_models in shown.items():
        kind = next(each for each in KINDS if name in getattr(own.sources, each))
        context = {
            "name": name,
            "what": KINDS[kind],
            "of_models": of_models,
            "with_it": own.prompts.with_it,
            "without_it": own.prompts.without_it,
            "transfers": list(_transfers(folder, name)),
            "texts": own.measures.texts,
        }
        pages[f"direction-{name}"] = Page(template="direction.html", context=context)
    headline = [
        f"{name}, in {each['model']}: {sentence}"
        for name, of_models in shown.items()
        for each in of_models
        for sentence in each["sentences"][:1]
    ]
    return Contribution(pages=pages, headline=headline)


def _of_model(folder: StudyFolder, own: Directions, model: str, name: str) -> dict[str, Any]:
    """What is told of one direction in one model."""
    place = f"directions/{model}/{name}"
    candidates, edits = folder.table(f"{place}/candidates"), folder.table(f"{place}/edits")
    judged = folder.table(f"{place}/judged")
    rows = list(_edit_rows(pl.concat([edits, judged]) if len(judged) else edits))
    return {
        "model": model,
        "facts": _facts(candidates),
        "sentences": list(_sentences(edits, own)),
        "candidates": list(_best(candidates)),
        "columns": _columns(rows),
        "edits": rows,
    }


def _facts(candidates: pl.DataFrame) -> list[Fact]:
    """Where the direction lies, and how sure it is."""
    if candidates.is_empty():
        return []
    row = candidates.filter("chosen").row(0, named=True)
    facts = [
        Fact("Place", f"layer {row['layer']}", f"the stream behind it, at {row['position']}"),
        Fact(
            "Area under the ROC curve",
            f"{row['auc']:.3f}",
            f"on test prompts, [{row['auc_low']:.3f}, {row['auc_high']:.3f}]"
            + (
                f"; 95 % of directions of shuffled labels stay below {row['auc_shuffled']:.3f}"
                if row["auc_shuffled"] is not None
                else ""
            ),
        ),
        Fact("Gap", readable(row["gap"]), "between the classes' mean projections onto it"),
    ]
    if row["norm"] is not None:
        share = row["norm"] / row["activation_norm"]
        stable = f"the 5 % quantile is {row['stability_low']:.3f}"
        facts += [
            Fact("Norm", readable(row["norm"]), f"{share:.2f} of the activations' mean norm"),
            Fact("Cosine with bootstraps", f"{row['stability']:.3f}", stable),
            Fact(
                "Cosine of two halves",
                f"{row['split_half']:.3f}",
                f"of the prompts; with shuffled labels {row['split_half_shuffled']:.3f}",
            ),
        ]
    if not row["within_rule"]:
        note = "no candidate meets it; taken is the one whose addition does most"
        facts.append(Fact("The rule", "not met", note))
    return facts


def _sentences(edits: pl.DataFrame, own: Directions) -> Iterator[str]:
    """What ablation and addition do, beside random directions, and at what cost."""
    if edits.is_empty():
        return

    def value(edit: str, kind: str, label: str | None, measure: str, scale: float) -> str | None:
        label_is = pl.col("label").is_null() if label is None else pl.col("label") == label
        rows = edits.filter(label_is, edit=edit, kind=kind, measure=measure, scale=scale)
        return _interval(rows.row(0, named=True)) if len(rows) else None

    shown, absent = own.prompts.with_it, own.prompts.without_it
    before = value("none", "direction", shown, "phrases", 0.0)
    after = value("ablate", "direction", shown, "phrases", 0.0)
    random = value("ablate", "random", shown, "phrases", 0.0)
    yield (
        f"ablated, the share of answers to '{shown}' that show the behaviour goes from {before} to "
        f"{after}; with random directions ablated it is {random}."
    )
    near = min(own.measures.scales, key=lambda scale: abs(scale - 1))
    yield (
        f"{near:g} gaps of it added, the share of answers to '{absent}' goes from "
        f"{value('none', 'direction', absent, 'phrases', 0.0)} to "
        f"{value('add', 'direction', absent, 'phrases', near)}; with as much of random directions "
        f"it is {value('add', 'random', absent, 'phrases', near)}."
    )
    if own.prompts.lookalike:
        label = own.prompts.lookalike
        yield (
            f"of answers to '{label}', {value('none', 'direction', label, 'phrases', 0.0)} show it "
            f"unedited and {value('ablate', 'direction', label, 'phrases', 0.0)} ablated."
        )
    yield (
        f"ablation moves the model by {value('ablate', 'direction', absent, 'kl_token', 0.0)} nats "
        f"per token on '{absent}' and raises the loss on text by "
        f"{value('ablate', 'direction', None, 'loss_increase', 0.0)} nats per token; addition, by "
        f"{value('add', 'direction', absent, 'kl_token', near)} and "
        f"{value('add', 'direction', None, 'loss_increase', near)}."
    )


def _interval(row: Mapping[str, Any]) -> str:
    return estimate(row["value"], row["low"], row["high"])


def _best(candidates: pl.DataFrame, most: int = 8) -> Iterator[dict[str, Any]]:
    """The candidates that leave least of the behaviour, within the rule first."""
    if len(candidates) < 2:
        return
    order = candidates.sort(
        pl.col("why_not").is_not_null(), "ablated", nulls_last=True, maintain_order=True
    )
    yield from order.head(most).iter_rows(named=True)


def _edit_rows(edits: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """A row per edit, with a cell per class and measure."""
    if edits.is_empty():
        return
    for (edit, kind, scale), own in edits.group_by(["edit", "kind", "scale"], maintain_order=True):
        cells = {
            f"{row['label'] or 'text'}: {MEASURES[row['measure']]}": _interval(row)
            for row in own.iter_rows(named=True)
        }
        what = EDITS[str(edit)] + (f", {scale:+g} gaps" if edit == "add" else "")
        yield {"edit": what, "kind": CONTROLS[str(kind)], "cells": cells}


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["cells"]))


def _transfers(folder: StudyFolder, name: str) -> Iterator[dict[str, Any]]:
    """What the direction of each model does in each, in shares and log-odds."""
    for model in folder.names("directions")["directed_model"]:
        table = folder.table(f"directions/{model}/transfer")
        if table.is_empty():
            continue
        own = table.filter(
            pl.col("label").is_not_null(),
            pl.col("measure").is_in(["phrases", "log_odds"]),
            direction=name,
        )
        keys = ["source", "edit", "label"]
        for (source, edit, label), rows in own.group_by(keys, maintain_order=True):
            cells = {row["measure"]: _interval(row) for row in rows.iter_rows(named=True)}
            yield {
                "model": model,
                "source": source,
                "edit": EDITS[str(edit)],
                "label": label,
                **cells,
            }


def _tunings(folder: StudyFolder) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What tuning changed in the models that were tuned here."""
    for model in folder.study.tuned_models:
        table = folder.table(f"models/{model}.tuning")
        if len(table):
            yield model, [row | {"told": _interval(row)} for row in table.iter_rows(named=True)]
