"""How knowing a concept and acting on it go with the rating that the model is told.

The same positions are judged at every rating. *Awareness* is what latents hold: how well a
concept's latent tells the positions that have it from others. *Willingness* is what the model does:
the probability of moves that answer the concept. Both at every rating, with intervals over games
and with random latents beside them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float64, Int64

from saeflow.chess.analyses.concepts.cases import (
    Cases,
    alike,
    answered,
    best_latents,
    draw,
    mean_active,
)
from saeflow.chess.analyses.concepts.subject import Subject
from saeflow.chess.analyses.skill.awareness import Awareness
from saeflow.chess.analyses.skill.settings import Skill
from saeflow.chess.knowledge.responses import members
from saeflow.chess.saes.reading import Embedded, correct_moves, embed_boards, judged
from saeflow.chess.saes.site import Activations, SiteSAE, SkillModel
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import CHANGE, SHARE, Resampling, columns
from saeflow.tables import Schema


def _with_ends(*names: str) -> dict[str, type[pl.DataType]]:
    return {f"{name}{end}": pl.Float64 for name in names for end in ("", "_low", "_high")}


SKILL: Schema = {
    "group": pl.String,
    "rating": pl.Int8,
    "n": pl.Int64,
    "n_games": pl.Int64,
    "n_needed": pl.Int64,
    **_with_ends("activation", "awareness", "control_awareness", "willingness", "accuracy"),
}
AWARENESS: Schema = {
    "group": pl.String,
    "concept": pl.String,
    "square": pl.Int8,
    "latent": pl.Int32,
    "n": pl.Int64,
    "n_defined": pl.Int64,
    **_with_ends("r", "control_r", "willingness_r"),
    "mean_abs_r": pl.Float64,
    "shuffled_abs_r": pl.Float64,
    "control_abs_r": pl.Float64,
    **_with_ends("awareness_change", "willingness_change"),
}
_LEAST_CASES = 10  # of a concept, for its own row of `AWARENESS`


class Measured(NamedTuple):
    """What a group's cases show at every rating; ``[ratings, cases]`` unless said otherwise.

    Attributes:
        values: activation of the concept's latent in units of its mean where it fires.
        controls: the same of random latents, ``[controls, ratings, cases]``.
        willing: probability of the moves that answer the concept.
        right: probability of the right move.
        chosen: whether the right move is the most probable.
    """

    values: Float64[np.ndarray, "ratings cases"]
    controls: Float64[np.ndarray, "controls ratings cases"]
    willing: Float64[np.ndarray, "ratings cases"]
    right: Float64[np.ndarray, "ratings cases"]
    chosen: Bool[np.ndarray, "ratings cases"]


def skill(
    model: SkillModel, sae: SiteSAE, subject: Subject, settings: Skill, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Awareness, willingness and accuracy of groups of concepts at every rating.

    Args:
        model: with its site.
        sae: of the site.
        subject: what is studied; only its held-out half is.
        settings: of the stage.
        seed: of the study.

    Returns:
        A table with the columns of `SKILL`, one row per group and rating (one without a rating for
        a group of which no position has a concept that a latent tells), and one with those of
        `AWARENESS`, one row per concept that enough cases have.
    """
    latents = best_latents(subject.associations, subject.concepts, 1)
    by_rating, by_concept = [], []
    for group in settings.groups:
        concepts = [index for index in members(group, subject.concepts) if index in latents]
        measured = _Group(
            model,
            sae,
            subject,
            settings,
            seed,
            group,
            {concept: latents[concept][0] for concept in concepts},
        )
        by_rating += measured.by_rating()
        by_concept += measured.by_concept()
    return pl.DataFrame(by_rating, schema=SKILL), pl.DataFrame(by_concept, schema=AWARENESS)


class _Group:
    """One group's cases, with and without its concepts, and what they show."""

    def __init__(
        self,
        model: SkillModel,
        sae: SiteSAE,
        subject: Subject,
        settings: Skill,
        seed: int,
        group: str,
        latents: dict[int, int],
    ) -> None:
        self.group, self.subject, self.settings, self.seed, self.latents = (
            group,
            subject,
            settings,
            seed,
            latents,
        )
        self.ratings = range(model.n_bins)
        self.unit = mean_active(subject.latents)
        taken = set(latents.values())
        self.control = {
            concept: alike(
                subject.latents,
                latent,
                (),
                taken,
                settings.controls,
                seed,
                "chess skill",
                group,
                str(concept),
            )
            for concept, latent in latents.items()
        }
        self.cases, self.absent = self._draw(True), self._draw(False)
        batches = embed_boards(model, self.cases.boards)
        self.moves = answered(self.cases, subject.concepts)
        self.right = correct_moves(
            settings.correct, self.cases.positions, model, batches, subject.played, subject.best
        )
        self.present = self._measure(model, sae, self.cases, batches, self.moves)
        none = np.zeros((len(self.absent), self.moves.shape[1]), bool)
        without = self._measure(
            model, sae, self.absent, embed_boards(model, self.absent.boards), none
        )
        both = [
            np.concatenate([part.values[None], part.controls]) for part in (self.present, without)
        ]
        self.awareness = Awareness.of(
            np.concatenate(both, axis=2), self.cases, self.absent, settings.interval
        )
        generator = numpy_generator(seed, "chess skill", group, "bootstrap")
        self.resampling = Resampling(
            self.cases.games, settings.resamples, settings.interval, generator
        )

    def _draw(self, present: bool) -> Cases:
        subject, purpose = self.subject, "present" if present else "absent"
        generator = numpy_generator(self.seed, "chess skill", self.group, purpose)
        holds = subject.labels.values if present else ~subject.labels.values
        rows, concepts = subject.parts.held_out, list(self.latents)
        return draw(
            subject.examples.boards,
            subject.examples.games,
            holds,
            rows,
            concepts,
            self.settings.positions,
            generator,
        )

    @torch.no_grad()
    def _measure(
        self,
        model: SkillModel,
        sae: SiteSAE,
        cases: Cases,
        batches: list[Embedded],
        moves: Bool[np.ndarray, "cases moves"],
    ) -> Measured:
        wanted = np.array(
            [
                [self.latents[concept], *self.control[concept]]
                for concept in cases.concepts.tolist()
            ],
            np.int64,
        )
        wanted = wanted.reshape(len(cases), 1 + self.settings.controls)
        values = np.zeros((wanted.shape[1], len(self.ratings), len(cases)))
        willing, right, chosen = (np.zeros((len(self.ratings), len(cases))) for _ in range(3))
        for batch in batches:
            rows, indices = batch.rows, torch.from_numpy(wanted[batch.rows])
            for rating in self.ratings:

                def keep(
                    x: Activations, rows: slice = rows, r: int = rating, i: torch.Tensor = indices
                ) -> Activations:
                    values[:, r, rows] = sae.latents(x).cpu().gather(1, i).T.double().numpy()
                    return x

                said = judged(model, batch, rating, keep)
                probs = said.log_probs.exp().cpu().numpy()
                willing[rating, rows] = (probs * moves[rows]).sum(axis=1)
                if cases is self.cases:
                    true = self.right[rows]
                    right[rating, rows] = np.where(
                        true >= 0, probs[np.arange(len(true)), true], np.nan
                    )
                    chosen[rating, rows] = said.choice.cpu().numpy() == true
        values /= np.maximum(self.unit[wanted.T][:, None, :], np.finfo(np.float32).tiny)
        return Measured(values[0], values[1:], willing, right, chosen.astype(bool))

    def by_rating(self) -> list[dict[str, object]]:
        """The rows of `SKILL`."""
        needed = (self.right >= 0) & self.moves[np.arange(len(self.cases)), self.right]
        rows: list[dict[str, object]] = []
        if not len(self.cases):
            return [{"group": self.group, "n": 0}]
        for rating in self.ratings:
            means = {
                "activation": (self.present.values[rating], None),
                "willingness": (self.present.willing[rating], SHARE),
                "accuracy": (np.where(needed, self.present.chosen[rating], np.nan), SHARE),
            }
            row: dict[str, object] = {
                "group": self.group,
                "rating": rating,
                "n": len(self.cases),
                "n_games": len(np.unique(self.cases.games)),
                "n_needed": int(needed.sum()),
            }
            for name, (values, bounds) in means.items():
                row |= columns(name, self.resampling.mean(values, bounds))
            row |= columns("awareness", self.awareness.at(rating))
            row |= columns("control_awareness", self.awareness.of_controls(rating))
            rows.append(row)
        return rows

    def by_concept(self) -> list[dict[str, object]]:
        """The rows of `AWARENESS`."""
        rows = []
        for concept, latent in self.latents.items():
            mine = np.flatnonzero(self.cases.concepts == concept)
            if len(mine) < _LEAST_CASES:
                continue
            named = self.subject.concepts[concept]
            generator = numpy_generator(self.seed, "chess awareness", self.group, named.name)
            rows.append(
                {
                    "group": self.group,
                    "concept": named.name,
                    "square": named.square,
                    "latent": latent,
                    "n": len(mine),
                }
                | self._correlations(mine, generator)
                | columns("awareness_change", self.awareness.change(concept))
            )
        return rows

    def _correlations(
        self, mine: Int64[np.ndarray, " m"], generator: np.random.Generator
    ) -> dict[str, object]:
        """How a concept's activation goes with the probability of the right move along the ratings,
        case by case.

        The published view takes the mean of |r|, which is far from 0 by chance with so few ratings:
        what it is when ratings are shuffled stands beside it, and r with its sign.
        """
        values, right, willing = (
            part[:, mine]
            for part in (self.present.values, self.present.right, self.present.willing)
        )
        r = correlations(values, right)
        controls = np.stack(
            [correlations(control[:, mine], right) for control in self.present.controls]
        )
        shuffled = [
            np.abs(correlations(values[generator.permutation(len(values))], right))
            for _ in range(_SHUFFLES)
        ]
        resampling = Resampling(
            self.cases.games[mine], self.settings.resamples, self.settings.interval, generator
        )
        means = {
            "r": r,
            "control_r": _mean_known(controls),
            "willingness_r": correlations(values, willing),
            "willingness_change": willing[-1] - willing[0],
        }
        row: dict[str, object] = {
            "n_defined": int((~np.isnan(r)).sum()),
            "mean_abs_r": _mean_or_none(np.abs(r)),
            "shuffled_abs_r": _mean_or_none(np.array(shuffled)),
            "control_abs_r": _mean_or_none(np.abs(controls)),
        }
        for name, each in means.items():
            row |= columns(name, resampling.mean(each, CHANGE))
        return row


_SHUFFLES = 50


def correlations(
    a: Float64[np.ndarray, "ratings cases"], b: Float64[np.ndarray, "ratings cases"]
) -> Float64[np.ndarray, " cases"]:
    """Pearson's r along the ratings, per case; NaN where either does not change."""
    x, y = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    flat = spread <= 1e-12 * np.maximum(1, (a**2).sum(axis=0))
    return np.where(flat, np.nan, (x * y).sum(axis=0) / np.where(flat, 1, spread))


def _mean_or_none(values: Float64[np.ndarray, ...]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _mean_known(values: Float64[np.ndarray, "controls cases"]) -> Float64[np.ndarray, " cases"]:
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    return np.where(
        count > 0, np.where(defined, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan
    )
