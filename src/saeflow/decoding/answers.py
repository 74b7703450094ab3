"""The most probable answers to prompts of any lengths, also of a model with hooks attached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from saeflow.config.sections import Sampling
from saeflow.decoding.ending import lengths
from saeflow.decoding.generation import generate

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

GREEDY = Sampling(temperature=0.0)
AT_ONCE = 64
READ_AT = "blocks.0.hook_resid_post"  # nothing is read or edited there; `generate` names a hook


def greedy_answers(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """What the model says to each prompt, token by token the most probable; functions at hooks
    that are attached see prompts and answers alike.

    Args:
        lm: the model.
        prompts: token ids, BOS first.
        new_tokens: at most, of each.
        progress: called with (answers, prompts) after every batch.

    Returns:
        The tokens of each answer, without the token that ended it.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    done = 0
    for _, same in groupby(order, key=lambda number: len(prompts[number])):
        numbers = list(same)
        for first in range(0, len(numbers), AT_ONCE):
            chunk = numbers[first : first + AT_ONCE]
            rows = torch.tensor([list(prompts[number]) for number in chunk], device=lm.device)
            keys = np.zeros(len(chunk), dtype=np.uint64)  # greedy: no noise is drawn
            drawn = generate(lm, rows, None, READ_AT, GREEDY, keys, new_tokens)
            kept = lengths(drawn, lm.end_ids).tolist()
            for number, tokens, length in zip(chunk, drawn.tolist(), kept, strict=True):
                answers[number] = tokens[:length]
            done += len(chunk)
            if progress:
                progress(done, len(prompts))
    return answers
