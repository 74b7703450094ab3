"""What tuning changed in a model: how its answers begin, how likely the taught ones are, and how
well it still predicts other text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from saeflow.config.pairs import Pair
from saeflow.config.sections import Tuning
from saeflow.decoding.answers import greedy_answers
from saeflow.judging.phrases import says
from saeflow.models.chat import continuation_text
from saeflow.models.evaluation import block_losses
from saeflow.models.tuning import answer_loss, answered, split_pairs
from saeflow.seeds import numpy_generator
from saeflow.statistics.clusters import POSITIVE, SHARE, Mean, Resampling, cells

if TYPE_CHECKING:
    from jaxtyping import Int

    from saeflow.models.language_model import LanguageModel

TUNING_SCHEMA = {
    "model": pl.String,
    "measure": pl.String,
    "label": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
}
LEVEL, DRAWS = 0.95, 2_000


def tuning_rows(
    lm: LanguageModel,
    name: str,
    settings: Tuning,
    pairs: Sequence[Pair],
    blocks: Int[np.ndarray, "blocks pos"],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """What one model, tuned or not, does with pairs that were held out and with other text.

    Args:
        lm: the model.
        name: its name.
        settings: of the tuning.
        pairs: all of them.
        blocks: of text that has nothing to do with the pairs.
        seed: the study's.
        progress: called with (prompts answered, prompts).

    Returns:
        The columns of `TUNING_SCHEMA`: ``phrases``, the share of greedy answers that begin with
        one; ``answer_loss`` of the taught answers, nats per token, the mean over answers;
        ``text_loss`` of the text, nats per token, its interval over blocks.
    """
    held_out = split_pairs(pairs, settings.held_out, seed).held_out
    rows = [answered(lm, pair) for pair in held_out]
    with torch.no_grad():
        losses = np.array([answer_loss(lm, [row]).item() for row in rows])
    said = np.full(len(rows), np.nan)
    if settings.phrases:
        prompts = [row.tokens[: row.first] for row in rows]
        answers = greedy_answers(lm, prompts, settings.new_tokens, progress)
        texts = (
            continuation_text(lm.tokenizer, prompt, answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        )
        said = np.array([float(says(text, settings.phrases)) for text in texts])
    labels = np.array([pair.label for pair in held_out])

    def measured() -> Iterator[tuple[str, str | None, Mean, int]]:
        for label in dict.fromkeys(labels.tolist()):
            own = labels == label
            if settings.phrases:
                yield "phrases", label, _mean(said[own], seed, SHARE), int(own.sum())
            yield "answer_loss", label, _mean(losses[own], seed, POSITIVE), int(own.sum())
        of_blocks = block_losses(lm, blocks).mean(axis=1)
        yield "text_loss", None, _mean(of_blocks, seed, POSITIVE), len(of_blocks)

    return pl.DataFrame(
        [(name, measure, label, *cells(mean), n) for measure, label, mean, n in measured()],
        schema=TUNING_SCHEMA,
        orient="row",
    )


def _mean(values: np.ndarray, seed: int, bounds: tuple[float, float]) -> Mean:
    generator = numpy_generator(seed, "tuning", "intervals")
    return Resampling(np.arange(len(values)), DRAWS, LEVEL, generator).mean(values, bounds)
