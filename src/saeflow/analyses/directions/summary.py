"""What edits did, as means with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from saeflow.analyses.directions.interventions import Measured
from saeflow.analyses.directions.settings import EditMeasures
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import POSITIVE, SHARE, Resampling, cells

EDITS = {
    "edit": pl.String,
    "kind": pl.String,
    "scale": pl.Float64,
    "label": pl.String,
    "measure": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int32,
}
MEASURES = {"phrases": SHARE, "log_odds": None, "kl_first": POSITIVE, "kl_token": POSITIVE}
"""Between what each lies, where it has bounds."""


def summarise(measured: Measured, settings: EditMeasures, seed: int) -> pl.DataFrame:
    """Means over prompts, and over blocks of text, of every edit.

    Prompts of one group are one unit, and so are a prompt's answers under several controls of a
    kind: intervals are over groups of prompts, whatever the number of controls.

    Args:
        measured: tables of answers and losses.
        settings: level and draws of the intervals.
        seed: of the study.

    Returns:
        The columns of `EDITS`; ``n`` counts groups of prompts, or blocks. ``loss_increase`` is
        against the unedited model, block by block.
    """
    return pl.DataFrame(
        [
            *_of_answers(measured.answers, MEASURES, settings, seed),
            *_of_text(measured.losses, settings, seed),
        ],
        schema=EDITS,
        orient="row",
    )


def summarise_scores(scored: pl.DataFrame, settings: EditMeasures, seed: int) -> pl.DataFrame:
    """Means of what a judge says of answers, as `summarise` takes them.

    Args:
        scored: columns of `VERDICTS`; answers without a score are left out.
        settings: level and draws of the intervals.
        seed: of the study.

    Returns:
        The columns of `EDITS`, with the measure ``judged``.
    """
    scores = scored.rename({"score": "judged"})
    rows = _of_answers(scores, {"judged": SHARE}, settings, seed)
    return pl.DataFrame(list(rows), schema=EDITS, orient="row")


def _of_answers(
    answers: pl.DataFrame,
    measures: Mapping[str, tuple[float, float] | None],
    settings: EditMeasures,
    seed: int,
) -> Iterator[tuple[object, ...]]:
    keys = ["edit", "kind", "scale", "label"]
    for key, own in answers.group_by(keys, maintain_order=True):
        resampling = _resampling(own["group"].to_numpy(), settings, seed)
        for measure, bounds in measures.items():
            values = own[measure].to_numpy().astype(float)
            if not np.isnan(values).all():
                mean = resampling.mean(values, bounds)
                yield (*key, measure, *cells(mean), own["group"].n_unique())


def _of_text(
    losses: pl.DataFrame, settings: EditMeasures, seed: int
) -> Iterator[tuple[object, ...]]:
    usual = losses.filter(edit="none").select("block", usual="loss")
    joined = losses.join(usual, on="block").with_columns(
        loss_increase=pl.col("loss") - pl.col("usual")
    )
    for key, own in joined.group_by(["edit", "kind", "scale"], maintain_order=True):
        resampling = _resampling(own["block"].to_numpy().astype(np.int64), settings, seed)
        for measure, bounds in (("loss", POSITIVE), ("loss_increase", None)):
            mean = resampling.mean(own[measure].to_numpy(), bounds)
            yield (*key, None, measure, *cells(mean), own["block"].n_unique())


def _resampling(clusters: np.ndarray, settings: EditMeasures, seed: int) -> Resampling:
    generator = numpy_generator(seed, "directions", "intervals")
    return Resampling(clusters, settings.draws, settings.level, generator)
