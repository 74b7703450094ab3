"""The page of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from saeflow.analyses.tasks.settings import Tasks
from saeflow.figures.style import words
from saeflow.report.contribution import Contribution, Page
from saeflow.report.folder import StudyFolder
from saeflow.report.wording import Fact, readable

KINDS = {
    "zero_shot": "without examples",
    "few_shot": "with examples",
    "exchanged": "with examples whose outputs are exchanged",
    "mean": "mean with examples",
    "difference": "that less the mean without examples",
    "function": "function vector",
    "placebo": "placebo: mean with exchanged outputs",
    "cleaned": "cleaned",
    "cleaned_placebo": "placebo, cleaned for exchanged answers",
    "gradient": "gradient pursuit",
    "gradient_positive": "gradient pursuit, positive",
    "orthogonal": "orthogonal matching pursuit",
    "matching": "matching pursuit",
    "lasso": "lasso",
    "sae": "largest codes of the SAE",
    "sae_whole": "all codes of the SAE",
}
OTHERS = {
    "difference": "that vector less the mean without examples",
    "function": "the function vector",
    "placebo": "the placebo",
}
"""Vectors that a sentence names beside the mean."""
PURSUITS = ("gradient", "gradient_positive", "orthogonal", "matching", "lasso")
"""Of `KINDS`, those that choose as many latents as they are asked for."""


def contribute(
    folder: StudyFolder, own: Tasks, output: Path, added: Mapping[str, Contribution]
) -> Contribution:
    """The page, a sentence for each task, and how many there are."""
    sweep = folder.table("tasks/sweep")
    if sweep.is_empty():
        return Contribution()
    tasks = own.lists.names
    cleaned_in = folder.names("tasks")["cleaned_sae"]
    curves: dict[tuple[str, str], pl.DataFrame] = {
        (sae, task): folder.table(f"tasks/{sae}/{task}/curves")
        for sae in cleaned_in
        for task in tasks
    }
    latents = {sae: folder.table(f"tasks/{sae}/latents") for sae in cleaned_in}
    sentences = [sentence for task in tasks for sentence in _of_task(sweep, curves, task)]
    context = {
        "sentences": [*sentences, *_of_answers(folder.table("tasks/pairs"))],
        "vectors": [_vector(row) for row in _ends_and_chosen(sweep).to_dicts()],
        "cleaned": [
            [sae, words(task), *_cleaned(row)]
            for (sae, task), table in curves.items()
            for row in _at_equal_numbers(table)
        ],
        "latents": [
            (sae, row["latent"], _latent(row))
            for sae, table in latents.items()
            for row in table.to_dicts()
        ],
    }
    return Contribution(
        pages={"tasks": Page(template="tasks.html", context=context, label="Tasks")},
        headline=sentences[:1],
        tiles=[Fact("tasks", str(len(tasks)), "of examples")],
    )


def _of_task(
    sweep: pl.DataFrame, curves: Mapping[tuple[str, str], pl.DataFrame], task: str
) -> list[str]:
    own = {
        row["kind"]: row
        for row in sweep.filter(task=task, template="own").to_dicts()
        if row["chosen"] or row["layer"] is None
    }
    zero, few = own["zero_shot"], own["few_shot"]
    text = (
        f"{words(task).capitalize()}: examples take the loss from {readable(zero['loss'])} to "
        f"{readable(few['loss'])} nats and make {_share(few, 'accuracy')} of the answers right, "
        f"without them {readable(zero['accuracy'])}."
    )
    best = own.get("mean") or next(row for row in own.values() if row["layer"] is not None)
    if best["recovered"] is None:
        return [text + " They lower nothing, so that there is nothing to recover."]
    text += (
        f" The {KINDS[best['kind']]} behind layer {best['layer']} recovers "
        f"{_share(best, 'recovered')} of that"
    )
    for kind, name in OTHERS.items():
        if (other := own.get(kind)) and other is not best:
            text += f", {name} behind layer {other['layer']} {_share(other, 'recovered')}"
    sentences = [text + "."]
    for (sae, name), table in curves.items():
        if name == task and not table.is_empty():
            for row in table.filter("chosen", method="cleaned").to_dicts():
                sentences.append(
                    f"Cleaned in {sae}, {row['latents']} of its latents reach "
                    f"{_share(row, 'recovered')}{_held_against(table, row['latents'])}."
                )
    return sentences


def _held_against(curves: pl.DataFrame, latents: int) -> str:
    """What else recovers how much at the layer of an SAE: as many latents by each pursuit, and the
    vector that was cleaned."""
    rivals = [
        row
        for row in curves.filter(latents=latents).to_dicts()
        if row["method"] in PURSUITS and row["recovered"] is not None
    ]
    text = "".join(
        f"; as many by {KINDS[row['method']]} {_share(row, 'recovered')}" for row in rivals
    )
    for row in curves.filter(method="mean").to_dicts():
        text += f"; the whole {KINDS['mean']} there {_share(row, 'recovered')}"
    return text


def _of_answers(pairs: pl.DataFrame) -> list[str]:
    """How much of the answers counts, where it is not all."""
    if pairs.is_empty():
        return []
    own = pairs.filter(template="own", condition="zero_shot")
    cut = own.filter(pl.col("tokens") > pl.col("scored"))
    if cut.is_empty():
        return []
    named = ", ".join(words(task) for task in cut["task"].unique(maintain_order=True))
    return [
        f"Of {len(cut)} of {len(own)} outputs only the first {cut['scored'][0]} tokens count, "
        f"as they have more ({named})."
    ]


def _ends_and_chosen(sweep: pl.DataFrame) -> pl.DataFrame:
    """What no vector does, and every vector behind the layer that was chosen."""
    return sweep.filter(pl.col("chosen") | pl.col("layer").is_null())


def _at_equal_numbers(curves: pl.DataFrame) -> list[dict[str, Any]]:
    """The chosen cleaned vector, what has as many latents, and what is no sum of few."""
    if curves.is_empty():
        return []
    chosen = curves.filter("chosen", method="cleaned")
    number = chosen["latents"].max()
    as_many = (pl.col("latents") == number) & ~pl.col("method").str.starts_with("cleaned")
    whole = pl.col("latents").is_null() | (pl.col("method") == "sae_whole")
    control = pl.col("chosen") & (pl.col("method") == "cleaned_placebo")
    others = curves.filter((as_many & (pl.col("method") != "sae_whole")) | whole | control)
    return [*chosen.to_dicts(), *others.to_dicts()]


def _share(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return "–"
    ends = row[f"{name}_low"], row[f"{name}_high"]
    if None in ends:
        return readable(row[name])
    return f"{readable(row[name])} ({readable(ends[0])} to {readable(ends[1])})"


def _vector(row: Mapping[str, Any]) -> list[str]:
    return [
        words(row["task"]),
        row["template"],
        KINDS[row["kind"]],
        "–" if row["layer"] is None else str(row["layer"]),
        "–" if row["scale"] is None else f"{row['scale']:g}",
        _share(row, "loss"),
        _share(row, "recovered"),
        _share(row, "accuracy"),
    ]


def _cleaned(row: Mapping[str, Any]) -> list[str]:
    return [
        KINDS[row["method"]],
        "–" if row["latents"] is None else str(row["latents"]),
        _share(row, "loss"),
        _share(row, "recovered"),
        _share(row, "accuracy"),
    ]


def _latent(row: Mapping[str, Any]) -> list[str]:
    return [
        words(row["task"]),
        row["kind"],
        "–" if row["value"] is None else readable(row["value"]),
        row["fires_at"] or "nowhere",
        readable(row["rate"]),
        "–" if row["elsewhere"] is None else readable(row["elsewhere"]),
        " · ".join(repr(word)[1:-1] for word in row["words"]),
    ]
