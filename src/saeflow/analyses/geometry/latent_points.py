"""Circles of words in an SAE: decoder rows of specific latents, and what the latents of a group
alone rebuild of words, beside the activations themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float64, Int64

from saeflow.analyses.geometry.circle import (
    best_plane,
    circle_interval,
    circle_null,
    circle_of,
    flat,
    neighbours_kept,
)
from saeflow.analyses.geometry.settings import LEAST_WORDS
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.analyses.geometry.settings import Nulls

DECODER, ACTIVATIONS, REBUILT = "decoder rows", "mean activations", "rebuilt"
CIRCLES = {
    "group": pl.String,
    "sae": pl.String,
    "hook": pl.String,
    "points": pl.String,
    "words": pl.Int32,
    "latents": pl.Int32,
    "r2": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "null_high": pl.Float64,
    "p": pl.Float64,
    "first": pl.Int32,
    "second": pl.Int32,
    "neighbours": pl.Int32,
    "variance": pl.Float64,
    "left_out": pl.String,
}
"""Intervals are over texts, and decoder rows have none. `variance`: the share of what sets the
words' activations apart that the latents of the group rebuild."""
PLACES = {
    "group": pl.String,
    "sae": pl.String,
    "hook": pl.String,
    "points": pl.String,
    "word": pl.String,
    "number": pl.Int32,
    "x": pl.Float64,
    "y": pl.Float64,
}


class Words(NamedTuple):
    """Words that are read in texts, and what latents of a group rebuild of them.

    Attributes:
        activations: by text and word.
        rebuilt: sums of decoder rows of the group's latents, as active as they are there.
    """

    activations: Float64[np.ndarray, "texts n d"]
    rebuilt: Float64[np.ndarray, "texts n d"]


class Circles(NamedTuple):
    """Rows of `CIRCLES` and of `PLACES`."""

    circles: list[tuple[object, ...]]
    places: list[tuple[object, ...]]


def decoder_points(
    rows: Float64[np.ndarray, "m d"], words: Sequence[str | None], order: Sequence[str]
) -> tuple[Float64[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    """For every word that some latents stand for, the mean of their decoder rows, each of unit
    length.

    Args:
        rows: of specific latents.
        words: that they stand for.
        order: of all words.

    Returns:
        The means, and the places of their words in the order.
    """
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    of_word = [np.array([each == word for each in words], bool) for word in order]
    present = [place for place, own in enumerate(of_word) if own.any()]
    means = [unit[of_word[place]].mean(axis=0) for place in present]
    return np.array(means).reshape(-1, rows.shape[1]), np.array(present, np.int64)


def circles(
    key: tuple[str, str, str],
    order: Sequence[str],
    members: pl.DataFrame,
    decoder: Float64[np.ndarray, "m d"],
    words: Words | None,
    nulls: Nulls,
    seed: int,
) -> Circles:
    """The circle of a group's words in one SAE, by all points that there are.

    Args:
        key: group, SAE and hook.
        order: of the words.
        members: of the group in the SAE, as `saeflow.analyses.geometry.latent_groups.MEMBERS`.
        decoder: their rows.
        words: as they are read and rebuilt; None where they were not read.
        nulls: what circles are held against.
        seed: of the study.
    """
    result = Circles([], [])
    specific = (members["kind"] == "specific").to_numpy()
    held = members.filter(kind="specific")["word"].to_list()
    points, present = decoder_points(decoder[specific], held, order)
    _add(result, key, DECODER, points, None, present, order, int(specific.sum()), None, nulls, seed)
    if words is None:
        return result
    everyone = np.arange(len(order))
    for name, of_texts, latents, variance in (
        (ACTIVATIONS, words.activations, None, None),
        (REBUILT, words.rebuilt, len(members), _rebuilt_share(words)),
    ):
        mean = of_texts.mean(axis=0)
        _add(result, key, name, mean, of_texts, everyone, order, latents, variance, nulls, seed)
    return result


def _add(
    result: Circles,
    key: tuple[str, str, str],
    name: str,
    points: Float64[np.ndarray, "n d"],
    of_texts: Float64[np.ndarray, "texts n d"] | None,
    present: Int64[np.ndarray, " n"],
    order: Sequence[str],
    latents: int | None,
    variance: float | None,
    nulls: Nulls,
    seed: int,
) -> None:
    """A circle with its places, or why there is none."""
    left_out = None
    if len(points) < LEAST_WORDS:
        left_out = (
            f"{key[0]}: {len(points)} words have latents of their own in {key[1]}, and a circle "
            f"needs {LEAST_WORDS}"
        )
    elif flat(points):
        left_out = f"{key[0]}: the points of {key[1]} lie in no plane"
    if left_out:
        nothing = [None] * 8
        result.circles.append((*key, name, len(points), latents, *nothing, variance, left_out))
        return
    generator = numpy_generator(seed, "geometry", "latents", *key, name)
    circle = circle_of(len(order), present)
    plane = best_plane(points, nulls.pairs_of, circle)
    null = circle_null(points, nulls.pairs_of, nulls.word_orders, nulls.level, generator, circle)
    interval: tuple[float | None, float | None] = (None, None)
    if of_texts is not None and len(of_texts) > 1:
        interval = circle_interval(of_texts, nulls.pairs_of, nulls.draws, nulls.level, generator)
    own = plane.places(points) * np.array([1, plane.turn])
    measured = (plane.r2, *interval, null.high, null.p, *plane.pair, neighbours_kept(own))
    result.circles.append((*key, name, len(points), latents, *measured, variance, None))
    result.places.extend(
        (*key, name, order[place], int(place), *own[i]) for i, place in enumerate(present)
    )


def _rebuilt_share(words: Words) -> float:
    """The share of what sets the words' mean activations apart that is rebuilt."""
    own, rebuilt = (
        each.mean(axis=0) - each.mean(axis=(0, 1)) for each in (words.activations, words.rebuilt)
    )
    return float(1 - ((own - rebuilt) ** 2).sum() / max((own**2).sum(), 1e-300))
