"""What a latent's page is made of, for a range of latents at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from saeflow.analyses.examples.latent_index import STATISTICS
from saeflow.report.wording import digits

CHUNK = 64
"""Latents whose pages share one file."""
STEPS = 999
"""Activations in a context are whole thousandths of the latent's maximum."""
SETS = 12
"""Enriched sets of each latent that its page shows."""
NEAR = 10
"""Neighbours, latents that fire with it, and latents that it raises and lowers, as many of each."""

Pairs = list[tuple[int, float]]


Rows = dict[int, list[dict[str, Any]]]
"""Rows of a table, by latent."""


class LatentDetails(NamedTuple):
    """Rows of tables about a range of latents; empty where the study has none."""

    contexts: Rows
    """group, rank, activation, block, position, offset, token_ids, and the steps of
    ``in_steps``."""
    histogram: Rows
    """low, high, counts: of activations above 0."""
    weights: Rows
    """low, high, counts: of logit weights."""
    tokens: Rows
    """side, rank, token, weight."""
    enrichment: Rows
    """set, ks, auc, q_bh, leading_edge."""
    cofiring: Rows
    """other, rank, count, jaccard, correlation."""
    causal: Rows
    """contexts, r_addition, r_ablation."""


class Related(NamedTuple):
    """What other latents have to do with one."""

    near: Pairs
    """Latents with the closest decoder rows, and the cosines."""
    raised: Pairs
    """Latents that a vector along it raises most, and by how much."""
    lowered: Pairs


def nearest(decoder: NDArray[np.float32], rows: range, count: int = NEAR) -> list[Pairs]:
    """For some latents, those whose decoder rows are closest to theirs.

    Args:
        decoder: unit rows, ``[d_sae, d_model]``.
        rows: of which latents.
        count: how many of each.
    """
    cosines = decoder[rows.start : rows.stop] @ decoder.T
    cosines[np.arange(len(rows)), np.arange(rows.start, rows.stop)] = -np.inf
    return [largest(row, count) for row in cosines]


def largest(values: NDArray[np.floating[Any]], count: int) -> Pairs:
    """Places and values of the largest of some numbers, in their order; numbers that are not finite
    are passed over."""
    finite = np.where(np.isfinite(values), values, -np.inf)
    places = (
        np.arange(len(finite)) if count >= len(finite) else np.argpartition(-finite, count)[:count]
    )
    ranked = places[np.lexsort((places, -finite[places]))]
    return [(int(place), float(finite[place])) for place in ranked if np.isfinite(finite[place])]


def moved(effects: NDArray[np.floating[Any]], count: int = NEAR) -> tuple[Pairs, Pairs]:
    """The latents that one vector raises most, and those that it lowers most."""
    raised = [pair for pair in largest(effects, count) if pair[1] > 0]
    lowered = [(latent, -value) for latent, value in largest(-effects, count) if value > 0]
    return raised, lowered


def chunks(first: int, last: int) -> Iterator[range]:
    """The files' ranges of latents from ``first`` up to ``last``; ``first`` begins a file."""
    for start in range(first, last, CHUNK):
        yield range(start, min(start + CHUNK, last))


def page_values(
    latents: range,
    statistics: pl.DataFrame,
    details: LatentDetails,
    related: dict[int, Related],
    vocabulary: Mapping[int, str],
) -> dict[str, Any]:
    """The pages of one file.

    Args:
        latents: which.
        statistics: one row per latent of the SAE, column latent and numbers.
        details: tables that hold at least these latents.
        related: by latent.
        vocabulary: by token id, the text it stands for.

    Returns:
        ``first``, the ``words`` of the tokens in contexts by id, and an entry per latent.
    """
    seen: set[int] = set()
    parts = details._asdict()
    numbers = statistics.slice(latents.start, len(latents)).to_dicts()
    entries = []
    for row in numbers:
        latent = row["latent"]
        own = {name: rows_by_latent.get(latent, []) for name, rows_by_latent in parts.items()}
        seen.update(token for context in own["contexts"] for token in context["token_ids"])
        entries.append(
            {
                "statistics": {
                    statistic.name: digits(row[statistic.name], 5)
                    for statistic in STATISTICS
                    if statistic.name in row
                },
                "contexts": [_context(context) for context in own["contexts"]],
                "histogram": _histogram(own["histogram"]),
                "weights": _histogram(own["weights"]),
                "tokens": {side: _side(own["tokens"], side) for side in ("top", "bottom")},
                "sets": [
                    _set(token_set, vocabulary) for token_set in _strongest(own["enrichment"])
                ],
                "cofiring": [_cofiring(companion) for companion in own["cofiring"][:NEAR]],
                "causal": [_causal(effect) for effect in own["causal"]],
                **_related(related.get(latent)),
            }
        )
    words = {token: vocabulary.get(token, f"[{token}]") for token in sorted(seen)}
    return {"first": latents.start, "words": words, "latents": entries}


def gap(vocabulary: Collection[str]) -> str:
    """What stands between two tokens: nothing, or a space where the tokenizer keeps no spaces in
    its tokens."""
    spaced = sum(word.startswith(" ") for word in vocabulary)
    return "" if spaced > 0.01 * len(vocabulary) else " "


def by_latent(table: pl.DataFrame) -> Rows:
    """The rows of a table with the column latent, in its order."""
    rows: Rows = {}
    for row in table.to_dicts():
        rows.setdefault(row["latent"], []).append(row)
    return rows


def in_steps(contexts: pl.DataFrame, statistics: pl.DataFrame) -> pl.DataFrame:
    """Contexts with the column ``steps`` in place of activations: whole thousandths of the latent's
    maximum.

    Args:
        contexts: latent, activations, …
        statistics: latent, maximum; without it the largest activation of a context is its maximum.
    """
    if contexts.is_empty():
        return contexts
    maxima = statistics.select("latent", "maximum") if "maximum" in statistics.columns else None
    if maxima is not None:
        contexts = contexts.join(maxima, on="latent", how="left", maintain_order="left")
    else:
        contexts = contexts.with_columns(maximum=pl.col("activations").list.max())
    top = pl.when(pl.col("maximum") > 0).then("maximum").otherwise(1.0)
    share = pl.col("activations") / top
    steps = share.list.eval((pl.element().clip(0, 1) * STEPS).round().cast(pl.Int32))
    return contexts.with_columns(steps=steps).drop("activations", "maximum")


def _context(row: dict[str, Any]) -> list[Any]:
    """Group, activation, block, position, place of the firing token, token ids, activations in
    steps."""
    place = (row["block"], row["position"], row["offset"])
    return [row["group"], digits(row["activation"]), *place, row["token_ids"], row["steps"]]


def _histogram(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not rows or not sum(rows[0]["counts"]):
        return None
    return {
        "low": digits(rows[0]["low"]),
        "high": digits(rows[0]["high"]),
        "counts": rows[0]["counts"],
    }


def _side(rows: list[dict[str, Any]], side: str) -> list[list[Any]]:
    own = sorted((row for row in rows if row["side"] == side), key=lambda row: row["rank"])
    return [[row["token"], digits(row["weight"])] for row in own]


def _strongest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (-abs(row["ks"]), row["set"]))[:SETS]


def _set(row: dict[str, Any], vocabulary: Mapping[int, str]) -> list[Any]:
    """Set, score, AUC, q, and its tokens that drive the score."""
    leading = [
        vocabulary[token] for token in (row.get("leading_edge") or [])[:8] if token in vocabulary
    ]
    return [row["set"], digits(row["ks"]), digits(row["auc"]), digits(row["q_bh"]), leading]


def _cofiring(row: dict[str, Any]) -> list[Any]:
    return [row["other"], row["count"], digits(row["jaccard"]), digits(row["correlation"])]


def _causal(row: dict[str, Any]) -> list[Any]:
    return [row["contexts"], digits(row["r_addition"]), digits(row["r_ablation"])]


def _related(related: Related | None) -> dict[str, Any]:
    if related is None:
        return {"near": [], "raised": [], "lowered": []}
    return {
        name: [[latent, digits(value)] for latent, value in pairs]
        for name, pairs in related._asdict().items()
    }
