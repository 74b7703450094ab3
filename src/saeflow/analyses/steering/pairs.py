"""Both scores of every completion side by side, and the halves that choose and report a scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from saeflow.errors import SaeflowError
from saeflow.judging.verdicts import CRITERIA
from saeflow.seeds import row_keys

SPLITS = ("all", "selection", "report")


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Scores by group (goal, method, scale) and sample (prompt, number); NaN where a completion
    lacks either score.

    The same sample of every goal, method and scale stands in the same column, so that groups can be
    compared and resampled together.
    """

    groups: pl.DataFrame
    """Columns goal, method, scale_index, scale; one row per group."""
    samples: pl.DataFrame
    """Columns prompt, sample, repeat; one row per sample."""
    behaviour: Float[np.ndarray, "groups samples"]
    coherence: Float[np.ndarray, "groups samples"]
    present: Bool[np.ndarray, "groups samples"]
    """Whether there is a completion."""
    selection: Bool[np.ndarray, " samples"]
    """Whether the sample belongs to the half that chooses the scale."""
    missing: pl.DataFrame
    """Columns group, sample, criterion, reason; one row per score that is missing."""

    @property
    def observed(self) -> Bool[np.ndarray, "groups samples"]:
        """Whether a completion has both scores."""
        return ~np.isnan(self.behaviour)

    def columns(self, split: str) -> Int[np.ndarray, " members"]:
        """The samples of a split."""
        member = {
            "all": np.ones_like(self.selection),
            "selection": self.selection,
            "report": ~self.selection,
        }
        return np.flatnonzero(member[split])

    def scored(self, least: float) -> Bool[np.ndarray, " groups"]:
        """Whether at least such a share of a group's completions has both scores, in either
        half."""
        return np.logical_and.reduce(
            [
                self.observed[:, columns].sum(axis=1)
                >= least * self.present[:, columns].sum(axis=1)
                for columns in (self.columns("selection"), self.columns("report"))
            ]
        )

    @property
    def candidates(self) -> Bool[np.ndarray, " groups"]:
        """Whether a group may be chosen: every scale of a method that has some, and of one that
        steers in words, whose scale is null, no other than that."""
        in_words = pl.col("scale").is_null()
        may = in_words | ~in_words.any().over("goal", "method")
        return self.groups.select(may).to_series().to_numpy()

    @property
    def by_prompt(self) -> bool:
        """Whether there are several prompts."""
        return self.samples["prompt"].n_unique() > 1

    @property
    def unseen(self) -> list[str]:
        """Names of the units that were not seen: each goal has its own, but not where there are
        several prompts.

        What a goal's completions rarely do, those of other goals need not do at the same time; but
        a prompt that is unlike all others may be so for all goals.
        """
        return ["prompt"] if self.by_prompt else self.groups["goal"].unique().sort().to_list()

    @property
    def unseen_of(self) -> Int[np.ndarray, " groups"]:
        """Which of them is each group's."""
        numbers = (self.groups["goal"].rank("dense") - 1).cast(pl.Int64).to_numpy()
        return np.zeros_like(numbers) if self.by_prompt else numbers

    def units(self, split: str) -> Int[np.ndarray, " members"]:
        """What the samples of a split are drawn by, counted from 0: their prompt where there are
        several, else each.

        Completions of one prompt are alike, so that several prompts, not their completions, are a
        sample of what a method does. With one prompt all that is measured is for that prompt.
        """
        columns = self.columns(split)
        if not self.by_prompt:
            return np.arange(len(columns))
        prompts = self.samples["prompt"].gather(columns)
        return np.unique(prompts.rank("dense").to_numpy(), return_inverse=True)[1]


def pair_scores(
    completions: pl.DataFrame, scores: pl.DataFrame, selection: float, seed: int
) -> PairedScores:
    """Pair the two scores of each completion by its id.

    A prompt that a study names twice has two completions of each number; ``repeat`` tells them
    apart, by their order in the table.

    Args:
        completions: columns goal, method, scale, scale_index, prompt, sample, completion_id.
        scores: columns completion_id, criterion, score, reason.
        selection: share of the samples that choose the scale.
        seed: the study's seed.

    Raises:
        SaeflowError: a completion or a score is there twice, or a score belongs to no completion.
    """
    _refuse_mixed_tables(completions, scores)
    completions = told_apart(completions)
    groups = _groups(completions)
    samples = _samples(completions, seed)
    rows = _placed(completions, groups, samples)
    for criterion in CRITERIA:
        of_criterion = scores.filter(pl.col("criterion") == criterion)
        rows = rows.join(
            of_criterion.select(
                "completion_id",
                pl.col("score").alias(criterion),
                pl.col("reason").alias(f"{criterion}_reason"),
            ),
            on="completion_id",
            how="left",
            maintain_order="left",
        )
    shape = (len(groups), len(samples))
    index = (rows["group"].to_numpy(), rows["column"].to_numpy())
    complete = rows.select(pl.all_horizontal(pl.col(CRITERIA).is_not_null()))[
        "behaviour"
    ].to_numpy()
    return PairedScores(
        groups=groups.select("goal", "method", "scale_index", "scale"),
        samples=samples.select("prompt", "sample", "repeat"),
        behaviour=_scattered(rows["behaviour"].to_numpy(), complete, index, shape),
        coherence=_scattered(rows["coherence"].to_numpy(), complete, index, shape),
        present=_scattered(np.ones(len(rows)), np.ones(len(rows), dtype=bool), index, shape) == 1,
        selection=np.arange(len(samples)) < _selected(len(samples), selection),
        missing=_missing(rows),
    )


def held_out(completions: pl.DataFrame, selection: float, seed: int) -> pl.DataFrame:
    """The samples that choose no scale, in the order of their hash; columns prompt, sample,
    repeat."""
    samples = _samples(told_apart(completions), seed)
    return samples.slice(_selected(len(samples), selection)).select("prompt", "sample", "repeat")


def on_grid(
    paired: PairedScores, completions: pl.DataFrame, values: pl.DataFrame
) -> Float[np.ndarray, "groups samples"]:
    """Another value of each completion, in the rows and columns of the scores; NaN where there is
    none.

    Args:
        completions: the table that the scores were paired with.
        values: columns completion_id, value.
    """
    rows = placed(paired, completions).join(
        values, on="completion_id", how="left", maintain_order="left"
    )
    value = rows["value"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    index = (rows["group"].to_numpy(), rows["column"].to_numpy())
    return _scattered(value, ~np.isnan(value), index, paired.behaviour.shape)


def placed(paired: PairedScores, completions: pl.DataFrame) -> pl.DataFrame:
    """The completions that scores were paired with, with the row (``group``) and the column of
    each."""
    groups, samples = paired.groups.with_row_index("group"), paired.samples.with_row_index("column")
    return _placed(told_apart(completions), groups, samples)


def told_apart(completions: pl.DataFrame) -> pl.DataFrame:
    """The completions with ``repeat``, which counts those of the same prompt and number."""
    of_group = ["goal", "method", "scale_index", "prompt", "sample"]
    return completions.with_columns(repeat=pl.int_range(pl.len()).over(of_group))


def _placed(completions: pl.DataFrame, groups: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """The completions with the row (``group``) and the column of each."""
    return completions.join(
        groups, on=["goal", "method", "scale_index"], maintain_order="left"
    ).join(samples, on=["prompt", "sample", "repeat"], maintain_order="left")


def _refuse_mixed_tables(completions: pl.DataFrame, scores: pl.DataFrame) -> None:
    if completions["completion_id"].is_duplicated().any():
        raise SaeflowError(
            "summary: two completions have the same completion_id; make the completions again"
        )
    if scores.select("completion_id", "criterion").is_duplicated().any():
        raise SaeflowError(
            "summary: a completion has two scores for one criterion; delete the scores and they "
            "are made again"
        )
    if len(scores.join(completions, on="completion_id", how="anti")):
        raise SaeflowError(
            "summary: there are scores of other completions; delete the scores and they are made "
            "again"
        )


def _groups(completions: pl.DataFrame) -> pl.DataFrame:
    """Goals and methods in the order of the table, scales upwards."""
    cells = completions.select("goal", "method").unique(maintain_order=True).with_row_index("cell")
    groups = completions.group_by("goal", "method", "scale_index").agg(pl.col("scale").first())
    return (
        groups.join(cells, on=["goal", "method"])
        .sort("cell", "scale_index")
        .drop("cell")
        .with_row_index("group")
    )


def _samples(completions: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The samples ordered by a hash of their names, so that any cut of them is a fair one."""
    samples = completions.select("prompt", "sample", "repeat").unique()
    keys = row_keys(seed, "summary/split", samples.iter_rows())
    return (
        samples.with_columns(pl.Series("key", keys, dtype=pl.UInt64))
        .sort("key")
        .drop("key")
        .with_row_index("column")
    )


def _selected(samples: int, share: float) -> int:
    """How many samples choose the scale; one at least, and all but one at most."""
    return int(min(max(round(share * samples), 1), max(samples - 1, 1)))


def _scattered(
    values: NDArray[np.float64],
    kept: NDArray[np.bool_],
    index: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    grid = np.full(shape, np.nan)
    grid[index[0][kept], index[1][kept]] = values[kept]
    return grid


def _missing(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(
        rows.filter(pl.col(criterion).is_null()).select(
            "group",
            pl.col("column").alias("sample"),
            pl.lit(criterion).alias("criterion"),
            pl.col(f"{criterion}_reason").fill_null("not judged").alias("reason"),
        )
        for criterion in CRITERIA
    )
