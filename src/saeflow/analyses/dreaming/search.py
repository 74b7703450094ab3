"""The search for prompts that make a target large and are likely text at once.

Source: Thompson, Straznickas, Sklar 2024, "Fluent dreaming for language models"
    (arXiv:2402.01702), evolutionary prompt optimisation (EPO). What differs from the published
    program: gradients are taken under each slot's own penalty, the penalty of a restart is the one
    that was drawn, slots hold different prompts, and prompts stand behind BOS or a template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64

from saeflow.analyses.dreaming.fronts import Front, empty, merged
from saeflow.analyses.dreaming.scoring import Family, Scorer, Scores
from saeflow.analyses.dreaming.settings import FORWARD, GRADIENT
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.analyses.dreaming.frame import Reader
    from saeflow.analyses.dreaming.objectives import Target
    from saeflow.analyses.dreaming.settings import DreamSearch, Method

_DRAWS = 4
"""How often a child is drawn again that is not read back from its text."""
_REWRITTEN = 32
"""How often a prompt to begin with is written anew that is not."""
_IDLE = 10
"""Rounds without any betterment after which an adaptive search replaces one more token."""
_MOST_REPLACED = 3
_BEAM_SHARE = 0.2
"""Of the budget, at most, that an adaptive search begins with."""
Beat = Callable[[int, int], None]
Keep = Callable[[dict[str, Any]], None]


class Progress(NamedTuple):
    """How far the search for one target had come after a round."""

    round: int
    spent: int
    """In forward passes of one prompt."""
    best: list[float]
    """Under each penalty the largest ``value / scale - penalty × loss`` so far."""


class Pool(NamedTuple):
    """Prompts that were run for one target."""

    prompts: Int64[np.ndarray, "rows n"]
    values: Float64[np.ndarray, " rows"]
    losses: Float64[np.ndarray, " rows"]


@dataclass
class Population:
    """The prompts that are bettered for one target, one per penalty, and all that was seen."""

    slots: Pool
    front: Front
    spent: int = 0
    idle: int = 0
    progress: list[Progress] = field(default_factory=list)


def penalties(asked: DreamSearch) -> Float64[np.ndarray, " slots"]:
    """The weight of cross-entropy in each slot, geometric between the ends."""
    low, high = asked.penalties
    return np.exp(np.linspace(np.log(low), np.log(high), asked.population))


def budget(asked: DreamSearch) -> int:
    """What a search may spend on a target, by any method: that of the rounds of EPO."""
    return asked.rounds * asked.population * (asked.children * FORWARD + GRADIENT)


class Search:
    """A search by one method for several targets side by side.

    Each target has draws of its own, named by it, the method and the round: what is found does not
    depend on what else is sought beside it.

    Args:
        scorer: runs prompts; its objective knows the targets by their places.
        targets: what is sought.
        asked: settings.
        method: one of `Method`.
        alphabet: tokens that prompts may hold, increasing.
        reader: None takes prompts whose text is not read as their tokens.
        seed: of the study.
    """

    def __init__(
        self,
        scorer: Scorer,
        targets: Sequence[Target],
        asked: DreamSearch,
        method: Method,
        alphabet: Int64[np.ndarray, " tokens"],
        reader: Reader | None,
        seed: int,
    ) -> None:
        self._scorer, self._targets, self._asked = scorer, targets, asked
        self._method, self._alphabet, self._reader = method, alphabet, reader
        self._seed, self._penalties = seed, penalties(asked)

    def run(
        self,
        places: Sequence[int],
        starts: Sequence[Int64[np.ndarray, "starts n"]],
        state: dict[str, Any] | None = None,
        keep: Keep | None = None,
        beat: Beat | None = None,
    ) -> list[Population]:
        """Search until the budget is spent.

        Args:
            places: of the targets.
            starts: of each target prompts to begin with, beside drawn ones.
            state: of a search that was interrupted, as `keep` got it.
            keep: is given the state after every round.
            beat: told how much of the budget is spent.

        Raises:
            SaeflowError: no prompt to begin with is read back from its text.
        """
        first, of = 0, [repr(self._targets[place]) for place in places]
        if state and set(of) <= state["of"].keys():
            first = int(state["round"]) + 1
            populations = [_restored(state["of"][target]) for target in of]
        else:
            populations = self._opened(places, starts)
        total = budget(self._asked)
        for number in range(first, 10 * self._asked.rounds):
            living = [i for i, each in enumerate(populations) if each.spent < total]
            if not living:
                break
            self._round(number, [places[i] for i in living], [populations[i] for i in living])
            if keep:
                states = map(_state, populations)
                keep({"round": number, "of": dict(zip(of, states, strict=True))})
            if beat:
                beat(min(min(each.spent for each in populations), total), total)
        return populations

    def _opened(
        self, places: Sequence[int], starts: Sequence[Int64[np.ndarray, "starts n"]]
    ) -> list[Population]:
        """Populations of what there is to begin with."""
        n, slots = self._asked.length, self._asked.population
        draws = [self._generator(place, "start") for place in places]
        blank = [self._written(random, slots) for random in draws]
        populations = [Population(Pool(*empty(n)), empty(n)) for _ in places]
        beams = [own[:0] for own in blank]
        if self._method == "adaptive":
            beams = self._beams(places, populations, draws)
        begun = [np.concatenate(each) for each in zip(starts, blank, beams, strict=True)]
        if not all(map(len, begun)):
            raise SaeflowError(
                f"dreaming.frame.round_trip: of {slots} drawn prompts of {n} tokens none is read "
                "back from its text as the tokens that it is; set it to false, or change what "
                "stands before and after, or tokens"
            )
        for population, pool in zip(populations, self._run_all(places, begun), strict=True):
            self._take(population, pool)
        for place, population in zip(places, populations, strict=True):
            self._note(place, population, -1)
        return populations

    def _beams(
        self,
        places: Sequence[int],
        populations: Sequence[Population],
        draws: Sequence[np.random.Generator],
    ) -> list[Int64[np.ndarray, "slots n"]]:
        """Prompts grown from their last token to the front, each step the best of what stands
        before, so that what fires at the end is there when the rest is added."""
        asked = self._asked
        slots, weight = asked.population, float(np.median(self._penalties))
        share = int(_BEAM_SHARE * budget(asked) / asked.length / slots)
        each = max(2, min(asked.children, share))
        grown = [np.empty((1, 0), np.int64) for _ in places]
        for _ in range(asked.length):
            longer = []
            for random, own in zip(draws, grown, strict=True):
                count = -(-slots * each // len(own))
                if len(self._alphabet) <= count:
                    tokens = np.broadcast_to(self._alphabet, (len(own), len(self._alphabet)))
                else:
                    tokens = self._drawn(random, (len(own), count))
                behind = np.repeat(own, tokens.shape[1], axis=0)
                rows = np.concatenate([tokens.reshape(-1, 1), behind], axis=1)
                longer.append(self._joined(rows) if self._reader else rows)
            pools = self._run_all(places, longer)
            for i, (population, pool) in enumerate(zip(populations, pools, strict=True)):
                population.spent += FORWARD * len(pool.prompts)
                worth = pool.values / self._targets[places[i]].scale - weight * pool.losses
                grown[i] = pool.prompts[np.argsort(-worth, kind="stable")[:slots]]
        return grown

    def _round(self, number: int, places: Sequence[int], populations: Sequence[Population]) -> None:
        """Replace tokens of every prompt, and keep the best under each penalty."""
        asked, slots = self._asked, self._asked.population
        draws = [self._generator(place, number) for place in places]
        if asked.restart_every and number and number % asked.restart_every == 0:
            for place, population, random in zip(places, populations, draws, strict=True):
                self._restart(place, population, random)
        ranked: Any = [None] * len(places)
        if self._method != "random":
            rows = torch.from_numpy(np.concatenate([each.slots.prompts for each in populations]))
            weights = torch.from_numpy(np.tile(self._penalties, len(places)))
            scales = [self._targets[place].scale for place in places]
            ranked = (
                self._scorer.rank(
                    rows,
                    torch.tensor(places).repeat_interleave(slots),
                    weights,
                    torch.tensor(scales).repeat_interleave(slots),
                    torch.from_numpy(self._alphabet),
                    asked.top,
                )
                .tokens.view(len(places), slots, asked.length, -1)
                .numpy()
            )
            for population in populations:
                population.spent += GRADIENT * slots
        children = [
            self._children(population, random, own)
            for population, random, own in zip(populations, draws, ranked, strict=True)
        ]
        pools = self._run_children(places, populations, children)
        for place, population, pool in zip(places, populations, pools, strict=True):
            self._take(population, pool)
            self._note(place, population, number)

    def _restart(self, place: int, population: Population, random: np.random.Generator) -> None:
        """Put into every slot the prompt that is best under one drawn penalty."""
        low, high = self._asked.restart_penalty
        penalty = random.uniform(low, high)
        best = self._worth(place, population.slots, np.array([penalty])).argmax()
        population.slots = Pool(
            *(np.repeat(each[best : best + 1], len(each), axis=0) for each in population.slots)
        )

    def _children(
        self,
        population: Population,
        random: np.random.Generator,
        ranked: Int64[np.ndarray, "slots n top"] | None,
    ) -> tuple[Int64[np.ndarray, "children n"], Int64[np.ndarray, " children"]]:
        """Prompts that differ from one of the population in a token, or in a few, and from which;
        of equal ones one."""
        parents = np.repeat(np.arange(self._asked.population), self._asked.children)
        rows = population.slots.prompts[parents]
        pending = np.arange(len(rows))
        for _ in range(_DRAWS if self._reader else 1):
            rows[pending] = self._replaced(population, random, parents[pending], ranked)
            back = self._reader.reads_back(rows[pending].tolist()) if self._reader else True
            pending = pending[~np.broadcast_to(back, len(pending))]
            if not len(pending):
                break
        kept, first = np.unique(np.delete(rows, pending, axis=0), axis=0, return_index=True)
        return kept, np.delete(parents, pending)[first]

    def _replaced(
        self,
        population: Population,
        random: np.random.Generator,
        parents: Int64[np.ndarray, " rows"],
        ranked: Int64[np.ndarray, "slots n top"] | None,
    ) -> Int64[np.ndarray, "rows n"]:
        """Parents with other tokens in drawn places."""
        n, most, share = self._asked.length, 1, 1.0
        if self._method == "adaptive":
            done = population.spent / budget(self._asked)
            most = max(1, _MOST_REPLACED - int(_MOST_REPLACED * done))
            most = min(most + (population.idle >= _IDLE), _MOST_REPLACED, n)
            share = max(1 - done, 1 / 16)
        rows = population.slots.prompts[parents]
        shape = (len(rows), most)
        places = random.random((len(rows), n)).argsort(axis=1)[:, :most]
        if ranked is None:
            tokens = self._drawn(random, shape)
        else:
            top = max(1, int(share * ranked.shape[-1]))
            tokens = ranked[parents[:, None], places, random.integers(top, size=shape)]
        # of the places of a child the first always counts
        counts = random.integers(1, most + 1, size=(len(rows), 1))
        used = np.arange(most) < counts
        old = np.take_along_axis(rows, places, axis=1)
        np.put_along_axis(rows, places, np.where(used, tokens, old), axis=1)
        return rows

    def _run_all(
        self, places: Sequence[int], prompts: Sequence[Int64[np.ndarray, "rows n"]]
    ) -> list[Pool]:
        """Run the prompts of several targets side by side, of equal ones of a target one."""
        own = [np.unique(rows, axis=0) for rows in prompts]
        of = torch.tensor(places).repeat_interleave(torch.tensor([len(rows) for rows in own]))
        return _pools(own, self._scorer.score(torch.from_numpy(np.concatenate(own)), of))

    def _run_children(
        self,
        places: Sequence[int],
        populations: Sequence[Population],
        children: Sequence[tuple[Int64[np.ndarray, "rows n"], Int64[np.ndarray, " rows"]]],
    ) -> list[Pool]:
        """Run the children of several populations side by side, each from where it parts from its
        parent."""
        slots = self._asked.population
        family = Family(
            torch.from_numpy(np.concatenate([each.slots.prompts for each in populations])),
            torch.tensor(places).repeat_interleave(slots),
            torch.from_numpy(np.concatenate([rows for rows, _ in children])),
            torch.from_numpy(
                np.concatenate([slots * i + parent for i, (_, parent) in enumerate(children)])
            ),
        )
        return _pools([rows for rows, _ in children], self._scorer.score_children(family))

    def _take(self, population: Population, pool: Pool) -> None:
        """Take prompts that were run into the front, and the best under each penalty into its
        slot, where no prompt stands in two."""
        population.spent += FORWARD * len(pool.prompts)
        population.front = merged(population.front, *pool)
        both = Pool(*(np.concatenate(pair) for pair in zip(population.slots, pool, strict=True)))
        _, first = np.unique(both.prompts, axis=0, return_index=True)
        population.slots = Pool(*(each[np.sort(first)] for each in both))

    def _note(self, place: int, population: Population, number: int) -> None:
        """Leave in each slot the best under its penalty, and note the best of all that was seen."""
        worth = self._worth(place, population.slots, self._penalties)
        chosen = []
        for slot in range(len(self._penalties)):
            best = int(worth[:, slot].argmax())
            chosen.append(best)
            if len(worth) >= len(self._penalties):
                worth[best] = -np.inf
        population.slots = Pool(*(each[chosen] for each in population.slots))
        best = self._worth(place, Pool(*population.front), self._penalties).max(axis=0).tolist()
        before = population.progress[-1].best if population.progress else None
        population.idle = population.idle + 1 if best == before else 0
        population.progress.append(Progress(number + 1, population.spent, best))

    def _worth(
        self, place: int, pool: Pool, weights: Float64[np.ndarray, " weights"]
    ) -> Float64[np.ndarray, "rows weights"]:
        scale = self._targets[place].scale
        return pool.values[:, None] / scale - weights * pool.losses[:, None]

    def _joined(self, rows: Int64[np.ndarray, "rows k"]) -> Int64[np.ndarray, "kept k"]:
        """Of prompts that are not as long as wanted, those that are read as they are but for their
        first token, which depends on what will stand before it; all if there are none. Of whole
        ones those that are read back."""
        assert self._reader is not None
        prompts = rows.tolist()
        if rows.shape[1] == self._asked.length:
            return rows[self._reader.reads_back(prompts)]
        read = self._reader.read(prompts)
        fits = [
            len(prompt) == 1 or own[1 - len(prompt) :] == prompt[1:]
            for own, prompt in zip(read, prompts, strict=True)
        ]
        return rows[np.array(fits)] if any(fits) else rows

    def _written(self, random: np.random.Generator, count: int) -> Int64[np.ndarray, "rows n"]:
        """So many drawn prompts. Of one that is not read back, what the tokenizer makes of its text
        is taken, and drawn tokens behind it where that is too short, until it is; what never is
        is left out."""
        n = self._asked.length
        rows = self._drawn(random, (count, n))
        if not self._reader:
            return rows
        pending = np.arange(count)
        for _ in range(_REWRITTEN):
            pending = pending[~self._reader.reads_back(rows[pending].tolist())]
            if not len(pending):
                break
            behind = self._drawn(random, (len(pending), n))
            read = self._reader.read(rows[pending].tolist())
            for place, own, others in zip(pending, read, behind, strict=True):
                allowed = np.array(own, np.int64)
                allowed = allowed[np.isin(allowed, self._alphabet)]
                rows[place] = np.concatenate([allowed, others])[:n]
        else:
            pending = pending[~self._reader.reads_back(rows[pending].tolist())]
        return np.delete(rows, pending, axis=0)

    def _drawn(self, random: np.random.Generator, shape: tuple[int, int]) -> Int64[np.ndarray, ...]:
        return self._alphabet[random.integers(len(self._alphabet), size=shape)]

    def _generator(self, place: int, step: str | int) -> np.random.Generator:
        name = self._targets[place].name
        return numpy_generator(self._seed, "dreaming", name, self._method, step)


def _pools(prompts: Sequence[Int64[np.ndarray, "rows n"]], scores: Scores) -> list[Pool]:
    """Prompts of several targets with the scores of all of them, one after another."""
    ends = np.cumsum([len(rows) for rows in prompts])[:-1]
    values, losses = (np.split(each.double().numpy(), ends) for each in scores)
    return [Pool(*each) for each in zip(prompts, values, losses, strict=True)]


def _state(population: Population) -> dict[str, Any]:
    """What a search goes on from, as tensors and numbers."""
    return {
        "slots": [torch.from_numpy(each) for each in population.slots],
        "front": [torch.from_numpy(each) for each in population.front],
        "spent": population.spent,
        "idle": population.idle,
        "progress": [tuple(each) for each in population.progress],
    }


def _restored(state: dict[str, Any]) -> Population:
    return Population(
        Pool(*(each.numpy() for each in state["slots"])),
        Front(*(each.numpy() for each in state["front"])),
        state["spent"],
        state["idle"],
        [Progress(*each) for each in state["progress"]],
    )
