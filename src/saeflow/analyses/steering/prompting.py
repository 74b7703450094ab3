"""Methods that say in words what vectors are to do: an instruction, or examples.

Each puts something in front of every prompt, and the model goes on from that. Its completions are
scored as those of vectors are: as what follows the bare prompt, by the unsteered model's loss on
them behind the bare prompt. So an instruction may cost coherence, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import torch

from saeflow.analyses.steering.completions import complete
from saeflow.analyses.steering.schemas import PROMPTS_SCHEMA
from saeflow.config import Goal, Message
from saeflow.errors import SaeflowError
from saeflow.models.chat import prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from saeflow.analyses.steering.settings import Completions
    from saeflow.config.sections import Prompt
    from saeflow.models.language_model import LanguageModel

REQUEST = "Write a few words."
"""What the user asks for before each example in a chat, whatever the prompt asks for."""
SYSTEM = ("system", "developer")


class Words(NamedTuple):
    """What a method says."""

    instruction: str = ""
    """For the system message."""
    examples: Sequence[str] = ()
    """Texts that show the behaviour."""

    @property
    def text(self) -> str:
        """What stands in front of plain text, with an empty line behind it."""
        return "\n\n".join([*([self.instruction] if self.instruction else []), *self.examples, ""])


def words_of(method: str, goal: Goal, examples: int) -> Words:
    """What a method says of a goal.

    Args:
        method: ``prompt`` or ``few_shot``.
        goal: what its file says.
        examples: how many of its texts that show the behaviour, at most.
    """
    if method == "few_shot":
        return Words(examples=goal.positive[:examples])
    instruction = goal.instruction or f"Write so that this is true of your text: {goal.criterion}"
    return Words(instruction=instruction)


def with_words(prompt: Prompt, words: Words, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """A prompt with words in front of it.

    In a chat an instruction is the system message, or ends the one that is there; a template that
    takes none gets it at the head of the user's first message. Examples are answers of the
    assistant, before the first message that is no system message.
    """
    if isinstance(prompt, str):
        return words.text + prompt
    head = [message for message in prompt[:1] if message.role in SYSTEM]
    rest = prompt[len(head) :]
    examples = [
        message
        for text in words.examples
        for message in (
            Message(role="user", content=REQUEST),
            Message(role="assistant", content=text),
        )
    ]
    if not words.instruction:
        return [*head, *examples, *rest]
    said = "\n\n".join([*(message.content for message in head), words.instruction])
    with_system = [Message(role=head[0].role if head else "system", content=said), *rest]
    if _is_said(with_system, words.instruction, tokenizer):
        return with_system
    first, *later = rest
    return [*head, first.model_copy(update={"content": f"{said}\n\n{first.content}"}), *later]


def _is_said(
    messages: Sequence[Message], instruction: str, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Whether the template writes a system message, which some refuse and some pass over."""
    try:
        return instruction in prompt_text(messages, tokenizer)
    except SaeflowError:
        return False


def prompts_read(lm: LanguageModel, words: Words, settings: Completions) -> pl.DataFrame:
    """What the model reads in place of each prompt: the columns of
    `saeflow.analyses.steering.schemas.PROMPTS_SCHEMA`."""
    rows = {}
    for prompt in settings.prompts:
        bare = prompt_text(prompt, lm.tokenizer)
        given = prompt_text(with_words(prompt, words, lm.tokenizer), lm.tokenizer)
        rows[bare] = (bare, given, lm.tokenize(given))
    return pl.DataFrame(list(rows.values()), schema=PROMPTS_SCHEMA, orient="row")


def complete_in_words(
    lm: LanguageModel,
    hook: str,
    words: Words,
    settings: Completions,
    seed: int,
    goal: str,
    method: str,
) -> pl.DataFrame:
    """Write ``settings.samples`` completions of every prompt, bare and with words in front.

    Args:
        lm: the model.
        hook: any at which vectors are added; none is.
        words: what stands in front.
        settings: prompts, samples, new tokens, sampling; scales are not looked at.
        seed: of the study.
        goal: what the words ask for.
        method: that says them.

    Returns:
        The columns of `saeflow.analyses.steering.schemas.COMPLETIONS_SCHEMA`: the unsteered
        model's (scale 0), then those behind the words, whose scale is null; ``prompt`` and
        ``prompt_ids`` are the bare prompt's.

    Raises:
        SaeflowError: as `saeflow.analyses.steering.completions.complete`.
    """
    spoken = [with_words(prompt, words, lm.tokenizer) for prompt in settings.prompts]
    behind = settings.model_copy(update={"prompts": spoken})
    still = torch.zeros(lm.d_model)
    bare, written = (
        complete(lm, hook, still, [0.0], asked, seed, goal=goal, method=method)
        for asked in (settings, behind)
    )
    bare_of = dict(prompts_read(lm, words, settings).select("given", "prompt").iter_rows())
    back = [bare_of[given] for given in written["prompt"]]
    ids = {prompt: lm.tokenize(prompt) for prompt in bare_of.values()}
    written = written.with_columns(
        prompt=pl.Series(back, dtype=pl.String),
        prompt_ids=pl.Series([ids[prompt] for prompt in back], dtype=pl.List(pl.Int32)),
        scale=pl.lit(None, pl.Float64),
        scale_index=pl.lit(1, pl.Int64),
    ).with_columns(text=pl.col("prompt") + pl.col("continuation"))
    return pl.concat([bare, written])
