"""Labels by a model that is shown passages with the firing tokens marked."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from saeflow.analyses.labels.asking import Asker, LocalAsker, Question
from saeflow.analyses.labels.questions import Words
from saeflow.analyses.labels.self_explanation import first_phrase
from saeflow.analyses.labels.wording import LABELS, one_line


def explained(
    latents: Sequence[int], passages: pl.DataFrame, asker: Asker, words: Words
) -> pl.DataFrame:
    """The label of each latent that was shown in any passage; one without an answer has none.

    Args:
        latents: which.
        passages: of all latents, with the columns of `PASSAGES`; those to be shown are.
        asker: who explains.
        words: how tokens are written.

    Returns:
        The columns of `LABELS`.
    """
    shown = passages.filter(use="shown").sort("latent", "quantile", maintain_order=True)
    by_latent = shown.partition_by("latent", as_dict=True)
    questions = {
        latent: Question("explanation", "", tuple(_marked(by_latent[latent,], words)))
        for latent in latents
        if (latent,) in by_latent
    }
    replies = asker.tell(list(questions.values()))
    rows = []
    for latent, answer in zip(questions, replies, strict=True):
        text = answer.text or ""
        text = first_phrase(text) if isinstance(asker, LocalAsker) else one_line(text)
        if text:
            rows.append((latent, "explainer", text, one_line(f"explainer, {asker.name}")))
    return pl.DataFrame(rows, schema=LABELS, orient="row")


def _marked(passages: pl.DataFrame, words: Words) -> list[str]:
    return [
        words.passage(tokens, [value > 0 for value in values])
        for tokens, values in passages.select("token_ids", "activations").iter_rows()
    ]
