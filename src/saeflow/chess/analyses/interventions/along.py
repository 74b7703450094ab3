"""The directions that a group's concepts are moved along, and those of other concepts in their
place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from saeflow.chess.analyses.concepts.cases import Cases
from saeflow.chess.analyses.concepts.directions import ConceptDirections
from saeflow.chess.analyses.concepts.subject import Subject
from saeflow.chess.analyses.interventions.edits import Lines
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator


@dataclass(frozen=True, eq=False)
class Along:
    """The directions of one method for a group's concepts.

    Attributes:
        method: of the directions.
        rows: by the place of a concept among the labels, its direction.
        others: per draw the same with the direction of another concept, of another square.
        directions: all of them.
    """

    method: str
    rows: dict[int, int]
    others: list[dict[int, int]]
    directions: ConceptDirections

    @classmethod
    def of(
        cls, method: str, group: str, concepts: list[int], subject: Subject, draws: int, seed: int
    ) -> Along:
        """The directions of some concepts.

        Args:
            method: of the directions.
            group: names the draws.
            concepts: their places among the labels.
            subject: what is studied, with its directions.
            draws: how many others in the place of each.
            seed: of the study.

        Raises:
            SaeflowError: there are no directions of the method, or no others to draw.
        """
        if subject.directions is None:
            raise SaeflowError(
                "chess: edits along directions want those of concepts; name the file with "
                "--directions"
            )
        row_of = subject.directions.of_method(method)
        rows_by_concept = {
            place: row_of[concept.name]
            for place, concept in enumerate(subject.concepts)
            if concept.name in row_of
        }
        rows = {place: rows_by_concept[place] for place in concepts if place in rows_by_concept}
        others: list[dict[int, int]] = [{} for _ in range(draws)]
        for place in rows:
            own = subject.concepts[place]
            elsewhere = [
                row
                for other, row in rows_by_concept.items()
                if other != place
                and (own.square < 0 or subject.concepts[other].square != own.square)
            ]
            if len(elsewhere) < draws:
                raise SaeflowError(
                    f"chess: {draws} directions of other concepts were to be drawn beside "
                    f"{own.name}, and there are {len(elsewhere)}; lower controls or take more "
                    "families"
                )
            generator = numpy_generator(seed, "chess directions", group, method, own.name)
            for draw, row in zip(others, generator.permutation(elsewhere), strict=False):
                draw[place] = int(row)
        return cls(method, rows, others, subject.directions)

    def lines(self, cases: Cases, control: int | None = None) -> Lines:
        """The direction of each case's concept, or that of another concept, along which the case
        goes as far; none where its concept has no direction."""
        by_concept = self.rows if control is None else self.others[control]
        used, own = (
            np.array([which.get(concept, -1) for concept in cases.concepts.tolist()], np.int64)
            for which in (by_concept, self.rows)
        )
        return Lines(
            torch.from_numpy(self.directions.vectors[used] * (used >= 0)[:, None]).float(),
            torch.from_numpy(self.directions.without[used]).float(),
            torch.from_numpy(self.directions.apart[own]).float(),
        )
