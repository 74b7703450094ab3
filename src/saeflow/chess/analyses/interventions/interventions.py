"""Does a concept's latent carry the concept: change it, and see on which positions the model's
choice gets better.

Per group and rating every mode, strength and number of latents is tried on the games that choose;
the one that raises the probability of the right move most on positions that need the concept is
measured on the held-out games. There it stands beside the same edit at strength 1, the same edit of
random latents, and the SAE's reconstruction without an edit. The same is done along directions that
were fitted for the concept, whose control are those of other concepts.

Source: the questions of CSSLab's maia2-sae; its defects (edits that drop the SAE's error, ReLU in
place of the trained activation, configurations chosen on what is reported, illegal moves chosen)
are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool

from saeflow.chess.analyses.concepts.subject import Subject
from saeflow.chess.analyses.interventions.along import Along
from saeflow.chess.analyses.interventions.edits import ALONG
from saeflow.chess.analyses.interventions.points import (
    SHIFTS,
    TRANSITIONS,
    edited_points,
    found_from,
    shifts,
)
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
OF_ANOTHER = "_of_another"
"""What ends the kind of a direction's control: the direction of another concept."""
AS_IT_IS = ("as_it_is", 0)
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


class Intervened(NamedTuple):
    """What was measured.

    Attributes:
        interventions: the columns of `INTERVENTIONS`: on the split ``selection`` every
            configuration, on ``report`` the chosen one of each arm and its controls, each on the
            three sets of `trials.SETS` and on those of the first that the model gets wrong,
            `MISSED`, where any change of moves can only gain, so that only the controls beside it
            tell what the edit does. ``gain`` is the accuracy less that of the model as it is on the
            same cases, ``right_gain`` the same of the right move's probability. A group's rating
            with too few cases is one row that says so.
        transitions: the columns of `points.TRANSITIONS`: from which rating on the right move is
            found in each held-out position that needs a concept, before and under the edits.
        shifts: the columns of `points.SHIFTS`: the same in numbers.
    """

    interventions: pl.DataFrame
    transitions: pl.DataFrame
    shifts: pl.DataFrame


class Arm(NamedTuple):
    """What is edited.

    Attributes:
        edited: the kind of its rows.
        random: the kind of its control's rows.
        grid: every way that is tried.
        edit: what the model does under one of them; with a number, the control of this draw.
    """

    edited: str
    random: str
    grid: list[Configuration]
    edit: Callable[[AtRating, Configuration, int | None], Outcome]


def intervene(
    model: SkillModel,
    sae: SiteSAE,
    subject: Subject,
    settings: Interventions,
    seed: int,
    progress: Progress | None = None,
) -> Intervened:
    """Edit the latents of groups of concepts at every rating, and move along their directions.

    Args:
        model: with its site.
        sae: of the site.
        subject: what is studied.
        settings: of the stage.
        seed: of the study.
        progress: is told how many of how many groups' ratings are done.
    """
    rows: list[dict[str, Any]] = []
    moved: list[pl.DataFrame] = []
    shifted: list[dict[str, Any]] = []
    ratings, done = sorted(settings.bins) or list(range(model.n_bins - 1)), 0
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
        fewest = min(int(half.sets[NEEDS].sum()) for half in halves)
        arms = _arms(group, subject, settings, seed) if fewest >= settings.minimum else []
        hits: list[dict[tuple[str, int], Bool[np.ndarray, " cases"]]] = []
        for rating in ratings:
            if arms:
                tried, solved = _of_rating(halves, summaries, arms, settings, rating)
                hits.append(solved)
            else:
                tried = [{"skipped": _too_few(fewest, settings)}]
            rows += [{"group": name, "rating": rating, **row} for row in tried]
            done += 1
            if progress:
                progress(done, len(ratings) * len(settings.groups))
        if arms:
            report, needs = halves[1], halves[1].sets[NEEDS]
            points_of = {
                key: found_from(np.stack([solved[key][needs] for solved in hits]), ratings)
                for key in hits[0]
            }
            before = points_of.pop(AS_IT_IS)
            cases = report.cases.part(needs)
            moved.append(
                edited_points(name, cases, report.right[needs], subject.concepts, before, points_of)
            )
            games = summaries[1].games_of[NEEDS]
            shifted += shifts(name, games, len(np.unique(cases.games)), before, points_of)
    return Intervened(
        pl.DataFrame(rows, schema=INTERVENTIONS),
        pl.concat([pl.DataFrame(schema=TRANSITIONS), *moved]),
        pl.DataFrame(shifted, schema=SHIFTS),
    )


def _too_few(fewest: int, settings: Interventions) -> str:
    return f"only {fewest} positions of a half need the concept, fewer than {settings.minimum}"


def _arms(group: Group, subject: Subject, settings: Interventions, seed: int) -> list[Arm]:
    """Latents first, then directions by their methods."""
    grid = product(settings.modes, settings.strengths, settings.latents)
    arms = [Arm(EDITED, RANDOM, [Configuration(*values) for values in grid], AtRating.edited)]
    modes = [mode for mode in settings.modes if mode in ALONG]
    for method in settings.directions:
        along = Along.of(method, group.name, list(group.latents), subject, settings.controls, seed)
        if along.rows:
            tried = [Configuration(*way) for way in product(modes, settings.direction_strengths)]
            edit = partial(_shifted, along=along)
            arms.append(Arm(method, f"{method}{OF_ANOTHER}", tried, edit))
    return arms


def _shifted(
    at: AtRating, configuration: Configuration, control: int | None, along: Along
) -> Outcome:
    return at.shifted(along, configuration, control)


def _of_rating(
    halves: Sequence[Trials],
    summaries: Sequence[_Summary],
    arms: Sequence[Arm],
    settings: Interventions,
    rating: int,
) -> tuple[list[dict[str, Any]], dict[tuple[str, int], Bool[np.ndarray, " cases"]]]:
    """The rows of a rating, and by kind of edit and draw whether each held-out case is right."""
    selection, report = (half.at(rating) for half in halves)
    at_first, before = selection.unedited(), report.unedited()
    rows: list[dict[str, Any]] = []
    solved = {AS_IT_IS: before.accuracy == 1}
    reported: list[tuple[str, Configuration | None, list[Outcome]]] = []
    for arm in arms:
        tried = {way: arm.edit(selection, way, None) for way in arm.grid}
        chosen = choose(tried, at_first, selection.trials.sets[NEEDS])
        for way, outcome in tried.items():
            shown = {"split": SELECTION, "kind": arm.edited, "chosen": way == chosen}
            rows += [
                {**shown, **way._asdict(), **row} for row in summaries[0].rows(at_first, [outcome])
            ]
        edited = arm.edit(report, chosen, None)
        others = [arm.edit(report, chosen, draw) for draw in range(settings.controls)]
        reported.append((arm.edited, chosen, [edited]))
        if arm.edited == EDITED:
            same = Configuration("multiply", 1.0, chosen.latents)
            reported.append((IDENTITY, same, [report.edited(same)]))
        reported.append((arm.random, chosen, others))
        if arm.edited == EDITED:
            reported.append((RECONSTRUCTION, None, [report.reconstructed()]))
        solved[arm.edited, 0] = edited.accuracy == 1
        solved |= {(arm.random, draw): other.accuracy == 1 for draw, other in enumerate(others)}
    for kind, configuration, outcomes in reported:
        shown = {"split": REPORT, "kind": kind, "chosen": True}
        way_of = configuration._asdict() if configuration else {}
        rows += [{**shown, **way_of, **row} for row in summaries[1].rows(before, outcomes)]
    return rows, solved


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
