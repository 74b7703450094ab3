"""Which candidate of a direction is taken: the published rule.

Among candidates in the lower layers whose ablation hardly changes answers to `off` prompts (KL) and
whose addition brings the behaviour about there, the one whose ablation leaves the least of it on
`on` prompts. All on validation prompts.

Source: Arditi and others 2024, "Refusal in Language Models Is Mediated by a Single Direction", §C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from saeflow.analyses.directions.activations import divergence, first_logits, odds
from saeflow.analyses.directions.interventions import Intervention
from saeflow.analyses.directions.settings import Selection
from saeflow.models.language_model import LanguageModel

SCORES = {"ablated": pl.Float64, "added": pl.Float64, "divergence": pl.Float64}
CHOICE = {"why_not": pl.String, "chosen": pl.Boolean, "within_rule": pl.Boolean}


def score_candidates(
    lm: LanguageModel,
    candidates: Float[torch.Tensor, "candidates d_model"],
    layers: Sequence[int],
    on: Sequence[Sequence[int]],
    off: Sequence[Sequence[int]],
    tokens: Sequence[int],
    gaps: Sequence[float],
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """What ablating and adding each candidate does to first tokens of answers.

    Args:
        lm: the model.
        candidates: unit norm, or zero, of which nothing is told.
        layers: after which each is added.
        on: tokens of prompts that show the behaviour.
        off: tokens of prompts that do not.
        tokens: with which it begins.
        gaps: how much of each is added.
        progress: called with (candidates scored, candidates).

    Returns:
        A row per candidate, the columns of `SCORES`: mean log-odds of `on` prompts under ablation,
        of `off` prompts under addition, and the mean KL of the first token of answers to `off`
        prompts under ablation.
    """
    usual = first_logits(lm, off)
    rows: list[tuple[float | None, ...]] = []
    for number, (vector, layer, gap) in enumerate(zip(candidates, layers, gaps, strict=True)):
        if not vector.any():
            rows.append((None, None, None))
            continue
        ablation = Intervention("ablate", vector, layer, 0.0).on(lm)
        addition = Intervention("add", vector, layer, gap).on(lm)
        rows.append(
            (
                float(odds(first_logits(lm, on, ablation), tokens).mean()),
                float(odds(first_logits(lm, off, addition), tokens).mean()),
                float(divergence(usual, first_logits(lm, off, ablation)).mean()),
            )
        )
        if progress:
            progress(number + 1, len(candidates))
    return pl.DataFrame(rows, schema=SCORES, orient="row")


def choose(table: pl.DataFrame, n_layers: int, rule: Selection) -> pl.DataFrame:
    """Mark the candidate that the rule takes, and say what keeps the others from it.

    Where no candidate meets the rule, the one is taken that brings the behaviour about most, and
    ``within_rule`` is false everywhere.

    Args:
        table: columns layer and those of `SCORES`; a null or NaN score takes a candidate out.
        n_layers: of the model.
        rule: its thresholds.

    Returns:
        The table with the columns of `CHOICE`.
    """
    scored = table.with_columns(pl.col(list(SCORES)).fill_nan(None))
    bounds = {
        "no score": pl.any_horizontal(pl.col(list(SCORES)).is_null()),
        "layer too deep": pl.col("layer") >= int(n_layers * rule.depth),
        "divergence too large": pl.col("divergence") > rule.divergence,
        "does not bring it about": pl.col("added") < rule.induced,
    }
    why = pl.coalesce(pl.when(fails).then(pl.lit(reason)) for reason, fails in bounds.items())
    scored = scored.with_columns(why_not=why).with_row_index("row")
    passing = scored.filter(pl.col("why_not").is_null())
    if len(passing):
        best = passing.sort("ablated", "row")["row"][0]
    else:
        possible = scored.filter(pl.col("why_not") != "no score")
        possible = possible if len(possible) else scored
        best = possible.sort(-pl.col("added"), "row", nulls_last=True)["row"][0]
    return scored.with_columns(
        chosen=pl.col("row") == best, within_rule=pl.lit(len(passing) > 0)
    ).drop("row")


def others(table: pl.DataFrame, count: int, generator: np.random.Generator) -> list[int]:
    """Some of the candidates with scores that were not chosen, drawn at random, by their rows."""
    usable = (
        table.with_row_index("row")
        .filter(~pl.col("chosen"), pl.all_horizontal(pl.col(list(SCORES)).is_not_null()))["row"]
        .to_list()
    )
    return sorted(generator.permutation(usable)[:count].tolist())
