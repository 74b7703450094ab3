"""What was measured of capabilities as columns of the summary, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from scipy import stats

from saeflow.analyses.steering.settings import Summary
from saeflow.seeds import numpy_generator
from saeflow.statistics.means import SCORE_GRID, interval, mean_draws, on_grid, random_weights

COLUMNS = ("text_loss", "text_loss_increase", "choice_accuracy", "choice_log_odds")
ACCURACY = "choice_accuracy"
_MEASURES = {"text_loss": "text_loss", "choice_correct": ACCURACY, "choice_log_odds": COLUMNS[3]}


class Costs(NamedTuple):
    """Of every group, one number per block of text or question, by column; NaN where it was not
    measured."""

    items: Mapping[str, Float[np.ndarray, "groups items"]]
    weights: Float[np.ndarray, "draws questions_and_unseen"]
    """Of the questions."""
    level: float

    def table(self) -> dict[str, Float[np.ndarray, " groups"]]:
        """Means over blocks or questions with their intervals."""
        columns: dict[str, Float[np.ndarray, " groups"]] = {}
        for name, values in self.items.items():
            mean = on_grid(values, SCORE_GRID).mean(axis=1)
            if name == ACCURACY:
                low, high = interval(mean_draws(values, self.weights), self.level)
            else:
                low, high = _student(values, self.level)
            columns |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        return columns

    def over_goals(self, groups: Int[np.ndarray, " goals"]) -> dict[str, float]:
        """The same of the mean over some groups, which read the same blocks and questions."""
        averaged = {name: values[groups].mean(axis=0)[None] for name, values in self.items.items()}
        return {
            name: float(value[0]) for name, value in self._replace(items=averaged).table().items()
        }


def capability_costs(
    groups: pl.DataFrame, measured: pl.DataFrame, settings: Summary, seed: int
) -> Costs:
    """Place what was measured in the rows of the scores.

    Args:
        groups: columns goal, method, scale_index.
        measured: of all goals, with the columns of
            `saeflow.analyses.steering.schemas.CAPABILITY_SCHEMA`.
        settings: draws and level of the intervals.
        seed: the study's seed.
    """
    items = {
        column: _on_grid(groups, measured.filter(pl.col("measure") == measure))
        for measure, column in _MEASURES.items()
        if measure in measured["measure"]
    }
    if "text_loss" in items:
        losses = items["text_loss"]
        zero = groups.with_row_index("group").filter(pl.col("scale") == 0)
        of_goal = dict(zip(zero["goal"], zero["group"], strict=True))
        unsteered = losses[[of_goal[goal] for goal in groups["goal"]]]
        items["text_loss_increase"] = losses - unsteered
    questions = items[ACCURACY].shape[1] if ACCURACY in items else 0
    generator = numpy_generator(seed, "summary", "bootstrap", "questions")
    weights = random_weights(np.arange(questions), settings.bootstrap, generator)
    return Costs(items, weights, settings.level)


def _on_grid(groups: pl.DataFrame, measured: pl.DataFrame) -> Float[np.ndarray, "groups items"]:
    keys = ["goal", "method", "scale_index"]
    rows = groups.with_row_index("group").join(measured.drop("scale"), on=keys)
    grid = np.full((len(groups), measured["item"].n_unique()), np.nan)
    grid[rows["group"].to_numpy(), rows["item"].to_numpy()] = rows["value"].to_numpy()
    return grid


def _student(
    values: Float[np.ndarray, "groups items"], level: float
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    """Student's interval of a mean; none of a single item."""
    count = values.shape[1]
    if count < 2:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    mean = values.mean(axis=1)
    error = values.std(axis=1, ddof=1) / np.sqrt(count)
    half = stats.t.ppf((1 + level) / 2, count - 1) * error
    return mean - half, mean + half
