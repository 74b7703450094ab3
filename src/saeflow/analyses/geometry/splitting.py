"""How the latents of a group split from one SAE to a wider one: which latent of the narrow SAE each
of the wide one comes from, by decoder rows and by firing together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Float64, Int64
from scipy import sparse

from saeflow.analyses.examples.entries import Firings

COSINE, TOGETHER = "decoder cosine", "firing together"
SPLITS = {
    "group": pl.String,
    "hook": pl.String,
    "narrow": pl.String,
    "narrow_width": pl.Int32,
    "wide": pl.String,
    "wide_width": pl.Int32,
    "latent": pl.Int32,
    "word": pl.String,
    "kind": pl.String,
    "by": pl.String,
    "parent": pl.Int32,
    "parent_in_group": pl.Boolean,
    "value": pl.Float64,
    "against": pl.Float64,
    "covered": pl.Float64,
}
"""`parent`: the latent of the narrow SAE that `latent` of the wide one is closest to. `value`: the
cosine of their decoder rows, beside what random directions reach, `against`; or the correlation of
whether they fire. `covered`: of the tokens where `latent` fires the share where its parent does,
beside the share of all tokens where that does, `against`."""
_AT_ONCE = 256


class Parents(NamedTuple):
    """The closest latents of a narrow SAE, for some of a wide one.

    Attributes:
        latents: of the narrow SAE.
        values: how close.
        against: what means nothing.
        covered: of the tokens where a latent of the wide SAE fires, where its parent does; NaN for
            decoder rows.
    """

    latents: Int64[np.ndarray, " m"]
    values: Float64[np.ndarray, " m"]
    against: Float64[np.ndarray, " m"]
    covered: Float64[np.ndarray, " m"]


def by_decoder(
    wide: Float[np.ndarray, "m d"],
    narrow: Float[np.ndarray, "d_narrow d"],
    level: float,
    draws: int,
    generator: np.random.Generator,
) -> Parents:
    """Parents by the cosine of decoder rows, beside the largest cosine of random directions.

    Args:
        wide: rows of some latents.
        narrow: all rows of the narrow SAE.
        level: quantile of the largest cosines of random directions.
        draws: of random directions.
        generator: of them.
    """
    own, others = _unit(wide), _unit(narrow)
    cosines = own @ others.T
    best = cosines.argmax(axis=1)
    random = _unit(generator.standard_normal((draws, narrow.shape[1])))
    reached = [
        (random[first : first + _AT_ONCE] @ others.T).max(axis=1)
        for first in range(0, draws, _AT_ONCE)
    ]
    against = float(np.quantile(np.concatenate(reached), level))
    values = cosines[np.arange(len(own)), best]
    nothing = np.full(len(own), np.nan)
    return Parents(best, values, np.full(len(own), against), nothing)


def by_firing(
    latents: Sequence[int], wide: Iterable[Firings], narrow: Iterable[Firings], d_narrow: int
) -> Parents:
    """Parents by the correlation of whether two latents fire on a token.

    A correlation, since a latent that nearly always fires does so wherever another does.

    Args:
        latents: of the wide SAE.
        wide, narrow: what fires on the rows of one cache, a part of them at a time.
        d_narrow: number of latents of the narrow SAE.
    """
    place = {latent: i for i, latent in enumerate(latents)}
    members: list[np.ndarray] = []
    where: list[np.ndarray] = []
    for part in wide:
        own = np.isin(part.latents, list(place))
        members.append(np.array([place[latent] for latent in part.latents[own].tolist()], np.int64))
        where.append(part.first + part.rows[own])
    of_member, of_row = (
        np.concatenate([np.empty(0, np.int64), *parts]) for parts in (members, where)
    )
    both, fired, rows = np.zeros((len(latents), d_narrow)), np.zeros(d_narrow), 0
    for part in narrow:
        n = len(part.places.tokens)
        here = (of_row >= part.first) & (of_row < part.first + n)
        own_firing = _matrix(of_member[here], of_row[here] - part.first, len(latents), n)
        others = _matrix(part.rows, part.latents.astype(np.int64), n, d_narrow)
        both += (own_firing @ others).toarray()
        fired += np.bincount(part.latents, minlength=d_narrow)
        rows += n
    own_fired = np.bincount(of_member, minlength=len(latents)).astype(float)[:, None]
    spread = own_fired * (rows - own_fired) * (fired * (rows - fired))
    correlation = np.divide(
        rows * both - own_fired * fired, np.sqrt(spread), out=np.zeros_like(both), where=spread > 0
    )
    best = correlation.argmax(axis=1)
    each = np.arange(len(latents))
    covered = both[each, best] / np.maximum(own_fired[:, 0], 1)
    return Parents(best, correlation[each, best], fired[best] / max(rows, 1), covered)


def split_rows(
    key: tuple[object, ...],
    members: pl.DataFrame,
    parents_in_group: Iterable[int],
    by: str,
    parents: Parents,
) -> list[tuple[object, ...]]:
    """Rows of `SPLITS`.

    Args:
        key: group, hook, and name and width of the narrow and of the wide SAE.
        members: of the group in the wide SAE.
        parents_in_group: of the group in the narrow one.
        by: how parents were told.
        parents: of every member.
    """
    inside = set(parents_in_group)
    described = members.select("latent", "word", "kind").iter_rows()
    return [
        (*key, *of, by, int(parent), int(parent) in inside, float(value), float(against),
         None if np.isnan(covered) else float(covered))
        for of, parent, value, against, covered in zip(described, *parents, strict=True)
    ]  # fmt: skip


def _unit(rows: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    exact = rows.astype(np.float64)
    return np.asarray(exact / np.linalg.norm(exact, axis=1, keepdims=True).clip(1e-12))


def _matrix(
    rows: Int64[np.ndarray, " e"], columns: Int64[np.ndarray, " e"], n: int, m: int
) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, m))
