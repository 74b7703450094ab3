"""Scores that say whether to believe a label, each beside that of a random latent's label.

Detection and fuzzing are delphi's (arXiv 2410.13928): 50 passages in which the latent fires, drawn
evenly over ten quantiles of its strength, and 50 in which it is silent, in one random order. The
score is the area under the ROC curve; where answers are 0 and 1 that is the mean of the two rates.

Simulation is that of Bills et al. 2023, "Language models can explain neurons in language models":
of every token of a passage is said how strongly the latent fires, and the score is the correlation
with how strongly it does, over the tokens of all passages together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from saeflow.analyses.labels.asking import Asker, Question
from saeflow.analyses.labels.questions import AMONG, OWN, RANDOM, Asked, random_partners
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
from saeflow.statistics.correlations import Correlation, correlation, correlation_difference
from saeflow.tables import Schema

ANSWERS: Schema = {
    "latent": pl.Int32,
    "source": pl.String,
    "label": pl.String,
    "score": pl.String,
    "item": pl.Int32,
    "token": pl.Int32,
    "block": pl.Int32,
    "fires": pl.Boolean,
    "activation": pl.Float32,
    "value": pl.Float64,
    "reason": pl.String,
}
"""``label``: own, or that of a random latent. ``item``: a passage, a text or a question; ``value``
is null where there is no answer, with the reason. ``token`` and ``activation``, of simulations:
which of the passage, and how strongly the latent fires on it."""
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
Activate = Callable[[Sequence[str], Sequence[int]], np.ndarray]
"""The largest activation of some latents on some texts, ``[texts, latents]``."""


def answer_table(asked: Sequence[Asked], asker: Asker) -> pl.DataFrame:
    """Put questions and write down the answers, with the columns of `ANSWERS`."""
    replies = asker.tell([each.question for each in asked])
    rows: list[tuple[object, ...]] = []
    for each, answer in zip(asked, replies, strict=True):
        key = (each.latent, each.source, each.label, each.score)
        if each.score == "intruder":
            right = None if answer.values is None else float(answer.values[0] == each.intruder)
            item = each.items[0]
            rows.append((*key, item, None, item, None, None, right, answer.reason))
            continue
        nothing = [None] * len(each.items)
        columns = (
            each.items,
            each.tokens or nothing,
            each.blocks,
            each.fires,
            each.activations or nothing,
        )
        values = answer.values or [float("nan")] * len(each.items)
        for *of_item, value in zip(*columns, values, strict=True):
            has_value = not np.isnan(value)
            number, reason = (value, None) if has_value else (None, answer.reason)
            rows.append((*key, *of_item, number, reason))
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
                    key = (latent, source, OWN, "generation")
                    rows.append((*key, text, None, text, fires, None, value, reason))
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
        elif score == "simulation":
            rows.append(key | _correlated(own, table.filter(label=RANDOM), settings, seed))
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
        change, low, high = difference_interval(first, second, settings.joint_level)
        result |= {"random": first.value, "over_random": change}
        result |= {"over_random_low": low, "over_random_high": high}
    return result


def _correlated(
    own: pl.DataFrame, other: pl.DataFrame, settings: LabelScores, seed: int
) -> dict[str, float | None]:
    """The correlation over all tokens of what was said with what the latent does, and that of what
    was said by a random latent's label of the tokens that both have answers about. Numbers that are
    all alike say nothing: they are no score of a label, and 0 of a random one."""

    def of(table: pl.DataFrame, said: str, level: float) -> Correlation | None:
        names = (said, "activation", "block")
        numbers, truth, block = (table[name].to_numpy() for name in names)
        draws = numpy_generator(seed, "labels", "simulation", "interval")
        truth = truth.astype(np.float64)
        return correlation(numbers, truth, block, settings.bootstrap, level, draws)

    result: dict[str, float | None] = dict.fromkeys(("value", "low", "high", *BASELINE))
    score = of(own.drop_nulls("value"), "value", settings.level)
    if score is not None:
        result |= {"value": score.value, "low": score.low, "high": score.high}
    by_random = other.drop_nulls("value").select("item", "token", of_random="value")
    both = own.drop_nulls("value").join(by_random, on=["item", "token"], how="inner")
    second = of(both, "value", settings.joint_level)
    if second is not None:
        nothing = Correlation(0.0, 0.0, 0.0, np.zeros(settings.bootstrap))
        first = of(both, "of_random", settings.joint_level) or nothing
        change, low, high = correlation_difference(first, second)
        result |= {"random": first.value, "over_random": change}
        result |= {"over_random_low": low, "over_random_high": high}
    return result


def _against_half(own: pl.DataFrame, settings: LabelScores) -> dict[str, float | None]:
    """An area between texts of the own label and of a random latent's: one half by chance."""
    error = _error(own.drop_nulls("value"))
    if error is None:
        return dict.fromkeys(("value", "low", "high", *BASELINE))
    joint = area_interval(error, settings.joint_level)
    return _area(error, settings.level) | {
        "random": 0.5,
        "over_random": joint.auc - 0.5,
        "over_random_low": joint.low - 0.5,
        "over_random_high": joint.high - 0.5,
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
