"""Scores that say whether to believe a label, each beside that of a random latent's label.

Detection and fuzzing are delphi's (arXiv 2410.13928): 50 passages in which the latent fires, drawn
evenly over ten quantiles of its strength, and 50 in which it is silent, in one random order. The
score is the area under the ROC curve; where answers are 0 and 1 that is the mean of the two rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from saeflow.analyses.labels.asking import Asker, Question
from saeflow.analyses.labels.settings import LabelScores
from saeflow.seeds import numpy_generator
from saeflow.statistics.areas import (
    Error,
    area_error,
    area_interval,
    difference_interval,
    placements,
)
from saeflow.statistics.clusters import SHARE, Resampling
from saeflow.tables import Schema

OWN, RANDOM = "own", "random"
ANSWERS: Schema = {
    "latent": pl.Int32,
    "source": pl.String,
    "label": pl.String,
    "score": pl.String,
    "item": pl.Int32,
    "block": pl.Int32,
    "fires": pl.Boolean,
    "value": pl.Float64,
    "reason": pl.String,
}
"""``label``: own, or that of a random latent. ``item``: a passage, a text or a question; ``value``
is null where there is no answer, with the reason."""
SCORES: Schema = {
    "latent": pl.Int32,
    "source": pl.String,
    "score": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "random": pl.Float64,
    "over_random": pl.Float64,
    "over_random_low": pl.Float64,
    "over_random_high": pl.Float64,
    "over_tokens": pl.Float64,
    "n": pl.Int32,
    "missing": pl.Int32,
}
BASELINE = ("random", "over_random", "over_random_low", "over_random_high")
AMONG = 5
"""Passages of a question about intruders, one of which is one."""
Activate = Callable[[Sequence[str], Sequence[int]], np.ndarray]
"""The largest activation of some latents on some texts, ``[texts, latents]``."""


class Words(NamedTuple):
    """How tokens are written: by id, and what stands between two."""

    texts: Mapping[int, str]
    gap: str

    def passage(self, tokens: Sequence[int], marked: Sequence[bool] | None = None) -> str:
        """A passage as text; runs of marked tokens stand between << and >>."""
        marks = list(marked) if marked is not None else [False] * len(tokens)
        pieces: list[str] = []
        for number, token in enumerate(tokens):
            text = self.texts.get(token, "")
            if marks[number] and (number == 0 or not marks[number - 1]):
                bare = text.lstrip(" ")
                text = f"{text[: len(text) - len(bare)]}<<{bare}"
            if marks[number] and (number + 1 == len(tokens) or not marks[number + 1]):
                text += ">>"
            pieces.append(text)
        return self.gap.join(pieces).strip()


def random_partners(latents: Sequence[int], seed: int, source: str) -> dict[int, int]:
    """Another latent for each, whose label stands for that of a random latent: the next one in a
    random order."""
    order = numpy_generator(seed, "labels", "partners", source).permutation(len(latents))
    shuffled = [latents[place] for place in order]
    return dict(zip(shuffled, [*shuffled[1:], shuffled[0]], strict=True)) if len(order) > 1 else {}


class _Asked(NamedTuple):
    """A question, and where its answer belongs."""

    question: Question
    latent: int
    source: str
    label: str
    score: str
    items: list[int]
    blocks: list[int]
    fires: list[bool]
    intruder: int = 0
    """The number of the passage that does not belong."""


def passage_questions(
    labels: pl.DataFrame, passages: pl.DataFrame, kind: str, words: Words, seed: int
) -> list[_Asked]:
    """Detection or fuzzing: every label, and a random latent's, on the tested passages.

    Args:
        labels: latent, source, text.
        passages: of all latents, with the columns of `PASSAGES`.
        kind: ``detection`` or ``fuzzing``.
        words: how tokens are written.
        seed: of the study.
    """
    tested = passages.filter(pl.col("use") != "shown").with_row_index("item")
    by_latent = tested.partition_by("latent", as_dict=True)
    asked = []
    for (source,), own in labels.partition_by("source", as_dict=True, maintain_order=True).items():
        texts = dict(own.select("latent", "text").iter_rows())
        partners = random_partners(sorted(texts), seed, str(source))
        for latent in sorted(texts):
            table = by_latent.get((latent,))
            if table is None or table["use"].n_unique() < 2:
                continue
            generator = numpy_generator(seed, "labels", kind, latent)
            shown = _shown(table, kind, words, generator)
            order = generator.permutation(len(shown))
            rows = [table.row(int(place), named=True) for place in order]
            for label, of in ((OWN, latent), (RANDOM, partners.get(latent))):
                if of is None:
                    continue
                asked.append(
                    _Asked(
                        Question(kind, texts[of], tuple(shown[place] for place in order)),
                        latent,
                        str(source),
                        label,
                        kind,
                        [row["item"] for row in rows],
                        [row["block"] for row in rows],
                        [row["use"] == "tested" for row in rows],
                    )
                )
    return asked


def dream_questions(labels: pl.DataFrame, dreams: pl.DataFrame, seed: int) -> list[_Asked]:
    """Whether a label tells prompts that were dreamed of its latent from as many that were dreamed
    of others.

    Args:
        labels: latent, source, text.
        dreams: latent, text: of all latents that were dreamed of; the latent of a random label is
            none of the others.
        seed: of the study.
    """
    numbered = dreams.with_row_index("item")
    asked = []
    for (source,), own in labels.partition_by("source", as_dict=True, maintain_order=True).items():
        texts = dict(own.select("latent", "text").iter_rows())
        both = sorted(set(texts) & set(dreams["latent"]))
        partners = random_partners(both, seed, str(source))
        for latent in both:
            partner = partners.get(latent)
            mine = numbered.filter(latent=latent)
            others = numbered.filter(~pl.col("latent").is_in([latent, partner]))
            if partner is None or others.is_empty():
                continue
            generator = numpy_generator(seed, "labels", "dreams", str(source), latent)
            count = min(len(mine), len(others))
            drawn = others[generator.choice(len(others), count, replace=False).tolist()]
            table = pl.concat([mine, drawn])
            table = table[generator.permutation(len(table)).tolist()]
            items = table["item"].to_list()
            fires = (table["latent"] == latent).to_list()
            for label, of in ((OWN, latent), (RANDOM, partner)):
                question = Question("detection", texts[of], tuple(table["text"]))
                asked.append(
                    _Asked(question, latent, str(source), label, "dreams", items, items, fires)
                )
    return asked


def _shown(
    table: pl.DataFrame, kind: str, words: Words, generator: np.random.Generator
) -> list[str]:
    """The passages as they are shown: for fuzzing with marks, on the tokens that fire or, where
    none does, on as many random ones as fire on average."""
    tokens = table["token_ids"].to_list()
    if kind == "detection":
        return [words.passage(row) for row in tokens]
    firing = [np.array(row) > 0 for row in table["activations"].to_list()]
    counts = [marks.sum() for marks in firing if marks.any()]
    usual = int(np.ceil(np.mean(counts))) if counts else 1
    shown = []
    for row, marks in zip(tokens, firing, strict=True):
        if not marks.any():
            places = generator.choice(len(row), min(usual, len(row)), replace=False)
            marks = np.isin(np.arange(len(row)), places)
        shown.append(words.passage(row, marks.tolist()))
    return shown


def intruder_questions(passages: pl.DataFrame, count: int, words: Words, seed: int) -> list[_Asked]:
    """Of every latent some questions: four passages in which it fires and one in which it does
    not; no label is told."""
    asked = []
    tested = passages.filter(pl.col("use") != "shown")
    for (latent,), table in tested.partition_by("latent", as_dict=True).items():
        sides = {
            use: [words.passage(row) for row in table.filter(use=use)["token_ids"].to_list()]
            for use in ("tested", "silent")
        }
        if len(sides["tested"]) < AMONG - 1 or not sides["silent"]:
            continue
        generator = numpy_generator(seed, "labels", "intruder", int(str(latent)))
        for number in range(count):
            firing = generator.choice(len(sides["tested"]), AMONG - 1, replace=False)
            texts = [sides["tested"][place] for place in firing]
            place = int(generator.integers(AMONG))
            texts.insert(place, sides["silent"][int(generator.integers(len(sides["silent"])))])
            question = Question("intruder", "", tuple(texts), number)
            asked.append(
                _Asked(question, int(str(latent)), "", OWN, "intruder", [number], [], [], place + 1)
            )
    return asked


def answer_table(asked: Sequence[_Asked], asker: Asker) -> pl.DataFrame:
    """Put questions and write down the answers, with the columns of `ANSWERS`."""
    replies = asker.tell([each.question for each in asked])
    rows: list[tuple[object, ...]] = []
    for each, answer in zip(asked, replies, strict=True):
        if each.score == "intruder":
            right = None if answer.values is None else float(answer.values[0] == each.intruder)
            key = (each.latent, each.source, each.label, each.score)
            rows.append((*key, each.items[0], each.items[0], None, right, answer.reason))
            continue
        values = answer.values or [float("nan")] * len(each.items)
        for item, block, fires, value in zip(
            each.items, each.blocks, each.fires, values, strict=True
        ):
            has_value = not np.isnan(value)
            number, reason = (value, None) if has_value else (None, answer.reason)
            key = (each.latent, each.source, each.label, each.score)
            rows.append((*key, item, block, fires, number, reason))
    return pl.DataFrame(rows, schema=ANSWERS, orient="row")


def generation_table(
    labels: pl.DataFrame, asker: Asker, activate: Activate, texts: int, seed: int
) -> pl.DataFrame:
    """Have texts written from every label and see what fires on them: a latent on texts of its own
    label, which fires, and on those of a random latent's.

    Args:
        labels: latent, source, text.
        asker: who writes.
        activate: what latents do on texts.
        texts: of each label.
        seed: of the study.

    Returns:
        The columns of `ANSWERS`: the largest activation as ``value``; ``fires`` tells texts of the
        own label from the others.
    """
    every = labels.sort("source", "latent")
    questions = [
        Question("generation", text, (), number)
        for text in every["text"].to_list()
        for number in range(texts)
    ]
    replies = asker.tell(questions)
    numbers = every["latent"].unique().sort().to_list()
    written = [answer.text or "" for answer in replies]
    peaks = activate(written, numbers)
    rows = []
    place = {
        (source, latent): row * texts
        for row, (source, latent) in enumerate(every.select("source", "latent").iter_rows())
    }
    for source in every["source"].unique(maintain_order=True):
        own = every.filter(source=source)["latent"].to_list()
        partners = random_partners(own, seed, source)
        for latent in own:
            column = numbers.index(latent)
            for of, fires in ((latent, True), (partners.get(latent), False)):
                if of is None:
                    continue
                for text in range(place[source, of], place[source, of] + texts):
                    reason = None if replies[text].text else replies[text].reason
                    value = None if reason else float(peaks[text, column])
                    rows.append(
                        (latent, source, OWN, "generation", text, text, fires, value, reason)
                    )
    return pl.DataFrame(rows, schema=ANSWERS, orient="row")


def score_table(answers: pl.DataFrame, settings: LabelScores, seed: int) -> pl.DataFrame:
    """The score of every label from its answers, beside its baselines, with the columns of
    `SCORES`."""
    rows = []
    groups = answers.partition_by("latent", "source", "score", as_dict=True, maintain_order=True)
    for (latent, source, score), table in groups.items():
        own = table.filter(label=OWN)
        missing = int(own["value"].null_count())
        key = {"latent": latent, "source": source, "score": score}
        key |= {"n": len(own) - missing, "missing": missing}
        if score == "intruder":
            rows.append(key | _rate(own, settings, seed))
        elif score == "generation":
            rows.append(key | _against_half(own, settings))
        else:
            row = _against_random(own, table.filter(label=RANDOM), settings)
            if score == "dreams":  # prompts of one search are alike, and no units of an interval
                row |= dict.fromkeys(("low", "high", "over_random_low", "over_random_high"))
            rows.append(key | row)
    schema = {name: kind for name, kind in SCORES.items() if name != "over_tokens"}
    scores = pl.DataFrame(rows, schema=schema)
    tokens = scores.filter(source="tokens").select("latent", "score", of_tokens="value")
    joined = scores.join(tokens, on=["latent", "score"], how="left", maintain_order="left")
    over = pl.when(pl.col("source") != "tokens").then(pl.col("value") - pl.col("of_tokens"))
    return joined.with_columns(over_tokens=over).select(*SCORES)


def _error(table: pl.DataFrame) -> Error | None:
    """The area of answers and what it owes to each block; None where a side has no answer."""
    label = table["fires"].to_numpy()
    if label.all() or not label.any():
        return None
    clusters = np.unique(table["block"].to_numpy(), return_inverse=True)[1]
    return area_error(placements(table["value"].to_numpy(), label), label, clusters)


def _area(error: Error | None, level: float) -> dict[str, float | None]:
    if error is None:
        return dict.fromkeys(("value", "low", "high"))
    area = area_interval(error, level)
    return {"value": area.auc, "low": area.low, "high": area.high}


def _against_random(
    own: pl.DataFrame, other: pl.DataFrame, settings: LabelScores
) -> dict[str, float | None]:
    """An area, and the same passages by a random latent's label; the difference is over passages
    that both have answers about."""
    both = own.drop_nulls("value").join(
        other.drop_nulls("value").select("item", of_random="value"), on="item", how="inner"
    )
    first = _error(both.with_columns(value="of_random"))
    second = _error(both)
    result = _area(_error(own.drop_nulls("value")), settings.level)
    result |= dict.fromkeys(BASELINE)
    if first is not None and second is not None:
        change, low, high = difference_interval(first, second, settings.level)
        result |= {"random": first.value, "over_random": change}
        result |= {"over_random_low": low, "over_random_high": high}
    return result


def _against_half(own: pl.DataFrame, settings: LabelScores) -> dict[str, float | None]:
    """An area between texts of the own label and of a random latent's: one half by chance."""
    result = _area(_error(own.drop_nulls("value")), settings.level)
    if result["value"] is None:
        return result | dict.fromkeys(BASELINE)
    return result | {
        "random": 0.5,
        "over_random": (result["value"] or 0.0) - 0.5,
        "over_random_low": (result["low"] or 0.0) - 0.5,
        "over_random_high": (result["high"] or 0.0) - 0.5,
    }


def _rate(own: pl.DataFrame, settings: LabelScores, seed: int) -> dict[str, float | None]:
    """How often the intruder was told, beside chance."""
    values = own.drop_nulls("value")["value"].to_numpy()
    chance = 1 / AMONG
    if not len(values):
        return dict.fromkeys(("value", "low", "high", *BASELINE))
    draws = numpy_generator(seed, "labels", "intruder", "interval")
    mean = Resampling(np.arange(len(values)), settings.bootstrap, settings.level, draws).mean(
        values, SHARE
    )
    return {
        "value": mean.value,
        "low": mean.low,
        "high": mean.high,
        "random": chance,
        "over_random": mean.value - chance,
        "over_random_low": mean.low - chance,
        "over_random_high": mean.high - chance,
    }
