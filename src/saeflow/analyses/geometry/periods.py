"""Latents along a line: whether their decoder rows stand where the numbers say that they stand for.

Nothing of a latent is fitted: its number is that of the word that it stands for, or the mean of the
numbers of texts on which it fires, and no text of their blocks is among those that the line was
fitted to. The null fits the line to numbers that are exchanged between blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Float64, Int64
from scipy import sparse

from saeflow.analyses.geometry.line import LineFitting, exchanged_blocks, rank

LEAST_DATED = 5
"""Latents with a number, below which nothing is said of their order."""
PERIODS = {
    "line": pl.String,
    "hook": pl.String,
    "sae": pl.String,
    "of": pl.String,
    "latent": pl.Int32,
    "value": pl.Float64,
    "texts": pl.Int32,
    "place": pl.Float64,
}
"""`of`: where a latent's number `value` is from: a group of latents, or texts, with how many of
these it fires on. `place`: the cosine of its decoder row with the line."""
DATED = {
    "line": pl.String,
    "hook": pl.String,
    "sae": pl.String,
    "of": pl.String,
    "latents": pl.Int32,
    "rank": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "null_high": pl.Float64,
    "p": pl.Float64,
    "left_out": pl.String,
}


class Dated(NamedTuple):
    """Latents with numbers.

    Attributes:
        latents: which.
        values: their numbers.
        texts: on how many texts each fires; 0 where its number is that of a word.
    """

    latents: Int64[np.ndarray, " m"]
    values: Float64[np.ndarray, " m"]
    texts: Int64[np.ndarray, " m"]


class Order(NamedTuple):
    """Whether latents stand along a line in the order of their numbers.

    Attributes:
        rank: Spearman's correlation of numbers and places.
        low, high: its interval over draws of the latents.
        null_high: what lines of exchanged numbers reach.
        p: share of them that reach as much.
    """

    rank: float
    low: float
    high: float
    null_high: float
    p: float


def halves(
    blocks: Int64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " k"]]:
    """Texts that a line is fitted to, and others that give latents their numbers.

    Every other block: texts of a block are alike, so that latents which fire on some of them lie
    along any line that was fitted to the rest. Nor is a group on both sides.

    Args:
        blocks: of each text.
        groups: what each belongs to.
    """
    fitted = blocks % 2 == 0
    return np.flatnonzero(fitted), np.flatnonzero(~fitted & ~np.isin(groups, groups[fitted]))


def dated(latents: sparse.csr_array, values: Float64[np.ndarray, " n"], least: int) -> Dated:
    """Latents with the mean of the numbers of texts on which they fire, weighted by how much.

    A latent that fires on more than half of the texts stands for no number, and is left out.

    Args:
        latents: of the texts.
        values: numbers of the texts.
        least: texts that a latent must fire on.
    """
    firing = latents.tocsc()
    counts = np.diff(firing.indptr)
    chosen = np.flatnonzero((counts >= least) & (counts <= latents.shape[0] / 2))
    weights = np.asarray(latents.sum(axis=0)).ravel()[chosen]
    means = np.asarray(latents.T @ values).ravel()[chosen] / weights
    return Dated(chosen, means, counts[chosen].astype(np.int64))


def places(
    decoder: Float[np.ndarray, "m d"], direction: Float64[np.ndarray, " d"]
) -> Float64[np.ndarray, " m"]:
    """Cosines of decoder rows with a unit direction."""
    rows = decoder.astype(np.float64)
    return np.asarray(rows @ direction / np.linalg.norm(rows, axis=1).clip(1e-12))


def order_along(
    points: Float64[np.ndarray, "n d"],
    values: Float64[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " n"],
    decoder: Float[np.ndarray, "m d"],
    of: Dated,
    draws: int,
    orders: int,
    level: float,
    generator: np.random.Generator,
) -> tuple[Float64[np.ndarray, " m"], Order]:
    """Places of latents along the line of some texts, and whether they are in the order of numbers.

    Args:
        points: of the texts that the line is fitted to.
        values: their numbers.
        blocks: of each.
        decoder: rows of the latents.
        of: their numbers.
        draws: of latents, for the interval.
        orders: of blocks, for the null.
        level: of both.
        generator: of both.
    """
    fitting = LineFitting(points)
    own = places(decoder, fitting.fit(values, "ridge").direction)
    observed = rank(of.values, own)
    drawn = (generator.integers(0, len(own), len(own)) for _ in range(draws))
    ranks = [rank(of.values[rows], own[rows]) for rows in drawn]
    low, high = np.quantile(ranks, [(1 - level) / 2, (1 + level) / 2])
    null = np.array(
        [
            rank(of.values, places(decoder, fitting.fit(numbers, "ridge").direction))
            for numbers in (exchanged_blocks(values, blocks, generator) for _ in range(orders))
        ]
    )
    p = (1 + int((null >= observed).sum())) / (orders + 1)
    return own, Order(observed, float(low), float(high), float(np.quantile(null, level)), p)
