"""Questions about labels: each label, and that of a random latent, on the same passages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from saeflow.analyses.labels.asking import Question
from saeflow.seeds import numpy_generator

OWN, RANDOM = "own", "random"
AMONG = 5
"""Passages of a question about intruders, one of which is one."""


class Words(NamedTuple):
    """How tokens are written: by id, and what stands between two."""

    texts: Mapping[int, str]
    gap: str

    def passage(self, tokens: Sequence[int], marked: Sequence[bool] | None = None) -> str:
        """A passage as text; runs of marked tokens stand between << and >>."""
        marks = list(marked) if marked is not None else [False] * len(tokens)
        pieces: list[str] = []
        for number, token in enumerate(tokens):
            text = self.texts.get(token, "")
            if marks[number] and (number == 0 or not marks[number - 1]):
                bare = text.lstrip(" ")
                text = f"{text[: len(text) - len(bare)]}<<{bare}"
            if marks[number] and (number + 1 == len(tokens) or not marks[number + 1]):
                text += ">>"
            pieces.append(text)
        return self.gap.join(pieces).strip()

    def each(self, tokens: Sequence[int]) -> list[str]:
        """The texts of tokens; special ones have none."""
        return [self.texts.get(token, "") for token in tokens]


def random_partners(latents: Sequence[int], seed: int, source: str) -> dict[int, int]:
    """Another latent for each, whose label stands for that of a random latent: the next one in a
    random order."""
    order = numpy_generator(seed, "labels", "partners", source).permutation(len(latents))
    shuffled = [latents[place] for place in order]
    return dict(zip(shuffled, [*shuffled[1:], shuffled[0]], strict=True)) if len(order) > 1 else {}


class Asked(NamedTuple):
    """A question, and where its answer belongs."""

    question: Question
    latent: int
    source: str
    label: str
    score: str
    items: list[int]
    blocks: list[int]
    fires: list[bool]
    intruder: int = 0
    """The number of the passage that does not belong."""
    tokens: Sequence[int | None] = ()
    activations: Sequence[float | None] = ()
    """Of simulations: of each token."""


def _judged(
    labels: pl.DataFrame, passages: pl.DataFrame, seed: int
) -> Iterator[tuple[str, int, pl.DataFrame, dict[str, str]]]:
    """Source and latent of every label, the latent's tested passages with their number in `item`,
    and what they are held against: its own label and, where there is one, a random latent's.

    Latents whose passages all fire, or all do not, are left out.
    """
    tested = passages.filter(pl.col("use") != "shown").with_row_index("item")
    by_latent = tested.partition_by("latent", as_dict=True)
    for (source,), own in labels.partition_by("source", as_dict=True, maintain_order=True).items():
        texts = dict(own.select("latent", "text").iter_rows())
        partners = random_partners(sorted(texts), seed, str(source))
        for latent in sorted(texts):
            table = by_latent.get((latent,))
            if table is None or table["use"].n_unique() < 2:
                continue
            both = {OWN: texts[latent]}
            if latent in partners:
                both[RANDOM] = texts[partners[latent]]
            yield str(source), latent, table, both


def passage_questions(
    labels: pl.DataFrame, passages: pl.DataFrame, kind: str, words: Words, seed: int
) -> list[Asked]:
    """Detection or fuzzing: every label, and a random latent's, on the tested passages.

    Args:
        labels: latent, source, text.
        passages: of all latents, with the columns of `PASSAGES`.
        kind: ``detection`` or ``fuzzing``.
        words: how tokens are written.
        seed: of the study.
    """
    asked = []
    for source, latent, table, both in _judged(labels, passages, seed):
        generator = numpy_generator(seed, "labels", kind, latent)
        shown = _shown(table, kind, words, generator)
        order = generator.permutation(len(shown))
        rows = [table.row(int(place), named=True) for place in order]
        for label, text in both.items():
            asked.append(
                Asked(
                    Question(kind, text, tuple(shown[place] for place in order)),
                    latent,
                    source,
                    label,
                    kind,
                    [row["item"] for row in rows],
                    [row["block"] for row in rows],
                    [row["use"] == "tested" for row in rows],
                )
            )
    return asked


def dream_questions(labels: pl.DataFrame, dreams: pl.DataFrame, seed: int) -> list[Asked]:
    """Whether a label tells prompts that were dreamed of its latent from as many that were dreamed
    of others.

    Args:
        labels: latent, source, text.
        dreams: latent, text: of all latents that were dreamed of; the latent of a random label is
            none of the others.
        seed: of the study.
    """
    numbered = dreams.with_row_index("item")
    asked = []
    for (source,), own in labels.partition_by("source", as_dict=True, maintain_order=True).items():
        texts = dict(own.select("latent", "text").iter_rows())
        both = sorted(set(texts) & set(dreams["latent"]))
        partners = random_partners(both, seed, str(source))
        for latent in both:
            partner = partners.get(latent)
            mine = numbered.filter(latent=latent)
            others = numbered.filter(~pl.col("latent").is_in([latent, partner]))
            if partner is None or others.is_empty():
                continue
            generator = numpy_generator(seed, "labels", "dreams", str(source), latent)
            count = min(len(mine), len(others))
            drawn = others[generator.choice(len(others), count, replace=False).tolist()]
            table = pl.concat([mine, drawn])
            table = table[generator.permutation(len(table)).tolist()]
            items = table["item"].to_list()
            fires = (table["latent"] == latent).to_list()
            for label, of in ((OWN, latent), (RANDOM, partner)):
                question = Question("detection", texts[of], tuple(table["text"]))
                asked.append(
                    Asked(question, latent, str(source), label, "dreams", items, items, fires)
                )
    return asked


def simulation_questions(
    labels: pl.DataFrame, passages: pl.DataFrame, count: int, words: Words, seed: int
) -> list[Asked]:
    """Every label, and a random latent's, on single passages, token by token.

    Args:
        labels: latent, source, text.
        passages: of all latents, with the columns of `PASSAGES`.
        count: passages of a latent, half of them such in which it fires, from the strongest to the
            weakest.
        words: how tokens are written; those without a text are left out.
        seed: of the study.
    """
    asked = []
    for source, latent, table, both in _judged(labels, passages, seed):
        firing, silent = table.filter(use="tested"), table.filter(use="silent")
        drawn = pl.concat([_evenly(firing, count - count // 2), _evenly(silent, count // 2)])
        for row in drawn.iter_rows(named=True):
            written = words.each(row["token_ids"])
            places = [place for place, token in enumerate(written) if token]
            if not places:  # special tokens alone: nothing that could be shown
                continue
            shown = tuple(written[place] for place in places)
            activations = [row["activations"][place] for place in places]
            for label, text in both.items():
                asked.append(
                    Asked(
                        Question("simulation", text, shown),
                        latent,
                        source,
                        label,
                        "simulation",
                        [row["item"]] * len(places),
                        [row["block"]] * len(places),
                        [activation > 0 for activation in activations],
                        tokens=places,
                        activations=activations,
                    )
                )
    return asked


def _evenly(table: pl.DataFrame, count: int) -> pl.DataFrame:
    """So many rows, as far from each other as can be."""
    rows = np.linspace(0, len(table) - 1, min(count, len(table))).round().astype(int)
    return table[rows.tolist()]


def _shown(
    table: pl.DataFrame, kind: str, words: Words, generator: np.random.Generator
) -> list[str]:
    """The passages as they are shown: for fuzzing with marks, on the tokens that fire or, where
    none does, on as many random ones as fire on average."""
    tokens = table["token_ids"].to_list()
    if kind == "detection":
        return [words.passage(row) for row in tokens]
    firing = [np.array(row) > 0 for row in table["activations"].to_list()]
    counts = [marks.sum() for marks in firing if marks.any()]
    usual = int(np.ceil(np.mean(counts))) if counts else 1
    shown = []
    for row, marks in zip(tokens, firing, strict=True):
        if not marks.any():
            places = generator.choice(len(row), min(usual, len(row)), replace=False)
            marks = np.isin(np.arange(len(row)), places)
        shown.append(words.passage(row, marks.tolist()))
    return shown


def intruder_questions(passages: pl.DataFrame, count: int, words: Words, seed: int) -> list[Asked]:
    """Of every latent some questions: four passages in which it fires and one in which it does
    not; no label is told."""
    asked = []
    tested = passages.filter(pl.col("use") != "shown")
    for (latent,), table in tested.partition_by("latent", as_dict=True).items():
        sides = {
            use: [words.passage(row) for row in table.filter(use=use)["token_ids"].to_list()]
            for use in ("tested", "silent")
        }
        if len(sides["tested"]) < AMONG - 1 or not sides["silent"]:
            continue
        generator = numpy_generator(seed, "labels", "intruder", int(str(latent)))
        for number in range(count):
            firing = generator.choice(len(sides["tested"]), AMONG - 1, replace=False)
            texts = [sides["tested"][place] for place in firing]
            place = int(generator.integers(AMONG))
            texts.insert(place, sides["silent"][int(generator.integers(len(sides["silent"])))])
            question = Question("intruder", "", tuple(texts), number)
            asked.append(
                Asked(question, int(str(latent)), "", OWN, "intruder", [number], [], [], place + 1)
            )
    return asked
