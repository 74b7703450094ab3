"""Labels as text: one line without marks that steer a terminal, and labels made of tokens."""

from __future__ import annotations

import json

import polars as pl

from saeflow.analyses.labels.settings import TokenWording
from saeflow.tables import Schema
from saeflow.terminal import printable

LABELS: Schema = {
    "latent": pl.Int32,
    "source": pl.String,
    "text": pl.String,
    "provenance": pl.String,
}
"""Labels of one source."""
LONGEST = 500
"""Characters of a label that are kept."""


def one_line(text: str) -> str:
    """A label of whatever origin as one line, without control and format characters, which could
    steer a terminal or turn what stands beside it."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def token_labels(
    latents: pl.DataFrame, promoted: pl.DataFrame, activity: pl.DataFrame, asked: TokenWording
) -> pl.DataFrame:
    """A label per latent from what it promotes and what it fires on.

    Args:
        latents: which, column latent.
        promoted: tokens of the logit lens: latent, side, rank, token.
        activity: of all latents: latent, top_token, top_token_share.
        asked: how many tokens are named.

    Returns:
        The columns of `LABELS`.
    """
    top = promoted.filter(pl.col("side") == "top", pl.col("rank") < asked.promoted)
    by_latent = dict(top.sort("rank").group_by("latent").agg("token").iter_rows())
    of_chosen = latents.select("latent").join(activity, on="latent", how="left")
    rows = []
    for latent, token, share in of_chosen.select(
        "latent", "top_token", "top_token_share"
    ).iter_rows():
        parts = []
        if words := by_latent.get(latent):
            parts.append(f"predicts {', '.join(map(quoted_token, words))}")
        if token is not None and share >= asked.frequent:
            parts.append(f"fires on {quoted_token(token)} ({share:.0%} of its firings)")
        if parts:
            rows.append((latent, "tokens", one_line("; ".join(parts)), "logit lens, firing tokens"))
    return pl.DataFrame(rows, schema=LABELS, orient="row")


def quoted_token(token: str) -> str:
    """A token between marks, so that spaces and line breaks in it show."""
    return json.dumps(token.strip() or token, ensure_ascii=False)
