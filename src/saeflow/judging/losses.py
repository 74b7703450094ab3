"""The unsteered model's loss on completions, for judges that ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from saeflow.decoding.completion import Completion
from saeflow.judging.verdicts import Losses

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel


def model_losses(
    lm: LanguageModel, batch: int = 16, progress: Callable[[int, int], None] | None = None
) -> Losses:
    """Measure losses with a language model.

    Args:
        lm: the unsteered model.
        batch: completions per forward pass.
        progress: called with (done, total) after every pass.

    Returns:
        A function from completions to the mean loss per token of each continuation given BOS and
        prompt, in nats; NaN where no token of the continuation fits into the model's context.
    """

    def losses(completions: Sequence[Completion]) -> list[float]:
        rows = [continuation_tokens(lm, completion) for completion in completions]
        # Equal lengths together: little padding.
        order = sorted(range(len(rows)), key=lambda row: len(rows[row][0]))
        values = [math.nan] * len(rows)
        for first in range(0, len(order), batch):
            chunk = order[first : first + batch]
            for row, loss in zip(
                chunk, _mean_losses(lm, [rows[row] for row in chunk]), strict=True
            ):
                values[row] = loss
            if progress:
                progress(first + len(chunk), len(order))
        return values

    return losses


def continuation_tokens(lm: LanguageModel, completion: Completion) -> tuple[list[int], int]:
    """A completion's tokens within the context, and the index of the first that belongs to the
    continuation.

    They are those that the model read and drew. Only a text that no model drew is tokenised: a
    token that spans the end of the prompt then belongs to the continuation.
    """
    if completion.prompt_ids is not None and completion.continuation_ids is not None:
        tokens = [*completion.prompt_ids, *completion.continuation_ids]
        return tokens[: lm.context], len(completion.prompt_ids)
    text, prompt = (
        lm.tokenize(completion.text),
        list(completion.prompt_ids or lm.tokenize(completion.prompt)),
    )
    shared = 0
    while shared < min(len(text), len(prompt)) and text[shared] == prompt[shared]:
        shared += 1
    if completion.prompt_ids is not None and shared < len(
        prompt
    ):  # the prompt stays what the model read
        return [*prompt, *lm.tokenize(completion.continuation or "", bos=False)][: lm.context], len(
            prompt
        )
    return text[: lm.context], max(shared, 1)


def _mean_losses(lm: LanguageModel, rows: Sequence[tuple[list[int], int]]) -> list[float]:
    import torch

    from saeflow.models.running import final_states, next_token_losses

    width = max(len(tokens) for tokens, _ in rows)
    # Padding stands on the right, where a causal model's earlier positions do not see it.
    padded = torch.tensor(
        [tokens + [lm.bos_id] * (width - len(tokens)) for tokens, _ in rows], device=lm.device
    )
    losses = next_token_losses(lm, final_states(lm, padded), padded).double().cpu()
    # losses[:, i] is the loss of token i + 1
    return [
        float(losses[row, first - 1 : len(tokens) - 1].mean())
        for row, (tokens, first) in enumerate(rows)
    ]
