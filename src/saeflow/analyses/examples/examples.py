"""Where latents fire: their strongest contexts, a sample over their range, histograms, tokens,
companions.

The cache is read once. What fires goes to disk as a sparse table, and everything else is read from
there in passes that hold a shard at a time, so memory does not grow with the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32, Float64, Int32, Int64, UInt32

from saeflow.activations.io import ActivationStore
from saeflow.analyses.examples.cofiring import cofiring
from saeflow.analyses.examples.entries import SHARD_ENTRIES, Firings, Rows
from saeflow.analyses.examples.keeping import Best, FrequentTokens, TokenCounter
from saeflow.analyses.examples.settings import Examples
from saeflow.saes.sae import SAE
from saeflow.saes.sparse import above
from saeflow.seeds import seed_for, uniforms
from saeflow.tables import Schema

BINS = 64
_ROWS_AT_ONCE = 256  # whose latents are dense for a moment
OnProgress = Callable[[int, int], None]

LATENTS: Schema = {
    "latent": pl.Int32,
    "density": pl.Float64,
    "tokens": pl.Int64,
    "maximum": pl.Float32,
    "mean_active": pl.Float32,
    "top_token_id": pl.Int32,
    "top_token": pl.String,
    "top_token_share": pl.Float64,
}
HISTOGRAM: Schema = {
    "latent": pl.Int32,
    "low": pl.Float32,
    "high": pl.Float32,
    "counts": pl.List(pl.UInt32),
}


class Totals(NamedTuple):
    """Of each latent over all rows."""

    rows: int
    """How many rows there are."""
    fired: Int64[np.ndarray, " d_sae"]
    total: Float64[np.ndarray, " d_sae"]
    maximum: Float32[np.ndarray, " d_sae"]


class ContextPlaces(NamedTuple):
    """Where contexts are: sorted by latent, then by group (0 is top, then 1 … strata), then by
    rank."""

    latents: Int32[np.ndarray, " contexts"]
    groups: Int32[np.ndarray, " contexts"]
    ranks: Int32[np.ndarray, " contexts"]
    rows: Int64[np.ndarray, " contexts"]


def firings(
    store: ActivationStore, sae: SAE, progress: OnProgress | None = None
) -> Iterator[Firings]:
    """What fires on the rows of a cache, in parts of about `SHARD_ENTRIES` entries.

    Args:
        store: the cache.
        sae: that reads it.
        progress: told how many rows are done.

    Raises:
        SaeflowError: a shard is damaged, or the SAE reads activations of another width.
    """
    pending: list[tuple[np.ndarray, ...]] = []
    first = done = held = 0
    for piece, places in store.with_places():
        rows, latents, values = _entries(sae, store.read(piece))
        pending.append((rows + (done - first), latents, values, *places))
        done, held = done + piece.rows, held + len(rows)
        if progress:
            progress(done, store.rows)
        if held >= SHARD_ENTRIES or done == store.rows:
            rows, latents, values, *ends = map(np.concatenate, zip(*pending, strict=True))
            order = np.argsort(latents, kind="stable")
            yield Firings(first, rows[order], latents[order], values[order], Rows(*ends))
            first, held, pending = done, 0, []


@torch.no_grad()
def _entries(sae: SAE, activations: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, latents and values of all that fires, row after row."""
    rows, latents, values = [], [], []
    for start in range(0, len(activations), _ROWS_AT_ONCE):
        z = sae.encode(activations[start : start + _ROWS_AT_ONCE].to(sae.W_enc.device))
        fires = above(z, 0.0)
        rows.append((fires.rows + start).cpu().numpy())
        latents.append(fires.columns.int().cpu().numpy())
        values.append(z[fires.rows, fires.columns].float().cpu().numpy())
    return np.concatenate(rows), np.concatenate(latents), np.concatenate(values)


class FirstPass:
    """What is added up while the cache is read."""

    def __init__(self, d_sae: int, d_vocab: int, top: int) -> None:
        """Begin with nothing.

        Args:
            d_sae: number of latents.
            d_vocab: number of tokens.
            top: contexts kept per latent.
        """
        self._fired, self._total = np.zeros(d_sae, np.int64), np.zeros(d_sae)
        self._maximum = np.zeros(d_sae, np.float32)
        self._rows = 0
        self._tokens = FrequentTokens(d_vocab)
        self._best = Best(d_sae, top)

    def add(self, part: Firings) -> None:
        """Take entries."""
        d_sae = len(self._fired)
        self._rows += len(part.places.tokens)
        self._fired += np.bincount(part.latents, minlength=d_sae)
        self._total += np.bincount(part.latents, part.values.astype(np.float64), d_sae)
        if not len(part.latents):
            return
        starts = np.flatnonzero(np.append(True, part.latents[1:] != part.latents[:-1]))
        own = part.latents[starts]
        self._maximum[own] = np.maximum(
            self._maximum[own], np.maximum.reduceat(part.values, starts)
        )
        self._tokens.add(part.latents, part.tokens)
        at = _largest_of_runs(part)
        self._best.add(
            part.latents[at].astype(np.int64),
            part.values[at].astype(np.float64),
            part.first + part.rows[at],
            part.blocks[at],
        )

    def totals(self) -> Totals:
        """What was added up."""
        return Totals(self._rows, self._fired, self._total, self._maximum)

    def tokens(self) -> TokenCounter:
        """Counts the candidates for each latent's token."""
        return self._tokens.counter()

    @property
    def best(self) -> Best:
        """The strongest contexts."""
        return self._best


def _largest_of_runs(part: Firings) -> Int64[np.ndarray, " runs"]:
    """Of every latent and block, the first entry of largest value."""
    blocks = part.blocks
    new = (part.latents[1:] != part.latents[:-1]) | (blocks[1:] != blocks[:-1])
    starts = np.flatnonzero(np.append(True, new))
    lengths = np.diff(np.append(starts, len(part.latents)))
    largest = np.flatnonzero(
        part.values == np.repeat(np.maximum.reduceat(part.values, starts), lengths)
    )
    run = np.searchsorted(starts, largest, "right")
    return largest[np.append(True, run[1:] != run[:-1])]


class SecondPass:
    """What is counted and drawn once the range of each latent is known."""

    def __init__(self, totals: Totals, tokens: TokenCounter, settings: Examples, seed: int) -> None:
        """Begin with nothing.

        Args:
            totals, tokens: of the first pass.
            settings: how many contexts and rows are drawn.
            seed: of the draws: for one entry the same, whatever comes before it.
        """
        d_sae = len(totals.fired)
        self._totals, self._settings, self._tokens = totals, settings, tokens
        self._counts = np.zeros(d_sae * BINS, np.int64)
        self._drawn = Best(d_sae * max(1, settings.strata), settings.per_stratum)
        self._entry_seed = np.uint64(seed_for(seed, "examples", "contexts"))
        self._row_seed = np.uint64(seed_for(seed, "examples", "rows"))
        self._share = min(1.0, settings.cofiring_rows / max(1, totals.rows))
        self._together: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._n_rows = 0

    def add(self, part: Firings) -> None:
        """Take entries."""
        self._tokens.add(part.latents, part.tokens)
        share = part.values / self._totals.maximum[part.latents]
        latents = part.latents.astype(np.int64)
        bins = np.minimum((share * BINS).astype(np.int64), BINS - 1)
        self._counts += np.bincount(latents * BINS + bins, minlength=len(self._counts))
        if self._settings.strata:
            self._draw(part, latents, share)
        if self._settings.cofiring:
            self._gather(part)

    def _draw(
        self, part: Firings, latents: Int64[np.ndarray, " e"], share: Float32[np.ndarray, " e"]
    ) -> None:
        strata, rows = self._settings.strata, part.first + part.rows
        groups = latents * strata + np.clip(
            np.ceil(share * strata).astype(np.int64) - 1, 0, strata - 1
        )
        with np.errstate(over="ignore"):
            keys = (rows * len(self._totals.fired) + latents).astype(np.uint64) + self._entry_seed
        self._drawn.add(groups, uniforms(keys, 1)[:, 0], rows, part.blocks)

    def _gather(self, part: Firings) -> None:
        rows = np.arange(part.first, part.first + len(part.places.tokens), dtype=np.uint64)
        with np.errstate(over="ignore"):
            chosen = uniforms(rows + self._row_seed, 1)[:, 0] < self._share
        numbers = self._n_rows + np.cumsum(chosen) - 1
        own = chosen[part.rows]
        self._together.append((numbers[part.rows[own]], part.latents[own], part.values[own]))
        self._n_rows += int(chosen.sum())

    def counts(self) -> UInt32[np.ndarray, "d_sae bins"]:
        """Activations in bins of equal width from 0 to each latent's maximum."""
        return self._counts.reshape(-1, BINS).astype(np.uint32)

    def companions(self, progress: OnProgress | None = None) -> pl.DataFrame:
        """The table of `cofiring`; ``progress`` is told how many latents are done."""
        empty = np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32)
        rows, latents, values = (
            np.concatenate(parts) for parts in zip(empty, *self._together, strict=False)
        )
        d_sae = len(self._totals.fired)
        return cofiring(
            rows, latents, values, max(1, self._n_rows), d_sae, self._settings.cofiring, progress
        )

    def drawn(self) -> Best:
        """The contexts drawn; their group is latent · strata + stratum."""
        return self._drawn

    def most_frequent(self) -> tuple[Int64[np.ndarray, " d_sae"], Int64[np.ndarray, " d_sae"]]:
        """Per latent the token it fires on most, and how often."""
        return self._tokens.most(len(self._totals.fired))


def context_places(best: Best, drawn: Best, strata: int) -> ContextPlaces:
    """All contexts, the strongest and those drawn, in their order."""
    top, sampled = best.kept(), drawn.kept()
    columns = [
        np.concatenate([top.groups, sampled.groups // max(1, strata)]),
        np.concatenate([np.zeros_like(top.groups), sampled.groups % max(1, strata) + 1]),
        np.concatenate([top.ranks, sampled.ranks]),
        np.concatenate([top.rows, sampled.rows]),
    ]
    order = np.lexsort(columns[2::-1])
    latents, groups, ranks, rows = (column[order] for column in columns)
    return ContextPlaces(
        latents.astype(np.int32), groups.astype(np.int32), ranks.astype(np.int32), rows
    )


def latent_table(
    totals: Totals,
    tokens: Int64[np.ndarray, " d_sae"],
    counts: Int64[np.ndarray, " d_sae"],
    texts: dict[int, str],
) -> pl.DataFrame:
    """The table of latents.

    Args:
        totals: of the first pass.
        tokens, counts: per latent the token it fires on most, and how often.
        texts: of tokens.
    """
    fires = totals.fired > 0
    fired = np.maximum(totals.fired, 1)
    columns = {
        "latent": np.arange(len(fired)),
        "density": totals.fired / totals.rows,
        "tokens": totals.fired,
        "maximum": totals.maximum,
        "mean_active": totals.total / fired,
        "top_token_id": pl.Series(tokens).set(pl.Series(~fires), None),
        "top_token": [texts.get(int(token)) for token in tokens],
        "top_token_share": counts / fired,
    }
    return pl.DataFrame(columns).select(pl.col(name).cast(kind) for name, kind in LATENTS.items())


def histogram_table(totals: Totals, counts: UInt32[np.ndarray, "d_sae bins"]) -> pl.DataFrame:
    """The histograms of all latents; one that never fires has a range of 0."""
    columns = {
        "latent": np.arange(len(counts), dtype=np.int32),
        "low": np.zeros(len(counts), np.float32),
        "high": totals.maximum,
        "counts": pl.Series(counts).arr.to_list(),
    }
    return pl.DataFrame(columns, schema=HISTOGRAM)


def summary(totals: Totals, shards: int) -> dict[str, float]:
    """Counts over all latents.

    Args:
        totals: of the first pass.
        shards: of the sparse activations.
    """
    entries = int(totals.fired.sum())
    return {
        "rows": totals.rows,
        "d_sae": len(totals.fired),
        "entries": entries,
        "l0": entries / totals.rows,
        "dead": int((totals.fired == 0).sum()),
        "shards": shards,
    }
