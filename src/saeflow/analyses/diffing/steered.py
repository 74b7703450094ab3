"""What models say when the mean difference between two of them is added, beside random directions
of the same length.

Source: Minder, Dumas et al. 2025, arXiv 2510.13900, where the tuned model so steered says what it
    was tuned on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from saeflow.analyses.diffing.settings import Classes, Steered
from saeflow.decoding.answers import greedy_answers
from saeflow.models.hooks import attach, editing
from saeflow.models.language_model import LanguageModel
from saeflow.models.running import final_states, padded, unembed
from saeflow.saes.comparison import Seen
from saeflow.seeds import numpy_generator, torch_generator
from saeflow.statistics.clusters import POSITIVE, Resampling, cells

CONTINUATIONS = {
    "model": pl.String,
    "kind": pl.String,
    "scale": pl.Float64,
    "prompt": pl.Int32,
    "text": pl.String,
    "continuation": pl.String,
    "tokens": pl.Int32,
    "evidence": pl.Float64,
    "loss_base": pl.Float64,
}
STEERED = {
    "model": pl.String,
    "kind": pl.String,
    "scale": pl.Float64,
    "measure": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int32,
}
AT_ONCE = 64


class Added(NamedTuple):
    """What is added to the residual stream.

    Attributes:
        kind: none, difference, random.
        scale: in units of the mean norm of activations.
        vector: of that length.
    """

    kind: str
    scale: float
    vector: Float[Tensor, " d_model"]


def additions(
    difference: Float[Tensor, " d_model"], unit: float, settings: Steered, seed: int
) -> list[Added]:
    """Nothing, the difference at every scale, and a random direction at every scale.

    Args:
        difference: of any length.
        unit: the mean norm of activations.
        settings: the scales.
        seed: of the study.
    """
    generator = torch_generator(seed, "diffing", "steered")
    random = torch.randn(len(difference), generator=generator)
    added = [Added("none", 0.0, torch.zeros_like(random))]
    for kind, direction in (("difference", difference.float()), ("random", random)):
        of_length_1 = direction / direction.norm().clamp_min(torch.finfo(torch.float32).tiny)
        added += [Added(kind, scale, scale * unit * of_length_1) for scale in settings.scales]
    return added


def openings(tokens: Int64[np.ndarray, "blocks pos"], settings: Steered) -> list[list[int]]:
    """BOS and the first tokens of the first blocks that do not open as an earlier one does: what
    is said to the same prompt is the same, and counts once."""
    rows = dict.fromkeys(map(tuple, tokens[:, : settings.prompt_tokens + 1].tolist()))
    return [list(row) for row in rows][: settings.prompts]


@torch.no_grad()
def continuations(
    base: Seen, tuned: Seen, prompts: Sequence[list[int]], added: Sequence[Added], new_tokens: int
) -> pl.DataFrame:
    """The most probable continuations of prompts by both models under every addition.

    Args:
        base: and where vectors are added.
        tuned: too.
        prompts: token ids, BOS first.
        added: vectors.
        new_tokens: of each continuation.

    Returns:
        The columns of `CONTINUATIONS`: ``evidence`` is the log-probability of the continuation
        under the tuned model less that under the base, neither steered, per token: positive where
        the text is what the tuned model says rather than the base; ``loss_base`` what it costs the
        base per token.
    """

    def rows() -> Iterator[tuple[object, ...]]:
        for seen in (base, tuned):
            for each in added:
                answers = _answers(seen, prompts, each.vector, new_tokens)
                losses = [_losses(own.lm, prompts, answers) for own in (base, tuned)]
                for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
                    of_base, of_tuned = losses[0][number], losses[1][number]
                    texts = (base.lm.tokenizer.decode(ids) for ids in (prompt[1:], answer))
                    values = (len(answer), of_base - of_tuned, of_base)
                    yield (seen.name, each.kind, each.scale, number, *texts, *values)

    table = pl.DataFrame(list(rows()), schema=CONTINUATIONS, orient="row")
    return table.with_columns(pl.selectors.float().fill_nan(None))


def _answers(
    seen: Seen, prompts: Sequence[list[int]], vector: Float[Tensor, " d_model"], new_tokens: int
) -> list[list[int]]:
    with ExitStack() as stack:
        if vector.any():
            moved = vector.to(seen.lm.device, seen.lm.dtype)
            stack.enter_context(attach(seen.lm, editing(seen.hook, lambda x: x + moved)))
        return greedy_answers(seen.lm, prompts, new_tokens)


def _losses(
    lm: LanguageModel, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> Float64[np.ndarray, " prompts"]:
    """What continuations cost a model per token; NaN where there is none."""
    losses = np.full(len(prompts), np.nan)
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    for first in range(0, len(rows), AT_ONCE):
        chunk = rows[first : first + AT_ONCE]
        states = final_states(lm, padded(lm, chunk))
        for place, row in enumerate(chunk):
            number = first + place
            if not answers[number]:
                continue
            span = slice(len(prompts[number]) - 1, len(row) - 1)
            logits = unembed(lm, states[place, span]).float().log_softmax(-1)
            said = torch.tensor(answers[number], device=lm.device)[:, None]
            losses[number] = -float(logits.gather(1, said).double().mean())
    return losses


def summarise(table: pl.DataFrame, resampled: Classes, seed: int) -> pl.DataFrame:
    """Means over prompts with intervals.

    Args:
        table: of `continuations`.
        resampled: level and draws of the intervals.
        seed: of the study.
    """
    rows = []
    for key, own in table.group_by(["model", "kind", "scale"], maintain_order=True):
        generator = numpy_generator(seed, "diffing", "continuations")
        clusters = own["prompt"].to_numpy().astype(np.int64)
        resampling = Resampling(clusters, resampled.draws, resampled.level, generator)
        for measure, bounds in (("evidence", None), ("loss_base", POSITIVE)):
            values = own[measure].to_numpy().astype(float)
            if not np.isnan(values).all():
                count = int((~np.isnan(values)).sum())
                rows.append((*key, measure, *cells(resampling.mean(values, bounds)), count))
    return pl.DataFrame(rows, schema=STEERED, orient="row")
