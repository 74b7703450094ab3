"""Positions that have a concept, and those that need it: what skill and interventions are measured
on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64

from saeflow.chess.games.boards import Boards, join
from saeflow.chess.games.moves import MOVES
from saeflow.chess.knowledge.concepts import Concept
from saeflow.chess.knowledge.responses import answers
from saeflow.chess.knowledge.views import View
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator
from saeflow.statistics.sparse_latents import SparseLatents


@dataclass(frozen=True, eq=False)
class Cases:
    """Pairs of a position and a concept.

    Attributes:
        boards: of the positions.
        concepts: index of the concept in the labels.
        games: the game of each.
        positions: index of the position among all.
    """

    boards: Boards
    concepts: Int64[np.ndarray, " n"]
    games: Int64[np.ndarray, " n"]
    positions: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.concepts)

    def part(self, which: Int64[np.ndarray, " m"] | Bool[np.ndarray, " n"]) -> Cases:
        """Some of them."""
        return Cases(
            self.boards.part(which), self.concepts[which], self.games[which], self.positions[which]
        )


def join_cases(parts: Sequence[Cases]) -> Cases:
    """All cases of the parts, in their order."""
    return Cases(
        join([part.boards for part in parts]),
        np.concatenate([part.concepts for part in parts]),
        np.concatenate([part.games for part in parts]),
        np.concatenate([part.positions for part in parts]),
    )


def draw(
    boards: Boards,
    games: Int64[np.ndarray, " n"],
    holds: Bool[np.ndarray, "n concepts"],
    rows: Int64[np.ndarray, " m"],
    concepts: list[int],
    most: int,
    generator: np.random.Generator,
) -> Cases:
    """So many pairs, drawn at random from those where ``holds`` is true.

    Args:
        boards, games: of all positions.
        holds: of which position and concept a pair may be made.
        rows: the positions to draw from.
        concepts: the concepts to draw from.
    """
    wanted = np.array(concepts, np.int64)
    place, which = holds[np.ix_(rows, wanted)].nonzero()
    kept = np.sort(generator.permutation(len(place))[:most])
    positions = rows[place[kept]]
    return Cases(boards.part(positions), wanted[which[kept]], games[positions], positions)


def answered(cases: Cases, concepts: list[Concept]) -> Bool[np.ndarray, "n moves"]:
    """The legal moves of each case that answer its concept."""
    answering = np.zeros((len(cases), len(MOVES)), bool)
    for concept in np.unique(cases.concepts):
        here = np.flatnonzero(cases.concepts == concept)
        answering[here] = answers(concepts[concept], View(cases.boards.part(here)))
    return answering


def best_latents(
    associations: pl.DataFrame, concepts: list[Concept], most: int
) -> dict[int, list[int]]:
    """By the place of a concept, its latents that fire with it, best first.

    Only those that tell it better than any latent did with labels out of step. All of that is known
    from the half that chooses, so that the held-out half has no part in it.
    """
    place = {concept.name: index for index, concept in enumerate(concepts)}
    beyond_chance = pl.col("auc_selection") > pl.col("null_largest")
    chosen = associations.filter((pl.col("direction") == 1) & beyond_chance).sort("rank")
    by_place: dict[int, list[int]] = {}
    for name, latent in chosen.select("concept", "latent").iter_rows():
        if name in place:
            by_place.setdefault(place[name], []).append(latent)
    return {index: latents[:most] for index, latents in by_place.items()}


def alike(
    latents: SparseLatents,
    target: int,
    used: Collection[int],
    excluded: Collection[int],
    count: int,
    seed: int,
    *purpose: str,
) -> list[int]:
    """Different random latents that fire about as often as one.

    They are drawn from those whose number of active positions is nearest to the target's: ten times
    as many as are wanted, or all there are.

    Args:
        latents: of some positions.
        target: the latent to be like.
        used: latents that are never drawn.
        excluded: latents that are not drawn where there are others.
        count: how many.
        seed: of the study.
        purpose: names the draw.

    Raises:
        SaeflowError: fewer others ever fire.
    """
    active = latents.active
    firing = np.setdiff1d(np.flatnonzero(active), [target, *used])
    others = np.setdiff1d(firing, list(excluded))
    if len(others) < count:
        others = firing
    if len(others) < count:
        raise SaeflowError(
            f"chess: {count} random latents were to be drawn beside latent {target}, and "
            f"{len(others)} others fire in the studied positions; lower controls or the numbers of "
            "latents, or take another SAE"
        )
    near = others[np.argsort(np.abs(active[others] - active[target]), kind="stable")[: 10 * count]]
    generator = numpy_generator(seed, *purpose)
    return sorted(generator.permutation(near)[:count].tolist())


def mean_active(latents: SparseLatents) -> np.ndarray:
    """A latent's mean where it fires, 0 where it never does: the unit of its activations."""
    sums = np.bincount(latents.latents, latents.values, latents.d_sae)
    return sums / np.maximum(latents.active, 1)
