"""The tables of dreamed prompts: searches, their fronts, and the data's own contexts beside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, Int64

from saeflow.analyses.dreaming.contexts import ContextWindows
from saeflow.analyses.dreaming.frame import Frame, Reader, alphabet, frame_of
from saeflow.analyses.dreaming.fronts import Front
from saeflow.analyses.dreaming.objectives import Objective, Target
from saeflow.analyses.dreaming.scoring import Position, Scorer
from saeflow.analyses.dreaming.search import Beat, Population, Search, penalties
from saeflow.checkpoints import load_checkpoint, save_checkpoint
from saeflow.models.vocabulary import vocabulary
from saeflow.parts import Parts, digest
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

if TYPE_CHECKING:
    from saeflow.analyses.dreaming.settings import Dreaming, Method
    from saeflow.models.language_model import LanguageModel

FRONTS: Schema = {
    "target": pl.String,
    "method": pl.String,
    "place": pl.Int32,
    "value": pl.Float64,
    "cross_entropy": pl.Float64,
    "text_value": pl.Float64,
    "text_cross_entropy": pl.Float64,
    "reads_back": pl.Boolean,
    "text": pl.String,
    "token_ids": pl.List(pl.Int32),
    "tokens": pl.List(pl.String),
    "lent": pl.List(pl.Float32),
    "along": pl.List(pl.Float32),
}
"""Prompts of a front by rising cross-entropy. ``text_value`` and ``text_cross_entropy`` are of what
the tokenizer makes of the text, null where that is longer than the model's context; ``lent`` is
what each token lends to the value, ``along`` the target at every token."""
PROGRESS: Schema = {
    "target": pl.String,
    "method": pl.String,
    "round": pl.Int32,
    "spent": pl.Int64,
    "penalty": pl.Float64,
    "best": pl.Float64,
}
CONTEXTS: Schema = {
    "target": pl.String,
    "rank": pl.Int32,
    "activation": pl.Float64,
    "value": pl.Float64,
    "cross_entropy": pl.Float64,
    "text": pl.String,
    "token_ids": pl.List(pl.Int32),
    "tokens": pl.List(pl.String),
    "along": pl.List(pl.Float32),
}
"""Contexts of the data: their activation where they stand, and what their last tokens are worth as
a prompt."""
TARGETS: Schema = {
    "target": pl.String,
    "kind": pl.String,
    "latents": pl.List(pl.Int32),
    "combine": pl.String,
    "method": pl.String,
    "spent": pl.Int64,
    "scale": pl.Float64,
    "best": pl.Float64,
    "best_cross_entropy": pl.Float64,
    "context_activation": pl.Float64,
    "context_value": pl.Float64,
    "context_cross_entropy": pl.Float64,
    "matched": pl.Float64,
    "beats_activation": pl.Boolean,
    "beats_matched": pl.Boolean,
    "distinct": pl.Float64,
}
"""``matched``: the largest value of a dreamed prompt whose cross-entropy is no larger than that of
the data's best prompt. A prompt of the data, with which a search may begin, does not beat itself
and is not ``matched``."""
FOUND: Schema = {
    "what": pl.String,
    "round": pl.Int32,
    "spent": pl.Int64,
    "value": pl.Float64,
    "cross_entropy": pl.Float64,
    "token_ids": pl.List(pl.Int32),
    "best": pl.List(pl.Float64),
}
"""What is kept of one search: its front, and how far it had come after each round."""
CODE = ("analyses/dreaming",)
AT_ONCE = 16
"""Targets that are sought side by side."""
KEPT_EVERY = 60.0
"""Seconds after which the state of a search is kept."""


@dataclass(frozen=True)
class Group:
    """Targets that are read in one way."""

    objective: Objective
    targets: Sequence[Target]
    position: Position


class Workshop(NamedTuple):
    """What dreaming is done with."""

    lm: LanguageModel
    asked: Dreaming
    seed: int
    windows: ContextWindows
    parts: Parts
    checkpoint: Path | None
    """Where the state of an unfinished search is kept."""
    identity: str = ""
    """A digest of all that a search is determined by beside its method and targets."""


def dream(work: Workshop, groups: Sequence[Group], beat: Beat | None = None) -> dict[str, Any]:
    """Dream of all targets by all methods.

    Returns:
        The tables ``fronts``, ``progress``, ``contexts``, ``targets``.
    """
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for group in groups:
        studio = _Studio(work, group)
        contexts = {target.name: studio.contexts(i) for i, target in enumerate(group.targets)}
        for rows in contexts.values():
            tables["contexts"] += rows
        for method in work.asked.search.methods:
            searched = studio.search(method, beat)
            for place, (target, table) in enumerate(zip(group.targets, searched, strict=True)):
                of = {"target": target.name, "method": method}
                front, listed = studio.listed(place, table)
                tables["fronts"] += [of | row for row in listed]
                tables["progress"] += [of | row for row in _progress(table, work.asked)]
                spent = int(table["spent"].max() or 0)  # type: ignore[arg-type]
                beside = contexts[target.name]
                row = of | {"spent": spent} | studio.summary(target, front, beside)
                tables["targets"].append(row)
    return {name: pl.DataFrame(rows, schema=SCHEMAS[name]) for name, rows in tables.items()}


SCHEMAS: Mapping[str, Schema] = {
    "fronts": FRONTS,
    "progress": PROGRESS,
    "contexts": CONTEXTS,
    "targets": TARGETS,
}


class _Studio:
    """The searches of one group."""

    def __init__(self, work: Workshop, group: Group) -> None:
        lm, asked = work.lm, work.asked
        self._work, self._group = work, group
        frame: Frame = frame_of(lm, asked.frame)
        self._around = len(frame.before), len(frame.after)
        self._reader = Reader(lm, frame)
        self._alphabet = alphabet(lm, asked.frame)
        self._scorer = Scorer(lm, frame, group.objective, group.position)
        held = vocabulary(lm.tokenizer, lm.d_vocab)
        self._texts = dict(zip(held.ids.tolist(), held.texts, strict=True))

    def search(self, method: Method, beat: Beat | None) -> list[pl.DataFrame]:
        """What each target's search by a method found, from where it is kept if it is."""
        targets = self._group.targets
        made_from = {f"{each.kind}-{each.name}-{method}": [repr(each)] for each in targets}

        def make(missing: list[int]) -> Iterator[pl.DataFrame]:
            for first in range(0, len(missing), AT_ONCE):
                places = missing[first : first + AT_ONCE]
                yield from map(_table_of, self._searched(method, places, beat))

        return self._work.parts.tables(made_from, FOUND, make)

    def _searched(self, method: Method, places: list[int], beat: Beat | None) -> list[Population]:
        """Search for some targets, from where an interrupted search stopped."""
        work, targets = self._work, self._group.targets
        asked = work.asked.search
        own = [targets[place] for place in places]
        identity = digest(method, work.identity)
        reader = self._reader if work.asked.frame.round_trip else None
        search = Search(self._scorer, targets, asked, method, self._alphabet, reader, work.seed)
        kept, last = time.monotonic(), None

        def keep(state: dict[str, Any]) -> None:
            nonlocal kept, last
            last = state
            if work.checkpoint and time.monotonic() - kept > KEPT_EVERY:
                kept = time.monotonic()
                save_checkpoint(work.checkpoint, identity, state)

        state = load_checkpoint(work.checkpoint, identity) if work.checkpoint else None
        starts = [self._starts(target) for target in own]
        searched = search.run(places, starts, state, keep, beat)
        if work.checkpoint and last:
            # a job that is killed while their tables are kept one by one loses none
            save_checkpoint(work.checkpoint, identity, last)
        return searched

    def _starts(self, target: Target) -> Int64[np.ndarray, "starts n"]:
        """The target's contexts as prompts; drawn tokens stand where they are too short."""
        asked, n = self._work.asked, self._work.asked.search.length
        if not asked.search.contexts:
            return np.empty((0, n), np.int64)
        random = numpy_generator(self._work.seed, "dreaming", target.name, "contexts")
        rows = [window.tokens[-n:] for window in self._work.windows.of(target.latents)]
        full = self._alphabet[random.integers(len(self._alphabet), size=(len(rows), n))]
        for place, row in enumerate(rows):
            full[place, n - len(row) :] = np.where(
                np.isin(row, self._alphabet), row, full[place, n - len(row) :]
            )
        if asked.frame.round_trip and len(full):
            full = full[self._reader.reads_back(full.tolist())]
        return full

    def contexts(self, place: int) -> list[dict[str, Any]]:
        """The data's contexts of a target: what they are worth as prompts."""
        target, n = self._group.targets[place], self._work.asked.search.length
        rows = []
        for rank, window in enumerate(self._work.windows.of(target.latents)):
            if not self._around[0] and len(window.tokens) < 2:
                continue  # has no cross-entropy
            prompt = torch.tensor([window.tokens[-n:]])
            of = torch.tensor([place])
            score = self._scorer.score(prompt, of)
            rows.append(
                {
                    "target": target.name,
                    "rank": rank,
                    "activation": window.activation,
                    "value": float(score.values[0]),
                    "cross_entropy": float(score.losses[0]),
                    **self._shown(prompt.numpy()),
                    "along": self._scorer.along(prompt, of)[0].tolist(),
                }
            )
        return rows

    def _shown(self, prompt: Int64[np.ndarray, "1 n"]) -> dict[str, Any]:
        ids = prompt[0].tolist()
        return {
            "text": self._reader.texts([ids])[0],
            "token_ids": ids,
            "tokens": [self._texts.get(token, f"[{token}]") for token in ids],
        }

    def listed(self, place: int, table: pl.DataFrame) -> tuple[Front, list[dict[str, Any]]]:
        """The front of a search, and what is told of some of its prompts."""
        rows = table.filter(what="front")
        n = self._work.asked.search.length
        front = Front(
            np.array(rows["token_ids"].to_list(), np.int64).reshape(-1, n),
            rows["value"].to_numpy(),
            rows["cross_entropy"].to_numpy(),
        )
        own, shown = front.spread(self._work.asked.report.prompts), []
        ids = own.prompts.tolist()
        read = self._reader.read(ids)
        of = torch.full((len(ids),), place)
        along = self._scorer.along(torch.from_numpy(own.prompts), of)
        for number, prompt in enumerate(ids):
            again = read[number] or prompt
            text_value = text_loss = None
            if sum(self._around) + len(again) <= self._work.lm.context:
                score = self._scorer.score(torch.tensor([again]), of[:1])
                text_value, text_loss = float(score.values[0]), float(score.losses[0])
            shown.append(
                {
                    "place": number,
                    "value": own.values[number],
                    "cross_entropy": own.losses[number],
                    "text_value": text_value,
                    "text_cross_entropy": text_loss,
                    "reads_back": read[number] == prompt,
                    **self._shown(own.prompts[number : number + 1]),
                    "lent": self._lent(place, own.prompts[number], own.values[number]),
                    "along": along[number].tolist(),
                }
            )
        return front, shown

    def _lent(self, place: int, prompt: Int64[np.ndarray, " n"], value: float) -> list[float]:
        """What each token lends to the value: the value less the mean of that with other tokens in
        its place."""
        name, swaps = self._group.targets[place].name, self._work.asked.report.swaps
        random = numpy_generator(self._work.seed, "dreaming", name, "swaps")
        others = self._alphabet[random.integers(len(self._alphabet), size=swaps)]
        rows = np.repeat(prompt[None], len(prompt) * swaps, axis=0)
        rows[np.arange(len(rows)), np.repeat(np.arange(len(prompt)), swaps)] = np.tile(
            others, len(prompt)
        )
        of = torch.full((len(rows),), place)
        values = self._scorer.score(torch.from_numpy(rows), of, losses=False).values
        means = values.double().numpy().reshape(len(prompt), swaps).mean(axis=1)
        lent: Float64[np.ndarray, " n"] = value - means
        return [float(each) for each in lent]

    def summary(
        self, target: Target, front: Front, contexts: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """What was dreamed of a target beside its contexts."""
        best = {"best": front.values[-1], "best_cross_entropy": front.losses[-1]}
        row = {
            "kind": target.kind,
            "latents": list(target.latents),
            "combine": target.combine if len(target.latents) > 1 else None,
            "scale": target.scale,
            **best,
            "distinct": distinctness(front.spread(self._work.asked.report.prompts).prompts),
        }
        if not contexts:
            return row
        top = max(contexts, key=lambda each: float(each["value"]))
        own = {tuple(each["token_ids"]) for each in contexts}
        dreamed = front.without(own)
        most = float(dreamed.values.max(initial=-np.inf))
        matched = dreamed.best_within(top["cross_entropy"])
        single = target.kind == "latent" and self._work.asked.objective.read == "activation"
        largest = max(float(each["activation"]) for each in contexts)
        return row | {
            "context_activation": largest if single else None,
            "context_value": top["value"],
            "context_cross_entropy": top["cross_entropy"],
            "matched": None if np.isnan(matched) else matched,
            "beats_activation": most > largest if single else None,
            "beats_matched": bool(matched > top["value"]),
        }


def distinctness(prompts: Int64[np.ndarray, "rows n"]) -> float | None:
    """One less the mean overlap (Jaccard) of the tokens of two prompts; None of fewer than two."""
    sets = [set(row) for row in prompts.tolist()]
    overlaps = [
        len(tokens & other) / len(tokens | other)
        for place, tokens in enumerate(sets)
        for other in sets[:place]
    ]
    return 1 - float(np.mean(overlaps)) if overlaps else None


def _table_of(population: Population) -> pl.DataFrame:
    front = population.front
    rows: list[dict[str, Any]] = [
        {"what": "front", "value": value, "cross_entropy": loss, "token_ids": prompt}
        for prompt, value, loss in zip(
            front.prompts.tolist(), front.values.tolist(), front.losses.tolist(), strict=True
        )
    ]
    rows += [{"what": "progress", **each._asdict()} for each in population.progress]
    return pl.DataFrame(rows, schema=FOUND)


def _progress(table: pl.DataFrame, asked: Dreaming) -> list[dict[str, Any]]:
    return [
        {"round": row["round"], "spent": row["spent"], "penalty": penalty, "best": best}
        for row in table.filter(what="progress").to_dicts()
        for penalty, best in zip(penalties(asked.search).tolist(), row["best"], strict=True)
    ]
