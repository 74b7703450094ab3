"""Latents of two SAEs, one of each model, that fire together on the same tokens: matched one to one
so that the sum of their correlations is the largest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from saeflow.analyses.diffing.classes import COUNTS, SIDES
from saeflow.analyses.diffing.settings import Classes, Matching
from saeflow.analyses.diffing.texts import Passed, Text
from saeflow.saes.evaluation import rows_in_parts
from saeflow.saes.sae import SAE
from saeflow.seeds import numpy_generator
from saeflow.statistics.means import seen_weights

MATCHES = {
    "model": pl.String,
    "class": pl.String,
    "sure": pl.Float64,
    "base_latent": pl.Int64,
    "tuned_latent": pl.Int64,
    "correlation": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "density_base": pl.Float64,
    "density_tuned": pl.Float64,
    "cosine": pl.Float64,
}
NAMES = ["shared", "leaning", "split", "base_only", "tuned_only", "dead"]
"""Classes that matching tells: those of a crosscoder's latents, and ``split``, whose like in the
other model is matched with another latent."""
TIE = 1e-3
"""How much the cosine of directions counts beside a correlation."""
APART = 2
"""Of the classes of pairs, that of two latents that are each of their own model alone."""


class Correlation:
    """Correlations of all latents of one SAE with all of another, from one pass over text; memory
    does not grow with it.

    Args:
        firsts, seconds: how many latents either has.
        device: of the rows.
    """

    def __init__(self, firsts: int, seconds: int, device: torch.device | str = "cpu") -> None:
        self._products = torch.zeros(firsts, seconds, device=device)
        self._sums = [np.zeros((2, count)) for count in (firsts, seconds)]
        self.fired = [np.zeros(count) for count in (firsts, seconds)]
        self.rows = 0

    def add(self, z: Float[Tensor, "rows firsts"], other: Float[Tensor, "rows seconds"]) -> None:
        """Take in what both do on the same rows."""
        self._products.addmm_(z.T, other)
        self.rows += len(z)
        for sums, fired, own in zip(self._sums, self.fired, (z, other), strict=True):
            sums[0] += own.sum(0, dtype=torch.float64).cpu().numpy()
            sums[1] += own.double().square().sum(0).cpu().numpy()
            fired += (own > 0).sum(0).cpu().numpy()

    def matrix(self) -> Float32[np.ndarray, "firsts seconds"]:
        """Pearson's correlations; 0 where a latent does not change."""
        means = [sums[0] / self.rows for sums in self._sums]
        spreads = [
            np.sqrt(np.maximum(sums[1] / self.rows - mean**2, 0))
            for sums, mean in zip(self._sums, means, strict=True)
        ]
        matrix: Float32[np.ndarray, "firsts seconds"] = self._products.cpu().numpy() / self.rows
        matrix -= np.outer(*means).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            for axis, spread in enumerate(spreads):
                matrix /= np.expand_dims(spread, 1 - axis).astype(np.float32)
        return np.nan_to_num(matrix, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


class Match(NamedTuple):
    """Latents that are matched.

    Attributes:
        base, tuned: a latent of each, pair by pair.
        correlation: of each pair.
        cosine: of the directions of each pair.
        largest: of either SAE, the largest correlation of every latent with any of the other's.
    """

    base: Int64[np.ndarray, " pairs"]
    tuned: Int64[np.ndarray, " pairs"]
    correlation: Float64[np.ndarray, " pairs"]
    cosine: Float64[np.ndarray, " pairs"]
    largest: Sequence[Float64[np.ndarray, " latents"]]


def best_match(
    correlations: Float32[np.ndarray, "base tuned"],
    alive: Sequence[Bool[np.ndarray, " latents"]],
    cosines: Float32[np.ndarray, "base tuned"],
) -> Match:
    """The pairs of latents whose correlations have the largest sum, each in one pair at most.

    Args:
        correlations: of all.
        alive: of either SAE, which latents fire at all.
        cosines: of their directions, which decide where correlations are about the same, as those
            of latents that fire once are.
    """
    places = [np.flatnonzero(own) for own in alive]
    among, directions = correlations[np.ix_(*places)], cosines[np.ix_(*places)]
    rows, columns = linear_sum_assignment(among + TIE * directions, maximize=True)
    correlation, cosine = (own[rows, columns].astype(float) for own in (among, directions))
    largest = [correlations.max(1 - axis, initial=-1.0).astype(np.float64) for axis in (0, 1)]
    return Match(places[0][rows], places[1][columns], correlation, cosine, largest)


class _PairSums:
    """Sums over pairs of latents, by parts of the text, so that the text can be resampled."""

    def __init__(self, match: Match, groups: int) -> None:
        self._match = [torch.from_numpy(own) for own in match[:2]]
        self._sums = np.zeros((groups, 5, len(match.base)))
        self._rows = np.zeros(groups)

    def add(self, z: Float[Tensor, "rows b"], other: Float[Tensor, "rows t"], group: int) -> None:
        a, b = (
            values[:, places.to(values.device)].double()
            for values, places in zip((z, other), self._match, strict=True)
        )
        sums = (a, b, a * a, b * b, a * b)
        self._sums[group] += torch.stack([own.sum(0) for own in sums]).cpu().numpy()
        self._rows[group] += len(z)

    def correlations(
        self, weights: Float64[np.ndarray, "draws groups"]
    ) -> Float64[np.ndarray, "draws pairs"]:
        """Of every pair in every resample of the text; 0 where one of them never changes."""
        rows = (weights @ self._rows)[:, None, None]
        means = np.einsum("dg,gsp->dsp", weights, self._sums) / rows
        a, b, aa, bb, ab = means.transpose(1, 0, 2)
        spread = np.sqrt(np.maximum(aa - a * a, 0) * np.maximum(bb - b * b, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spread == 0, 0.0, (ab - a * b) / spread)


@torch.no_grad()
def match_latents(
    saes: Sequence[SAE],
    text: Text,
    settings: Matching,
    resampled: Classes,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Match latents of an SAE of the base with those of one of another model, in one pass over
    text; a second one gives intervals.

    Args:
        saes: of the base and of the compared model, on the models' device.
        text: with the base as the first source, the compared model as the second.
        settings: bounds of the classes.
        resampled: parts of the text, level and draws of the intervals.
        seed: of the study.
        progress: called with (blocks done, of both passes).

    Returns:
        The columns of `MATCHES`, a row per pair and per latent that is in none; and those of
        `classes.COUNTS`, where density is the median of either and contribution is null. Two
        that are matched with a low correlation have a row each, as latents in no pair have: theirs
        is the largest correlation with any latent of the other SAE, and has no interval.
    """
    first, second = saes
    blocks = len(text.tokens)
    groups = min(resampled.groups, blocks)
    correlation = Correlation(first.d_sae, second.d_sae, first.W_dec.device)

    def latents(passed: Passed) -> list[tuple[Tensor, Tensor]]:
        parts = rows_in_parts(len(passed.x), first.d_sae + second.d_sae, passed.x.device)
        return [
            (first.encode(passed.x[part, 0]), second.encode(passed.x[part, 1])) for part in parts
        ]

    def report(passed: Passed, before: int) -> None:
        if progress:
            progress(before + passed.first + len(passed.tokens), 2 * blocks)

    for passed in text.passes(groups):
        for z, other in latents(passed):
            correlation.add(z, other)
        report(passed, 0)
    directions = [normalize(sae.W_dec.float(), dim=1) for sae in saes]
    cosines = (directions[0] @ directions[1].T).cpu().numpy()
    match = best_match(correlation.matrix(), [fired > 0 for fired in correlation.fired], cosines)
    sums = _PairSums(match, groups)
    for passed in text.passes(groups):
        for z, other in latents(passed):
            sums.add(z, other, passed.group)
        report(passed, blocks)
    generator = numpy_generator(seed, "diffing", "matching")
    weights = seen_weights(groups, resampled.draws, generator)
    drawn = sums.correlations(weights)
    model = text.sources[1].name
    return _tables(correlation, match, drawn, settings, resampled, model)


def _class_of(
    correlations: Float64[np.ndarray, "*shape"], settings: Matching
) -> Int64[np.ndarray, "*shape"]:
    """Of pairs: 0 shared, 1 leaning, `APART` where the two have nothing to do with each other."""
    bounds = [correlations >= settings.shared, correlations >= settings.exclusive]
    return np.select(bounds, [np.int64(0), np.int64(1)], np.int64(APART))


def _tables(
    correlation: Correlation,
    match: Match,
    drawn: Float64[np.ndarray, "draws pairs"],
    settings: Matching,
    resampled: Classes,
    model: str,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    tails = (1 - resampled.level) / 2, (1 + resampled.level) / 2
    own, draws = _class_of(match.correlation, settings), _class_of(drawn, settings)
    low, high = np.quantile(drawn, tails, axis=0)
    pairs = pl.DataFrame(
        {
            "place": own,
            "sure": np.where(np.isnan(drawn).any(0), np.nan, (draws == own).mean(0)),
            "base_latent": match.base,
            "tuned_latent": match.tuned,
            "correlation": match.correlation,
            "low": low,
            "high": high,
            "cosine": match.cosine,
        }
    )
    apart = pairs.filter(pl.col("place") == APART)
    together = pairs.filter(pl.col("place") < APART)
    names = pl.col("place").replace_strict({0: "shared", 1: "leaning"}, return_dtype=pl.String)
    parts = [together.with_columns(names.alias("class")).drop("place")]
    # NaN where a single part of the text leaves nothing to resample
    zero = np.where(np.isnan(drawn).any(1), np.nan, 0.0)
    counts = dict.fromkeys(NAMES, zero)
    counts |= {"shared": zero + (draws == 0).sum(1), "leaning": zero + (draws == 1).sum(1)}
    for side, matched, fired, largest in zip(
        SIDES, match[:2], correlation.fired, match.largest, strict=True
    ):
        latent, none = f"{side}_latent", largest < settings.exclusive
        class_of = np.where(none, f"{side}_only", "split")
        class_of = np.where(fired > 0, class_of, "dead")
        rest = np.setdiff1d(np.arange(len(fired)), matched)
        sure = np.concatenate([apart["sure"].to_numpy(), np.full(len(rest), np.nan)])
        alone = np.concatenate([apart[latent].to_numpy(), rest])
        for name in np.unique(class_of).tolist():
            in_pairs = (draws == APART) & (class_of[matched] == name)
            counts[name] = counts[name] + in_pairs.sum(1) + (class_of[rest] == name).sum()
        rows: dict[str, Any] = {"class": class_of[alone], "sure": sure, latent: alone}
        parts.append(pl.DataFrame(rows | {"correlation": largest[alone]}).sort(latent))
    table = pl.concat(parts, how="diagonal").with_columns(pl.lit(model).alias("model"))
    for side, fired in zip(SIDES, correlation.fired, strict=True):
        density = pl.DataFrame(
            {f"{side}_latent": np.arange(len(fired)), f"density_{side}": fired / correlation.rows}
        )
        table = table.join(density, on=f"{side}_latent", how="left", maintain_order="left")
    table = table.select(pl.col(name).cast(kind) for name, kind in MATCHES.items())
    table = table.with_columns(pl.col("sure", "low", "high").fill_nan(None))
    return table, _counted(table, counts, tails)


def _counted(
    table: pl.DataFrame,
    drawn: Mapping[str, Float64[np.ndarray, " draws"]],
    tails: tuple[float, float],
) -> pl.DataFrame:
    """How many there are of each class; a pair of two that belong together counts once."""
    rows = []
    for name, counts in drawn.items():
        own = table.filter(pl.col("class") == name)
        low, high = np.quantile(counts, tails)
        density = pl.concat([own["density_base"], own["density_tuned"]]).median()
        ends = min(low, len(own)), max(high, len(own))
        rows.append(
            (table["model"][0], name, len(own), *ends, density, own["cosine"].median(), None)
        )
    counted = pl.DataFrame(rows, schema=COUNTS, orient="row")
    return counted.with_columns(pl.col("low", "high").fill_nan(None))
