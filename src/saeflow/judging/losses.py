"""The unsteered model's loss on completions, for judges that ask for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from saeflow.decoding.completion import Completion
from saeflow.judging.verdicts import Losses

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

Row = tuple[list[int], int]
"""Tokens, and the index of the first that belongs to the continuation."""
LONG_PROMPT = 16
"""Tokens: as long as what a model writes after it, as a rule, or longer. Messages through a chat
template are; a few words are cheaper run along."""


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
        values, done = [math.nan] * len(rows), 0
        for chunk in alike(lm, rows, batch):
            for row, loss in zip(
                chunk, _mean_losses(lm, [rows[row] for row in chunk]), strict=True
            ):
                values[row] = loss
            done += len(chunk)
            if progress:
                progress(done, len(rows))
        return values

    return losses


def continuation_tokens(lm: LanguageModel, completion: Completion) -> Row:
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


def alike(lm: LanguageModel, rows: Sequence[Row], batch: int) -> Iterator[list[int]]:
    """Rows by their numbers, so many at a time: equal lengths together, which is little padding,
    and such as share a long prompt apart from others, since it is run once for all of them."""

    def order(row: int) -> tuple[list[int], int]:
        return shared_prompt(lm, rows[row]), len(rows[row][0])

    for _, group in groupby(sorted(range(len(rows)), key=order), key=lambda row: order(row)[0]):
        numbers = list(group)
        yield from (numbers[first : first + batch] for first in range(0, len(numbers), batch))


def shared_prompt(lm: LanguageModel, row: Row) -> list[int]:
    """A prompt that is worth running once for all of its continuations; none where it is short, or
    where the model's own library cannot go on from it."""
    tokens, first = row
    shares = first >= LONG_PROMPT and not (lm.keeps_states or lm.family.adapted)
    return tokens[:first] if shares and len(tokens) > first else []


def _mean_losses(lm: LanguageModel, rows: Sequence[Row]) -> list[float]:
    """Of rows that `alike` put together."""
    import torch

    from saeflow.models.running import final_states, next_token_losses, padded, states_after

    if prompt := shared_prompt(lm, rows[0]):
        shared = len(prompt) - 1  # the last token of the prompt predicts the first that follows
        text = padded(lm, [tokens[shared:] for tokens, _ in rows])
        prompts = torch.tensor([prompt], device=lm.device)
        states = states_after(lm, prompts, torch.zeros_like(text[:, 0]), text[:, 1:])
    else:
        shared, text = 0, padded(lm, [tokens for tokens, _ in rows])
        states = final_states(lm, text)
    losses = next_token_losses(lm, states, text).double().cpu()
    # losses[:, i] is the loss of token shared + i + 1
    return [
        float(losses[row, first - shared - 1 : len(tokens) - shared - 1].mean())
        for row, (tokens, first) in enumerate(rows)
    ]
