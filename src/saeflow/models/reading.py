"""What a model holds of prompts at one position; prompts of one length at a time, so that none sees
padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.models.chat import places, prompt_text, template_length
from saeflow.models.running import capture, not_finite

if TYPE_CHECKING:
    from saeflow.config.sections import Message
    from saeflow.models.language_model import LanguageModel


class ReadPrompt(NamedTuple):
    """What a model holds of a prompt.

    Attributes:
        activations: at the position, by hook; float32, on the CPU. Of several tokens their mean.
        each: of each of the position's tokens, by hook; float32, on the model's device.
        tokens: of the prompt, BOS among them.
    """

    activations: dict[str, Float[Tensor, " d_model"]]
    each: dict[str, Float[Tensor, "pos d_model"]]
    tokens: list[int]


class ReadRows(NamedTuple):
    """What a model holds of some prompts of one length.

    Attributes:
        numbers: of the prompts.
        activations: at the tokens of the position, by hook; float32, on the model's device.
    """

    numbers: list[int]
    activations: dict[str, Float[Tensor, "rows pos d_model"]]


@torch.no_grad()
def read_rows(
    lm: LanguageModel,
    rows: Sequence[Sequence[int]],
    position: str,
    hooks: Sequence[str],
    behind: Sequence[int],
    tokens_at_once: int,
) -> Iterator[ReadRows]:
    """Read tokens up to the last hook.

    Args:
        lm: the model.
        rows: tokens of the prompts, BOS first.
        position: where each is read, as `saeflow.models.chat.places` has it; a prompt of BOS alone
            is read there.
        hooks: where the model is read.
        behind: how many tokens of each prompt a template put behind what is said.
        tokens_at_once: of prompts that are run together; with 1 they are run one by one, in their
            order, else the shortest first.
    """
    for batch in _batches(rows, tokens_at_once):
        length = len(rows[batch[0]])
        least = min(behind[number] for number in batch)
        where = torch.tensor(places(position, length, least) or [0], device=lm.device)
        tokens = torch.tensor([list(rows[number]) for number in batch], device=lm.device)
        seen = capture(lm, tokens, hooks)
        yield ReadRows(batch, {hook: tensor[:, where].float() for hook, tensor in seen.items()})


def _batches(rows: Sequence[Sequence[int]], tokens_at_once: int) -> Iterator[list[int]]:
    """Numbers of rows of one length."""
    if tokens_at_once <= 1:
        yield from ([number] for number in range(len(rows)))
        return
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: len(rows[number])):
        length = len(rows[number])
        full = batch and (len(batch) + 1) * length > max(tokens_at_once, length)
        if batch and (len(rows[batch[0]]) != length or full):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def read_at(
    lm: LanguageModel,
    prompts: Sequence[str | Sequence[Message]],
    position: str,
    hooks: Sequence[str],
    name: str,
) -> Iterator[ReadPrompt]:
    """Read prompts one by one, in their order.

    Args:
        lm: the model.
        prompts: text, or messages for its chat template.
        position: where each is read, as `saeflow.models.chat.places` has it.
        hooks: where the model is read.
        name: of the prompts, for messages.

    Raises:
        SaeflowError: a prompt is empty, or longer than the model's context, or what is read is NaN
            or infinite.
    """
    behind = template_length(lm.tokenizer)
    rows = [lm.tokenize(prompt_text(prompt, lm.tokenizer)) for prompt in prompts]
    for number, tokens in enumerate(rows):
        if not 2 <= len(tokens) <= lm.context:
            raise SaeflowError(
                f"{name}: text {number} has {len(tokens)} tokens, BOS among them; the model reads "
                f"2 to {lm.context}"
            )
    spoken = [0 if isinstance(prompt, str) else behind for prompt in prompts]
    for (number,), seen in read_rows(lm, rows, position, hooks, spoken, 1):
        each = {hook: tensor[0] for hook, tensor in seen.items()}
        means = {hook: tensor.mean(0).cpu() for hook, tensor in each.items()}
        for hook, mean in means.items():
            if not mean.isfinite().all():
                raise not_finite(lm, f"{name}: the activation at {hook}")
        yield ReadPrompt(means, each, rows[number])
