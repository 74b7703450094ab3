"""What a model holds of prompts at one position, read one by one, so that none sees padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saeflow.errors import SaeflowError
from saeflow.models.chat import places, prompt_text, template_length
from saeflow.models.running import capture

if TYPE_CHECKING:
    from saeflow.config.sections import Message
    from saeflow.models.language_model import LanguageModel


class ReadPrompt(NamedTuple):
    """What a model holds of a prompt.

    Attributes:
        activations: at the position, by hook; float32, on the CPU. Of several tokens their mean.
        tokens: of the prompt, BOS among them.
    """

    activations: dict[str, Float[Tensor, " d_model"]]
    tokens: list[int]


def read_at(
    lm: LanguageModel,
    prompts: Sequence[str | Sequence[Message]],
    position: str,
    hooks: Sequence[str],
    name: str,
) -> Iterator[ReadPrompt]:
    """Read prompts up to the last hook.

    Args:
        lm: the model.
        prompts: text, or messages for its chat template.
        position: where each is read, as `saeflow.models.chat.places` has it.
        hooks: where the model is read.
        name: of the prompts, for messages.

    Raises:
        SaeflowError: a prompt is empty, or longer than the model's context.
    """
    behind = template_length(lm.tokenizer)
    for number, prompt in enumerate(prompts):
        tokens = lm.tokenize(prompt_text(prompt, lm.tokenizer))
        if not 2 <= len(tokens) <= lm.context:
            raise SaeflowError(
                f"{name}: text {number} has {len(tokens)} tokens, BOS among them; the model reads "
                f"2 to {lm.context}"
            )
        spoken = 0 if isinstance(prompt, str) else behind
        where = torch.tensor(places(position, len(tokens), spoken), device=lm.device)
        seen = capture(lm, torch.tensor([tokens], device=lm.device), hooks)
        held = {hook: seen[hook][0, where].float().mean(0).cpu() for hook in hooks}
        yield ReadPrompt(held, tokens)
