"""Which token sets stand out among a latent's logit weights, among all latents and sets at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor

from saeflow.analyses.logit_lens.logit_lens import BINS, LensTable, histogram
from saeflow.analyses.logit_lens.token_sets import MemberSet
from saeflow.products import linear
from saeflow.statistics.false_discovery import q_values
from saeflow.statistics.rank_tests import direction_p_values, ks_p_values, rank_sum_p_values
from saeflow.tables import Schema

LEADING = 20  # tokens listed of a leading edge
_ROWS_AT_ONCE = 256

ENRICHMENT: Schema = {
    "latent": pl.Int32,
    "set": pl.String,
    "ks": pl.Float32,
    "auc": pl.Float32,
    "effect": pl.Float32,
    "p": pl.Float64,
    "q_bh": pl.Float64,
    "q_by": pl.Float64,
    "p_directions": pl.Float64,
    "p_ks": pl.Float64,
    "p_rank_sum": pl.Float64,
    "leading_size": pl.Int32,
    "leading_edge": pl.List(pl.Int32),
}
SPLITS: Schema = {
    "latent": pl.Int32,
    "set": pl.String,
    "ks": pl.Float32,
    "low": pl.Float32,
    "high": pl.Float32,
    "inside": pl.List(pl.UInt32),
    "outside": pl.List(pl.UInt32),
}


class PValues(NamedTuple):
    """Of every latent and token set, by three tests."""

    directions: Float64[np.ndarray, "latents sets"]
    ks: Float64[np.ndarray, "latents sets"]
    rank_sum: Float64[np.ndarray, "latents sets"]


def p_values(table: LensTable, null: LensTable, sets: Sequence[MemberSet], tokens: int) -> PValues:
    """Test every latent and token set.

    Args:
        table: of the latents.
        null: of random directions, with the same sets.
        sets: the sets.
        tokens: of the vocabulary.
    """
    shape = table.ks.shape
    p = PValues(np.ones(shape), np.ones(shape), np.ones(shape))
    for place, member_set in enumerate(sets):
        sizes = (len(member_set.members), tokens - len(member_set.members))
        p.directions[:, place] = direction_p_values(table.auc[:, place], null.auc[:, place], *sizes)
        p.ks[:, place] = ks_p_values(table.ks[:, place], *sizes)
        p.rank_sum[:, place] = rank_sum_p_values(table.auc[:, place], *sizes, table.tie_terms)
    return p


def enriched(
    table: LensTable, tested: PValues, sets: Sequence[MemberSet], test: str, level: float
) -> pl.DataFrame:
    """The latents and sets that are found at a false discovery rate.

    Args:
        table: of the latents.
        tested: from `p_values`.
        sets: the sets.
        test: whose p-values count: a field of `PValues`.
        level: largest Benjamini-Hochberg q-value kept.

    Returns:
        The columns of `ENRICHMENT` but ``leading_edge``, sorted by latent and then by p.
    """
    p: Float64[np.ndarray, "latents sets"] = getattr(tested, test)
    q_bh, q_by = q_values(p, "bh"), q_values(p, "by")
    latent, place = np.nonzero(q_bh <= level)
    names = np.array([member_set.name for member_set in sets], dtype=object)
    columns = {
        "latent": latent,
        "set": names[place],
        "ks": table.ks[latent, place],
        "auc": table.auc[latent, place],
        "effect": 2 * table.auc[latent, place] - 1,
        "p": p[latent, place],
        "q_bh": q_bh[latent, place],
        "q_by": q_by[latent, place],
        "p_directions": tested.directions[latent, place],
        "p_ks": tested.ks[latent, place],
        "p_rank_sum": tested.rank_sum[latent, place],
        "leading_size": table.leading[latent, place],
    }
    schema = {name: kind for name, kind in ENRICHMENT.items() if name != "leading_edge"}
    return pl.DataFrame(columns, schema=schema).sort(
        "latent", "p", pl.col("effect").abs(), descending=[False, False, True]
    )


@torch.no_grad()
def with_leading_edges(
    enrichment: pl.DataFrame,
    directions: Float[Tensor, "latents d_model"],
    unembedding: Float[Tensor, "tokens d_model"],
    sets: Sequence[MemberSet],
    ids: Int32[np.ndarray, " tokens"],
) -> pl.DataFrame:
    """Add the tokens of each leading edge: the members that make the running sum reach its extreme,
    strongest first.

    Args:
        enrichment: from `enriched`.
        directions: of all latents.
        unembedding: the same that they were looked at through.
        sets: the sets.
        ids: token ids of the vocabulary.
    """
    members = {member_set.name: member_set.members for member_set in sets}
    latents = enrichment["latent"].unique(maintain_order=True).to_numpy()
    rows = iter(enrichment.select("latent", "set", "ks", "leading_size").iter_rows())
    edges: list[list[int]] = []
    for first in range(0, len(latents), _ROWS_AT_ONCE):
        part = latents[first : first + _ROWS_AT_ONCE]
        weights = dict(zip(part.tolist(), _weights(directions, unembedding, part), strict=True))
        wanted = enrichment.filter(pl.col("latent").is_between(int(part[0]), int(part[-1]))).height
        for latent, name, ks, size in (next(rows) for _ in range(wanted)):
            edges.append(_edge(weights[latent], members[name], ids, ks, size))
    return enrichment.with_columns(pl.Series("leading_edge", edges, dtype=pl.List(pl.Int32)))


def _weights(
    directions: Float[Tensor, "latents d_model"],
    unembedding: Float[Tensor, "tokens d_model"],
    latents: Int64[np.ndarray, " some"],
) -> Float[np.ndarray, "some tokens"]:
    chosen = directions[latents.tolist()].contiguous()
    return linear(chosen, unembedding).cpu().numpy()


def _edge(
    weights: Float[np.ndarray, " tokens"],
    members: Int32[np.ndarray, " members"],
    ids: Int32[np.ndarray, " tokens"],
    ks: float,
    size: int,
) -> list[int]:
    own = weights[members] if ks < 0 else -weights[members]
    return ids[members[np.argsort(own, kind="stable")[: min(size, LEADING)]]].tolist()


def split_pairs(
    enrichment: pl.DataFrame, sets: Sequence[MemberSet], count: int
) -> list[tuple[int, str, float]]:
    """Latents and sets that show best how a set splits logit weights: large statistic, each latent
    and set once.

    Args:
        enrichment: from `enriched`.
        sets: the sets.
        count: at most so many.
    """
    picked: list[tuple[int, str, float]] = []
    names = {member_set.name for member_set in sets}
    ranked = enrichment.filter(pl.col("set").is_in(names)).sort(
        pl.col("effect").abs(), "latent", descending=[True, False]
    )
    for latent, name, ks in ranked.select("latent", "set", "ks").iter_rows():
        if all(latent != other and name != its for other, its, _ in picked):
            picked.append((latent, name, ks))
        if len(picked) == count:
            break
    return picked


@torch.no_grad()
def splits(
    pairs: Sequence[tuple[int, str, float]],
    directions: Float[Tensor, "latents d_model"],
    unembedding: Float[Tensor, "tokens d_model"],
    sets: Sequence[MemberSet],
) -> pl.DataFrame:
    """Histograms of logit weights of members and others, with the columns of `SPLITS`.

    Args:
        pairs: latent, set, statistic.
        directions, unembedding, sets: as of `with_leading_edges`.
    """
    members = {member_set.name: member_set.members for member_set in sets}
    rows = []
    for latent, name, ks in pairs:
        weights = _weights(directions, unembedding, np.array([latent]))[0]
        inside = np.zeros(len(weights), np.bool_)
        inside[members[name]] = True
        low, high = float(weights.min()), float(weights.max())
        own, others = (
            histogram(weights[mask], low, high).counts.tolist() for mask in (inside, ~inside)
        )
        rows.append((latent, name, ks, low, high, own, others))
    assert all(len(row[-1]) == BINS for row in rows)
    return pl.DataFrame(rows, schema=SPLITS, orient="row")
