"""One half of the games, ready to be judged under any edit of a group's latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from saeflow.chess.analyses.concepts.cases import (
    Cases,
    alike,
    answered,
    best_latents,
    draw,
    join_cases,
    mean_active,
)
from saeflow.chess.analyses.concepts.subject import Subject
from saeflow.chess.analyses.interventions.along import Along
from saeflow.chess.analyses.interventions.edits import NO_LATENT, Edited, Reconstructed, Shifted
from saeflow.chess.analyses.interventions.settings import Interventions
from saeflow.chess.knowledge.responses import members
from saeflow.chess.saes.reading import Embedded, Judged, correct_moves, embed_boards, judged
from saeflow.chess.saes.site import Activations, Edit, SiteSAE, SkillModel
from saeflow.seeds import numpy_generator

SELECTION, REPORT = "selection", "report"
NEEDS, UNNEEDED, ABSENT = SETS = ("needs", "unneeded", "absent")
_TRIED_PER_NEEDED = 10  # positions with a concept that are looked at for one that needs it


class Configuration(NamedTuple):
    """One way of editing; along a direction the number of latents is 0."""

    mode: str
    strength: float
    latents: int = 0


class Outcome(NamedTuple):
    """What the model does in each case.

    Attributes:
        accuracy: 1 where the right move is its choice, else 0.
        right: probability of the right move.
        kl: from the model as it is, over legal moves, in nats.
        legal: 1 where the most probable of all moves, legal or not, is legal.
        moved: how far the activations are moved, relative to their norm.
    """

    accuracy: Float64[np.ndarray, " cases"]
    right: Float64[np.ndarray, " cases"]
    kl: Float64[np.ndarray, " cases"]
    legal: Float64[np.ndarray, " cases"]
    moved: Float64[np.ndarray, " cases"]


@dataclass(frozen=True)
class Group:
    """A group's concepts and their latents.

    Attributes:
        name: of the group.
        latents: by the place of a concept among the labels, its latents, best first.
        controls: per draw the same with random latents that fire about as often.
        units: of every latent, its mean where it fires.
    """

    name: str
    latents: dict[int, list[int]]
    controls: list[dict[int, list[int]]]
    units: Tensor

    @classmethod
    def of(cls, name: str, subject: Subject, settings: Interventions, seed: int) -> Group:
        """The concepts of a group that some latent fires with."""
        by_concept = best_latents(subject.associations, subject.concepts, max(settings.latents))
        mine = [index for index in members(name, subject.concepts) if index in by_concept]
        latents = {index: by_concept[index] for index in mine}
        taken = {latent for chosen in latents.values() for latent in chosen}

        def drawn(control: int, concept: int, chosen: list[int]) -> list[int]:
            """A random latent in place of each; none is drawn twice, for it would be changed
            twice."""
            draws: list[int] = []
            for place, latent in enumerate(chosen):
                purpose = (
                    "chess control",
                    name,
                    subject.concepts[concept].name,
                    str(place),
                    str(control),
                )
                draws += alike(subject.latents, latent, [*chosen, *draws], taken, 1, seed, *purpose)
            return draws

        controls = [
            {concept: drawn(control, concept, chosen) for concept, chosen in latents.items()}
            for control in range(settings.controls)
        ]
        return cls(name, latents, controls, torch.from_numpy(mean_active(subject.latents)))

    def table(
        self, cases: Cases, most: int, control: int | None = None
    ) -> Int64[Tensor, "cases most"]:
        """The first latents of each case's concept, or random ones; `NO_LATENT` where there are
        fewer."""
        by_concept = self.latents if control is None else self.controls[control]
        filled = {
            concept: (many + [NO_LATENT] * most)[:most] for concept, many in by_concept.items()
        }
        rows = [filled[concept] for concept in cases.concepts.tolist()]
        return torch.tensor(rows, dtype=torch.long).reshape(len(cases), most)


@dataclass(frozen=True, eq=False)
class Trials:
    """Cases of one half of the games.

    Attributes:
        model, sae, group: what is tried.
        cases: as many of each set as there are, up to a number.
        sets: which belong to which: `NEEDS` the concept (it holds, and the right move answers it),
            `UNNEEDED` (it holds, and the right move has nothing to do with it), `ABSENT` (it does
            not hold).
        right: the right move of each.
        batches: what the model made of the positions.
    """

    model: SkillModel
    sae: SiteSAE
    group: Group
    cases: Cases
    sets: dict[str, Bool[np.ndarray, " cases"]]
    right: Int64[np.ndarray, " cases"]
    batches: list[Embedded]

    @classmethod
    def drawn(
        cls,
        model: SkillModel,
        sae: SiteSAE,
        group: Group,
        subject: Subject,
        settings: Interventions,
        seed: int,
        split: str,
    ) -> Trials:
        """Draw the cases of one half."""
        rows = subject.parts.selection if split == SELECTION else subject.parts.held_out
        most, examples, labels = settings.positions, subject.examples, subject.labels
        generator = numpy_generator(seed, "chess interventions", group.name, split)

        def drawn_where(
            holds: Bool[np.ndarray, "n concepts"], count: int
        ) -> tuple[Cases, Int64[np.ndarray, " cases"]]:
            cases = draw(
                examples.boards, examples.games, holds, rows, list(group.latents), count, generator
            )
            batches = embed_boards(model, cases.boards)
            return cases, correct_moves(
                settings.correct, cases.positions, model, batches, subject.played, subject.best
            )

        present, right = drawn_where(labels.values, _TRIED_PER_NEEDED * most)
        answers = answered(present, subject.concepts)
        needing = (right >= 0) & answers[np.arange(len(present)), right]
        absent, absent_right = drawn_where(~labels.values, most)
        kept = [
            _sample(mask, most, generator)
            for mask in (needing, (right >= 0) & ~needing, absent_right >= 0)
        ]
        cases = join_cases([present.part(kept[0]), present.part(kept[1]), absent.part(kept[2])])
        of_set = np.repeat(np.arange(len(SETS)), [len(rows) for rows in kept])
        sets = {name: of_set == place for place, name in enumerate(SETS)}
        all_right = np.concatenate([right[kept[0]], right[kept[1]], absent_right[kept[2]]])
        return cls(model, sae, group, cases, sets, all_right, embed_boards(model, cases.boards))

    def at(self, rating: int) -> AtRating:
        """The same, told a rating."""
        return AtRating(self, rating, [judged(self.model, batch, rating) for batch in self.batches])


@dataclass(frozen=True, eq=False)
class AtRating:
    """Cases of one half, judged by a model that is told a rating.

    Attributes:
        trials: the cases.
        rating: what the model is told.
        before: what it says without an edit.
    """

    trials: Trials
    rating: int
    before: list[Judged]

    def unedited(self) -> Outcome:
        """The model as it is."""
        return self.outcome(lambda rows: _as_it_is)

    def edited(self, configuration: Configuration, control: int | None = None) -> Outcome:
        """The latents of each case's concept edited, or random ones in their place."""
        group, (mode, strength, latents) = self.trials.group, configuration
        table = group.table(self.trials.cases, latents, control)
        return self.outcome(
            lambda rows: Edited(self.trials.sae, table[rows], group.units, mode, strength)
        )

    def shifted(
        self, along: Along, configuration: Configuration, control: int | None = None
    ) -> Outcome:
        """Each case moved along the direction of its concept, or of another in its place."""
        lines = along.lines(self.trials.cases, control)
        mode, strength, _ = configuration
        return self.outcome(lambda rows: Shifted(lines.part(rows), mode, strength))

    def reconstructed(self) -> Outcome:
        """What the SAE makes of the activations in their place."""
        return self.outcome(lambda rows: Reconstructed(self.trials.sae))

    @torch.no_grad()
    def outcome(self, edit_of: Callable[[slice], Edit]) -> Outcome:
        """What the model does under an edit.

        Args:
            edit_of: the edit of some of the cases.
        """
        parts = []
        for batch, before in zip(self.trials.batches, self.before, strict=True):
            edit = edit_of(batch.rows)
            moved: list[Tensor] = []

            def measured(
                x: Activations, edit: Edit = edit, moved: list[Tensor] = moved
            ) -> Activations:
                after = edit(x)
                sizes = self.trials.sae.seen(x).mean(dim=1).norm(dim=1)
                moved.append((after - x).mean(dim=1).norm(dim=1) / sizes)
                return after

            said = judged(self.trials.model, batch, self.rating, measured)
            right = torch.from_numpy(self.trials.right[batch.rows]).to(said.log_probs.device)
            both = before.log_probs.masked_fill(~batch.legal, 0) - said.log_probs.masked_fill(
                ~batch.legal, 0
            )
            parts.append(
                Outcome(
                    _numbers(said.choice == right),
                    _numbers(said.log_probs.exp().gather(1, right[:, None])[:, 0]),
                    _numbers((before.log_probs.exp() * both).sum(dim=1)),
                    _numbers(batch.legal.gather(1, said.logits.argmax(dim=1, keepdim=True))[:, 0]),
                    _numbers(moved[0]),
                )
            )
        return Outcome(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _as_it_is(x: Activations) -> Activations:
    return x


def _numbers(values: Tensor) -> Float64[np.ndarray, " cases"]:
    return values.double().cpu().numpy()


def _sample(
    mask: Bool[np.ndarray, " n"], most: int, generator: np.random.Generator
) -> Int64[np.ndarray, " m"]:
    return np.sort(generator.permutation(np.flatnonzero(mask))[:most])
