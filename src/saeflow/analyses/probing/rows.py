"""The rows of a set: which texts of it are read, as tokens, and what a glance at them tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64, Int64

from saeflow.analyses.probing.sparse_columns import Latents
from saeflow.corpora.labelled import LabelledSet, truncated, without_repeats
from saeflow.seeds import numpy_generator
from saeflow.tables import Schema

SURFACE = ("tokens", "characters", "capitals", "digits", "punctuation", "lines", "ends_in_letter")
"""What a glance at a text tells: its length, and the share of its characters of some kinds."""
ROWS: Schema = {
    "row": pl.Int32,
    "test_set": pl.String,
    "label": pl.String,
    "class": pl.Int32,
    "number": pl.Float64,
    "group": pl.Int64,
    "last_token": pl.Int32,
    "last_text": pl.String,
    **dict.fromkeys(SURFACE, pl.Float64),
}
"""`test_set` is empty for rows of the set itself, else the name of a shifted test set. `class` is
null where rows have a `number`, which is null where they have a class."""


class Representations(NamedTuple):
    """What is probed, row by row.

    Attributes:
        activations: by hook.
        latents: by SAE.
    """

    activations: dict[str, Float32[np.ndarray, "n width"]]
    latents: dict[str, Latents]


class Removed(NamedTuple):
    """Rows that were left out, by why.

    Attributes:
        blank: without text or label.
        other: with a label that no class is named for.
        repeated: that say what an earlier one says.
        contradictory: whose text has several labels.
        balanced: for the classes to be of one size, and the set of the size that is asked for.
        truncated: rows that were not left out, but were cut.
    """

    blank: int
    other: int
    repeated: int
    contradictory: int
    balanced: int
    truncated: int


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows of a set and of its shifted test sets, as a model reads them.

    Attributes:
        texts: of the set itself.
        tokens: of all rows, each BOS first; those of the set first.
        table: `ROWS`.
        removed: by the name of the test set; "" is the set itself.
    """

    texts: LabelledSet
    tokens: list[list[int]]
    table: pl.DataFrame
    removed: Mapping[str, Removed]


def token_rows(
    texts: LabelledSet,
    shifted: Mapping[str, LabelledSet],
    tokenise: Callable[[Sequence[object]], list[tuple[str, list[int]]]],
    context: int,
    bos_id: int,
    most: int,
    seed: int,
    text_of: Callable[[list[int]], str] = str,
    keep: Literal["end", "beginning"] = "end",
) -> TokenRows:
    """Cut texts, clear them of repeats, and make classes of one size.

    What makes two texts one is what is left of them after the cut; a text of a shifted test set
    that stands in the set itself is left out of the test set.

    Args:
        texts: the set.
        shifted: its other test sets, by name.
        tokenise: gives text and token ids of prompts.
        context: tokens of a text at most.
        bos_id: opens every text.
        most: rows of a set at most.
        seed: of the study.
        text_of: gives the text of tokens.
        keep: which end of longer texts.
    """
    seen: set[tuple[int, ...]] = set()
    tokens: list[list[int]] = []
    tables: list[pl.DataFrame] = []
    removed: dict[str, Removed] = {}
    own = texts
    for name, part in {"": texts, **shifted}.items():
        read = tokenise(part.prompts)
        cut = [truncated(ids, context, bos_id, keep) for _, ids in read]
        long = np.array([len(ids) > context - 1 for _, ids in read])
        keys = [tuple(ids) for ids in cut]
        repeats = without_repeats(keys, part.targets)
        kept = np.array([place for place in repeats.kept if keys[place] not in seen], np.int64)
        chosen = _balanced(part, kept, most, seed, name)
        if not name:
            seen, own = {keys[place] for place in chosen}, part.part(chosen)
        removed[name] = Removed(
            part.blank,
            part.other,
            repeats.repeated + len(repeats.kept) - len(kept),
            repeats.contradictory,
            len(kept) - len(chosen),
            int(long[chosen].sum()),
        )
        tables.append(
            _table(part, chosen, [read[place][0] for place in chosen], cut, name, text_of)
        )
        tokens += [cut[place] for place in chosen]
    table = pl.concat(tables).with_columns(row=pl.int_range(pl.len(), dtype=pl.Int32))
    return TokenRows(own, tokens, table.select(list(ROWS)), removed)


def _balanced(
    texts: LabelledSet, kept: Int64[np.ndarray, " m"], most: int, seed: int, name: str
) -> Int64[np.ndarray, " n"]:
    """As many rows of each class as the smallest has, drawn, in rising order; of a shifted test set
    as many as are asked for, whatever their classes."""
    random = numpy_generator(seed, "rows", texts.name, name)
    drawn = random.permutation(kept)
    if name or not texts.classes:
        return np.sort(drawn[:most])
    labels = texts.targets[drawn].astype(int)
    sizes = np.bincount(labels, minlength=len(texts.classes))
    each = min(int(sizes.min()), most // len(texts.classes))
    parts = [drawn[labels == label][:each] for label in range(len(texts.classes))]
    return np.sort(np.concatenate(parts))


def _table(
    texts: LabelledSet,
    chosen: Int64[np.ndarray, " n"],
    said: Sequence[str],
    cut: Sequence[Sequence[int]],
    name: str,
    text_of: Callable[[list[int]], str],
) -> pl.DataFrame:
    targets = texts.targets[chosen]
    labels = targets.astype(int).tolist() if texts.classes else []
    nothing = [None] * len(chosen)
    surface = np.array(
        [[len(cut[place]), *glance(text)] for place, text in zip(chosen, said, strict=True)],
        np.float64,
    ).reshape(len(chosen), len(SURFACE))
    return pl.DataFrame(
        {
            "row": np.zeros(len(chosen), np.int32),
            "test_set": [name] * len(chosen),
            "label": [texts.classes[label] for label in labels]
            or [f"{each:g}" for each in targets],
            "class": labels or nothing,
            "number": nothing if texts.classes else targets,
            "group": texts.groups[chosen],
            "last_token": [cut[place][-1] for place in chosen],
            "last_text": [text_of([cut[place][-1]]) for place in chosen],
            **{key: surface[:, place] for place, key in enumerate(SURFACE)},
        },
        schema=ROWS,
    )


def glance(text: str) -> list[float]:
    """What can be seen of a text without reading it: `SURFACE` but its tokens."""
    n = max(len(text), 1)
    end = text.rstrip()[-1:]
    return [
        float(len(text)),
        sum(map(str.isupper, text)) / n,
        sum(map(str.isdigit, text)) / n,
        sum(not (letter.isalnum() or letter.isspace()) for letter in text) / n,
        float(text.count("\n")),
        float(end.isalpha()),
    ]


def surface_columns(table: pl.DataFrame) -> Float64[np.ndarray, "n features"]:
    """What a glance tells of each row, as columns."""
    return table.select(SURFACE).to_numpy()
