"""Does a concept's latent carry the concept: change it, and see on which positions the model's
choice gets better.

Per group and rating every mode, strength and number of latents is tried on the games that choose;
the one that raises the probability of the right move most on positions that need the concept is
measured on the held-out
games. There it stands beside the same edit at strength 1, the same edit of random latents, and the
SAE's reconstruction without an edit.

Source: the questions of CSSLab's maia2-sae; its defects (edits that drop the SAE's error, ReLU in
place of the trained activation, configurations chosen on what is reported, illegal moves chosen)
are not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool

from saeflow.chess.analyses.concepts.subject import Subject
from saeflow.chess.analyses.interventions.settings import Interventions
from saeflow.chess.analyses.interventions.trials import (
    NEEDS,
    REPORT,
    SELECTION,
    AtRating,
    Configuration,
    Group,
    Outcome,
    Trials,
)
from saeflow.chess.saes.reading import Progress
from saeflow.chess.saes.site import SiteSAE, SkillModel
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import CHANGE, SHARE, Resampling, columns
from saeflow.tables import Schema

MISSED = "missed"
"""Positions that need the concept and in which the model, told the rating, chooses a wrong move:
where accuracy has room above it."""
EDITED, IDENTITY, RANDOM, RECONSTRUCTION = "edited", "strength_1", "random", "reconstruction"
INTERVENTIONS: Schema = {
    "group": pl.String,
    "rating": pl.Int8,
    "split": pl.String,
    "kind": pl.String,
    "mode": pl.String,
    "strength": pl.Float64,
    "latents": pl.Int16,
    "chosen": pl.Boolean,
    "set": pl.String,
    "n": pl.Int64,
    "n_games": pl.Int64,
    "accuracy_before": pl.Float64,
    **{
        f"{name}{end}": pl.Float64
        for name in ("accuracy", "gain", "right_gain", "kl", "legal", "moved")
        for end in ("", "_low", "_high")
    },
    "skipped": pl.String,
}


def intervene(
    model: SkillModel,
    sae: SiteSAE,
    subject: Subject,
    settings: Interventions,
    seed: int,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Edit the latents of groups of concepts at every rating.

    Args:
        model: with its site.
        sae: of the site.
        subject: what is studied.
        settings: of the stage.
        seed: of the study.
        progress: is told how many of how many groups' ratings are done.

    Returns:
        A table with the columns of `INTERVENTIONS`: on the split ``selection`` every configuration,
        on ``report`` the chosen one and its controls, each on the three sets of `trials.SETS` and
        on those of the first that the model gets wrong, `MISSED`, where any change of moves can
        only gain, so that only the controls beside it tell what the latents do.
        ``gain`` is the accuracy less that of the model as it is on the same cases, ``right_gain``
        the same of the right move's probability. A group's rating with too few cases is one row
        that says so.
    """
    rows: list[dict[str, Any]] = []
    ratings, done = settings.bins or range(model.n_bins - 1), 0
    for name in settings.groups:
        group = Group.of(name, subject, settings, seed)
        halves = [
            Trials.drawn(model, sae, group, subject, settings, seed, split)
            for split in (SELECTION, REPORT)
        ]
        summaries = [
            _Summary(half, settings, seed, split)
            for half, split in zip(halves, (SELECTION, REPORT), strict=True)
        ]
        for rating in ratings:
            measured = _of_rating(halves, summaries, settings, rating)
            rows += [{"group": name, "rating": rating, **row} for row in measured]
            done += 1
            if progress:
                progress(done, len(ratings) * len(settings.groups))
    return pl.DataFrame(rows, schema=INTERVENTIONS)


def _of_rating(
    halves: Sequence[Trials], summaries: Sequence[_Summary], settings: Interventions, rating: int
) -> Iterator[dict[str, Any]]:
    fewest = min(int(half.sets[NEEDS].sum()) for half in halves)
    if fewest < settings.minimum:
        yield {
            "skipped": f"only {fewest} positions of a half need the concept, fewer than "
            f"{settings.minimum}"
        }
        return
    selection = halves[0].at(rating)
    before = selection.unedited()
    grid = map(Configuration._make, product(settings.modes, settings.strengths, settings.latents))
    tried = {configuration: selection.edited(configuration) for configuration in grid}
    chosen = choose(tried, before, selection.trials.sets[NEEDS])
    for configuration, outcome in tried.items():
        shown = {
            "split": SELECTION,
            "kind": EDITED,
            "chosen": configuration == chosen,
            **configuration._asdict(),
        }
        yield from ({**shown, **row} for row in summaries[0].rows(before, [outcome]))
    yield from _reported(halves[1].at(rating), summaries[1], chosen, settings.controls)


def _reported(
    report: AtRating, summary: _Summary, chosen: Configuration, controls: int
) -> Iterator[dict[str, Any]]:
    before, same = report.unedited(), Configuration("multiply", 1.0, chosen.latents)
    kinds: list[tuple[str, Configuration | None, list[Outcome]]] = [
        (EDITED, chosen, [report.edited(chosen)]),
        (IDENTITY, same, [report.edited(same)]),
        (RANDOM, chosen, [report.edited(chosen, draw) for draw in range(controls)]),
        (RECONSTRUCTION, None, [report.reconstructed()]),
    ]
    for kind, configuration, outcomes in kinds:
        shown = {
            "split": REPORT,
            "kind": kind,
            "chosen": True,
            **(configuration._asdict() if configuration else {}),
        }
        yield from ({**shown, **row} for row in summary.rows(before, outcomes))


def choose(
    tried: dict[Configuration, Outcome], before: Outcome, needs: Bool[np.ndarray, " cases"]
) -> Configuration:
    """The configuration that raises the right move's probability most on the cases that need the
    concept: accuracy says nothing where the model is right, or wrong by far.

    Gains of the same hundredth are equal; among equals the one with the larger gain in accuracy,
    then the one that changes predictions least on the other cases, then the first.
    """

    def merit(configuration: Configuration) -> tuple[float, float, float]:
        outcome = tried[configuration]
        harm = float(outcome.kl[~needs].mean()) if (~needs).any() else 0.0
        right, hits = outcome.right - before.right, outcome.accuracy - before.accuracy
        return round(float(right[needs].mean()), 2), float(hits[needs].mean()), -harm

    return max(tried, key=merit)


class _Summary:
    """Means and intervals of outcomes on a half's sets of cases."""

    def __init__(self, half: Trials, settings: Interventions, seed: int, split: str) -> None:
        self.sets = half.sets
        self.games = half.cases.games
        self._settings = settings
        self._draws = (seed, "chess interventions", half.group.name, split)
        self.games_of = {name: self._resampled(name, mask) for name, mask in self.sets.items()}

    def _resampled(self, name: str, mask: Bool[np.ndarray, " cases"]) -> Resampling:
        generator = numpy_generator(*self._draws, name, "bootstrap")
        return Resampling(
            self.games[mask], self._settings.resamples, self._settings.interval, generator
        )

    def rows(self, before: Outcome, outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
        """One row per set of cases; several outcomes (draws of a control) are averaged case by
        case."""
        mean = Outcome(*(np.mean(values, axis=0) for values in zip(*outcomes, strict=True)))
        numbers = {
            "accuracy": (mean.accuracy, SHARE),
            "gain": (mean.accuracy - before.accuracy, CHANGE),
            "right_gain": (mean.right - before.right, CHANGE),
            "kl": (mean.kl, None),
            "legal": (mean.legal, SHARE),
            "moved": (mean.moved, None),
        }
        missed = self.sets[NEEDS] & (before.accuracy == 0)
        for name, mask in {**self.sets, MISSED: missed}.items():
            if not mask.any():
                continue
            games = self.games_of.get(name) or self._resampled(name, mask)
            row: dict[str, Any] = {
                "set": name,
                "n": int(mask.sum()),
                "n_games": len(np.unique(self.games[mask])),
            }
            row["accuracy_before"] = float(before.accuracy[mask].mean())
            for column, (values, bounds) in numbers.items():
                row |= columns(column, games.mean(values[mask], bounds))
            yield row
