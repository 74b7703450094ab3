"""Tables of circles and lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float64

from saeflow.analyses.geometry.circle import (
    best_plane,
    circle_interval,
    circle_null,
    flat,
    neighbours_kept,
)
from saeflow.analyses.geometry.line import (
    METHODS,
    Fitted,
    HeldOut,
    LineFitting,
    angles,
    beyond,
    block_interval,
    blocks_of,
    exchanged_blocks,
    line_null,
    r_squared,
    random_cosine,
    rank,
)
from saeflow.analyses.geometry.reading import Line, Read
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.analyses.geometry.settings import Nulls, Points

CIRCLES = {
    "group": pl.String,
    "hook": pl.String,
    "words": pl.Int32,
    "r2": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "null_high": pl.Float64,
    "p": pl.Float64,
    "first": pl.Int32,
    "second": pl.Int32,
    "neighbours": pl.Int32,
}
PLACES = {
    "group": pl.String,
    "hook": pl.String,
    "word": pl.String,
    "number": pl.Int32,
    "x": pl.Float64,
    "y": pl.Float64,
}
LINES = {
    "line": pl.String,
    "hook": pl.String,
    "method": pl.String,
    "texts": pl.Int32,
    "blocks": pl.Int32,
    "r2": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "rank": pl.Float64,
    "null_high": pl.Float64,
    "p": pl.Float64,
    "in_sample_r2": pl.Float64,
    "confounds_r2": pl.Float64,
    "beyond_r2": pl.Float64,
}
HELD_OUT = {
    "line": pl.String,
    "hook": pl.String,
    "of": pl.String,
    "value": pl.Float64,
    "predicted": pl.Float64,
}
ANGLES = {
    "line": pl.String,
    "hook": pl.String,
    "component": pl.Int32,
    "variance": pl.Float64,
    "cosine": pl.Float64,
    "random_cosine": pl.Float64,
}
READ_OFF = {
    "line": pl.String,
    "hook": pl.String,
    "of": pl.String,
    "texts": pl.Int32,
    "r2": pl.Float64,
    "rank": pl.Float64,
    "rank_low": pl.Float64,
    "rank_high": pl.Float64,
    "null_low": pl.Float64,
    "null_high": pl.Float64,
    "p": pl.Float64,
}
SCHEMAS = {
    "circles": CIRCLES,
    "places": PLACES,
    "lines": LINES,
    "held_out": HELD_OUT,
    "angles": ANGLES,
    "read_off": READ_OFF,
}
Row = tuple[object, ...]


class _Tables(NamedTuple):
    lines: list[Row]
    held_out: list[Row]
    angles: list[Row]
    read_off: list[Row]


def fit_all(
    read: Read,
    asked: Points,
    nulls: Nulls,
    hooks: Sequence[str],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, pl.DataFrame]:
    """Fit every circle and every line at every hook.

    Args:
        read: what the model holds.
        asked: groups and lines.
        nulls: what they are held against.
        hooks: where it was read.
        seed: of the study.
        progress: called with (circles and lines fitted, all of them).

    Returns:
        The tables of `SCHEMAS`.

    Raises:
        SaeflowError: the numbers of a line lie in too few blocks, or words in no plane.
    """
    circles: list[Row] = []
    places: list[Row] = []
    lines = _Tables([], [], [], [])
    done, total = 0, len(hooks) * (len(asked.groups) + len(asked.lines))
    for hook in hooks:
        for name in asked.groups:
            _circle(read, asked, nulls, name, hook, seed, circles, places)
            done += 1
            if progress:
                progress(done, total)
        for name in asked.lines:
            _line(read, asked, nulls, name, hook, seed, lines)
            done += 1
            if progress:
                progress(done, total)
    rows = {"circles": circles, "places": places, **lines._asdict()}
    return {
        name: pl.DataFrame(rows[name], schema=schema, orient="row")
        for name, schema in SCHEMAS.items()
    }


def _circle(
    read: Read,
    asked: Points,
    nulls: Nulls,
    name: str,
    hook: str,
    seed: int,
    circles: list[Row],
    places: list[Row],
) -> None:
    of_texts = read.words(name, hook)
    generator = numpy_generator(seed, "geometry", "circle", name, hook)
    points = of_texts.mean(axis=0)
    if flat(points):
        raise SaeflowError(
            f"geometry.points.groups.{name}: at {hook} its words lie on one line, in no plane; "
            "their last tokens may be the same, which a later hook tells apart: set "
            "geometry.points.hooks"
        )
    plane = best_plane(points, nulls.pairs_of)
    null = circle_null(points, nulls.pairs_of, nulls.word_orders, nulls.level, generator)
    interval = circle_interval(of_texts, nulls.pairs_of, nulls.draws, nulls.level, generator)
    own = plane.places(points) * np.array([1, plane.turn])
    kept = neighbours_kept(own)
    circles.append(
        (name, hook, len(points), plane.r2, *interval, null.high, null.p, *plane.pair, kept)
    )
    words = asked.groups[name].members
    places += [(name, hook, word, i, *own[i]) for i, word in enumerate(words)]


def _line(
    read: Read, asked: Points, nulls: Nulls, name: str, hook: str, seed: int, tables: _Tables
) -> None:
    line = read.line(name, [hook])
    points, values = line.points[hook], line.values
    fitting = LineFitting(points)
    blocks = blocks_of(values, asked.lines[name].block, name)
    generator = numpy_generator(seed, "geometry", "line", name, hook)
    held = HeldOut(points, blocks, line.groups)
    null = line_null(held, values, blocks, nulls.block_orders, generator)
    confounds = beyond(points, values, line.confounds, blocks, line.groups)
    for method, own in held.numbers(values).items():
        interval = block_interval(
            values, own.predicted, blocks, nulls.draws, nulls.level, generator
        )
        p = (1 + int((null[method] >= own.r2).sum())) / (nulls.block_orders + 1)
        fitted = r_squared(values, fitting.fit(values, method).numbers(points))
        tables.lines.append(
            (
                name,
                hook,
                method,
                len(values),
                int(blocks.max()) + 1,
                own.r2,
                *interval,
                own.rank,
                float(np.quantile(null[method], nulls.level)),
                p,
                fitted,
                *(confounds if method == "ridge" else (None, None)),
            )
        )
        if method == METHODS[0]:
            pairs = zip(values, own.predicted, strict=True)
            tables.held_out.extend((name, hook, "held out", *pair) for pair in pairs)
    along = fitting.fit(values, "ridge")
    variance = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    cosines = angles(along.direction, points, nulls.components)
    random = random_cosine(points.shape[1], nulls.level, len(cosines))
    for i, cosine in enumerate(cosines):
        share = float(variance[i] / max(variance.sum(), 1e-300))
        tables.angles.append((name, hook, i, share, float(cosine), random))
    if others := asked.lines[name].read_off:
        numbers = [exchanged_blocks(values, blocks, generator) for _ in range(nulls.block_orders)]
        elsewhere = np.stack([fitting.fit(each, "ridge").direction for each in numbers])
        for other in others:
            key = (name, hook, other)
            _read_off(read.line(name, [hook], other), along, elsewhere, key, nulls, seed, tables)


def _read_off(
    other: Line,
    along: Fitted,
    elsewhere: Float64[np.ndarray, "orders d"],
    key: tuple[str, str, str],
    nulls: Nulls,
    seed: int,
    tables: _Tables,
) -> None:
    """Numbers of other texts by a line that nothing of them was fitted to, beside lines of
    exchanged numbers: texts of a time are alike, and in some order along any line."""
    _, hook, _ = key
    points = other.points[hook]
    predicted = along.numbers(points)
    generator = numpy_generator(seed, "geometry", "read off", *key)
    n = len(predicted)
    draws = (generator.integers(0, n, n) for _ in range(nulls.draws))
    ranks = [rank(other.values[rows], predicted[rows]) for rows in draws]
    tails = (1 - nulls.level) / 2, (1 + nulls.level) / 2
    own = rank(other.values, predicted)
    null = np.array([rank(other.values, points @ direction) for direction in elsewhere])
    p = (1 + int((np.abs(null) >= abs(own)).sum())) / (len(null) + 1)
    ends = (*np.quantile(ranks, tails), *np.quantile(null, tails))
    r2 = r_squared(other.values, predicted)
    tables.read_off.append((*key, n, r2, own, *map(float, ends), p))
    pairs = zip(other.values, predicted, strict=True)
    tables.held_out.extend((*key, *pair) for pair in pairs)
