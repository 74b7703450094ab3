"""What an edit recovers of the loss between prompts without examples and prompts with them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from saeflow.analyses.tasks.answering import Answers
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import POSITIVE, SHARE, Mean, Resampling, columns
from saeflow.statistics.means import as_wide_as_students, interval, seen_weights


class Ends(NamedTuple):
    """The same pairs asked for without examples, and with them."""

    zero: Answers
    few: Answers


class Shares:
    """Means over pairs, with intervals over pairs: the same draws for everything that is told of
    them.

    Args:
        ends: what edits lie between.
        draws: of pairs.
        level: of intervals.
        seed: of the study.
        task: whose pairs these are.
    """

    def __init__(self, ends: Ends, draws: int, level: float, seed: int, task: str) -> None:
        self._ends, self._level, n = ends, level, len(ends.zero.loss)

        def generator() -> np.random.Generator:
            return numpy_generator(seed, "tasks", task, "intervals")

        self._resampling = Resampling(np.arange(n), draws, level, generator())
        self._weights = seen_weights(n, draws, generator())

    @property
    def gap(self) -> float:
        """By how many nats examples lower the mean loss."""
        return float((self._ends.zero.loss - self._ends.few.loss).mean())

    def recovered(self, answers: Answers) -> Mean:
        """The share of the gap by which an edit lowers the mean loss; NaN where examples lower
        nothing."""
        zero, few, own = (_array(each.loss) for each in (*self._ends, answers))
        if zero.mean() <= few.mean():
            return Mean(np.nan, np.nan, np.nan)
        gaps, gains = self._weights @ (zero - few), self._weights @ (zero - own)
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = np.where(gaps > 0, gains / gaps, np.nan)[:, None]
        value = (zero - own).mean() / (zero - few).mean()
        draws = as_wide_as_students(draws, value, len(zero), self._level)
        low, high = interval(np.stack([draws, draws]), self._level)
        return Mean(value, float(low[0]), float(high[0]))

    def row(self, answers: Answers) -> dict[str, float | None]:
        """Loss, recovered share and accuracy as columns of a table."""
        loss = self._resampling.mean(_array(answers.loss), POSITIVE)
        right = self._resampling.mean(_array(answers.right), SHARE)
        return {
            **columns("loss", loss),
            **columns("recovered", self.recovered(answers)),
            **columns("accuracy", right),
        }


def mean_loss(answers: Answers) -> float:
    """Over prompts."""
    return float(answers.loss.double().mean())


def standard_error(answers: Answers) -> float:
    """Of that mean."""
    return float(answers.loss.double().std() / len(answers.loss) ** 0.5)


def _array(values: Float[Tensor, " n"] | Bool[Tensor, " n"]) -> Float64[np.ndarray, " n"]:
    return values.to(torch.float64).numpy()
