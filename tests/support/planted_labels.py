"""Latents that fire on the words of topics, text that holds these, and labels that say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from saeflow.analyses.examples.entries import Firings, Rows
from saeflow.analyses.labels.questions import Words
from saeflow.analyses.labels.wording import LABELS

TOPICS = (
    ("ship", "harbour", "anchor"),
    ("bread", "butter", "kitchen"),
    ("horse", "saddle", "stable"),
    ("violin", "concert", "melody"),
    ("winter", "snowfall", "glacier"),
    ("doctor", "hospital", "medicine"),
)
FILLER = tuple(f"of{letter}" for letter in "abcdefghijklmnopqrst")  # too short to mean anything
VOCABULARY = [*FILLER, *(word for topic in TOPICS for word in topic)]
WORDS = Words(dict(enumerate(VOCABULARY)), " ")
BLOCKS, LENGTH = 200, 64
LATENTS = list(range(len(TOPICS)))


def tokens() -> np.ndarray:
    """Text ``[blocks, pos]``: every window of 16 holds words of one topic at most."""
    generator = np.random.default_rng(0)
    text = generator.integers(0, len(FILLER), (BLOCKS, LENGTH)).astype(np.int32)
    for block in range(BLOCKS):
        for window in range(LENGTH // 16):
            topic = int(generator.integers(2 * len(TOPICS)))
            if topic < len(TOPICS):
                at = window * 16 + 1 + generator.choice(14, 2, replace=False)
                word = generator.integers(3, size=2)
                text[block, at] = len(FILLER) + 3 * topic + word
    return text


def strength(token: int) -> tuple[int, float] | None:
    """The latent that fires on a token, and how strongly."""
    if token < len(FILLER):
        return None
    topic, word = divmod(token - len(FILLER), 3)
    return topic, 1.0 + word


def entries(text: np.ndarray, shard: int = 70) -> Iterator[Firings]:
    """What fires on the text, in shards of so many blocks; position 0 is in no cache."""
    row = 0
    for first in range(0, len(text), shard):
        part = text[first : first + shard, 1:]
        blocks, positions = np.indices(part.shape)
        fires = [(place, hit) for place, token in enumerate(part.ravel())
                 if (hit := strength(int(token)))]  # fmt: skip
        columns = [(place, *hit) for place, hit in sorted(fires, key=lambda pair: pair[1][0])]
        rows, latents, values = zip(*columns, strict=True)
        places = Rows(
            part.ravel(),
            (blocks + first).ravel().astype(np.int32),
            (positions + 1).ravel().astype(np.int32),
        )
        yield Firings(
            row,
            np.array(rows, np.int64),
            np.array(latents, np.int32),
            np.array(values, np.float32),
            places,
        )
        row += part.size


def activate(texts: Sequence[str], latents: Sequence[int]) -> np.ndarray:
    """The largest activation of latents on texts."""
    peaks = np.zeros((len(texts), len(latents)))
    numbers = {word: number for number, word in enumerate(VOCABULARY)}
    for place, text in enumerate(texts):
        for word in text.split():
            hit = strength(numbers.get(word, 0))
            if hit and hit[0] in latents:
                column = list(latents).index(hit[0])
                peaks[place, column] = max(peaks[place, column], hit[1])
    return peaks


def labels(source: str = "self") -> pl.DataFrame:
    """What the latents are about."""
    rows = [(latent, source, ", ".join(TOPICS[latent]), "planted") for latent in LATENTS]
    return pl.DataFrame(rows, schema=LABELS, orient="row")
