"""Chat models: prompts as messages through the template, one BOS, and the tokens that end a text or
a turn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from saeflow.corpora.templates import rendered
from saeflow.corpora.tokens import without_bos
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from saeflow.config.sections import Message

ANSWER = (
    "Zqx"  # stands for what an assistant says where only the template's own marks are of interest
)

UNLIKE = ("Zqx", "apples and pears", "7")
"""What users may say that has no token in common."""


def with_one_bos(tokens: Sequence[int], bos_id: int) -> list[int]:
    """Tokens that open with BOS once, whether it stood there, as templates write it, or not."""
    return [bos_id, *without_bos(tokens, bos_id)]


def prompt_text(prompt: str | Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """A prompt as the model reads it: text as it is, messages as the model's chat template writes
    them.

    The template opens the assistant's turn; where the last message is the assistant's own, it is
    left open instead.

    Args:
        prompt: text or messages.
        tokenizer: of the model.

    Raises:
        SaeflowError: the model has no template, or the template refuses the messages.
    """
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        raise SaeflowError(
            "prompts: there are messages among them and the model's tokenizer has no chat "
            "template; write them as text, or put chat_template.jinja into the model's folder"
        )
    open_turn = prompt[-1].role == "assistant"
    return _written(
        tokenizer, prompt, add_generation_prompt=not open_turn, continue_final_message=open_turn
    )


def whole_text(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """A whole conversation, whose last turn is closed, as the chat template writes it; raises as
    `prompt_text` does."""
    return _written(tokenizer, messages)


def _written(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], **choices: bool
) -> str:
    try:
        return rendered(tokenizer, [message.model_dump() for message in messages], **choices)
    except Exception as error:  # a template is a program, and may raise whatever it likes
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SaeflowError(
            f"prompts: the model's chat template refuses the messages ({reason}); change them"
        ) from None


def template_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the chat template writes behind what a user says, up to where the answer
    begins: what `template[-1]`, `template[-2]`, … name.

    Args:
        tokenizer: of the model; 0 where it has no template, or one that takes no user's message.
    """
    if not getattr(tokenizer, "chat_template", None):
        return 0
    try:
        prompts = [
            rendered(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
            for text in UNLIKE
        ]
    except Exception:  # as above
        return 0
    # A tokenizer that knows none of these words ends them all in one token, and a template's text
    # alone may be tokenised with one more: the smaller number is the template's.
    behind = prompts[0].rpartition(UNLIKE[0])[2]
    first, *others = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (behind, *prompts)
    )
    return min(len(first), shared_end(others))


def shared_end(prompts: Sequence[Sequence[int]]) -> int:
    """With how many tokens all prompts end alike.

    Of messages these are the chat template's own; of texts, words that all of them end in.
    """
    columns = zip(*(reversed(prompt) for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))


def places(position: str, length: int, template: int) -> list[int]:
    """Which tokens of a prompt a position names.

    Args:
        position: ``last``; ``all``, which is every token but BOS; ``template[-2]``, the last but
            one of the tokens behind what the user says.
        length: tokens of the prompt, BOS included.
        template: how many of them lie behind what the user says, from `template_length` or
            `shared_end`.

    Raises:
        SaeflowError: there are fewer such tokens, as in a model without a chat template.
    """
    if position == "last":
        return [length - 1]
    if position == "all":
        return list(range(1, length))
    number = int(position.removeprefix("template[-").removesuffix("]"))
    if number > template:
        has = f"only {template} tokens" if template else "no tokens of a chat template"
        raise SaeflowError(
            f"positions: '{position}' does not exist; the prompts have {has} behind what the user "
            "says; name another, or last"
        )
    return [length - number]


def continuation_text(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], continuation: Sequence[int]
) -> str:
    """What a model's own tokens add to the text of a prompt, special tokens left out.

    It is what the whole says beyond what the prompt alone says, both read from tokens: a tokenizer
    may write spaces only between tokens, and need not give a prompt back letter by letter.

    Args:
        tokenizer: of the model.
        prompt: token ids.
        continuation: token ids that were drawn.
    """
    start, whole = (
        tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for tokens in (list(prompt), [*prompt, *continuation])
    )
    shared = next(
        (place for place, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b),
        len(start),
    )
    return whole[shared:]


def end_ids(
    tokenizer: PreTrainedTokenizerBase, settings: GenerationConfig | None
) -> tuple[int, ...]:
    """The tokens after which a model has said what it had to say, in increasing order.

    Args:
        tokenizer: its end of a sequence counts, and what its chat template writes behind an
            assistant's message.
        settings: the model's own for generation; ``eos_token_id`` is one token or several.
    """
    named = getattr(settings, "eos_token_id", None)
    ends = set(named if isinstance(named, (list, tuple)) else [named])
    ends |= {tokenizer.eos_token_id, _end_of_turn(tokenizer)}
    return tuple(sorted(int(token) for token in ends if token is not None))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template writes right behind what the assistant says, if it
    does."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": ANSWER}]
    try:
        behind = rendered(tokenizer, messages).rpartition(ANSWER)[2].lstrip()
    except Exception:  # a template that takes no such conversation names no end
        return None
    special = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    return next(
        (
            special[text]
            for text in sorted(special, key=len, reverse=True)
            if behind.startswith(text)
        ),
        None,
    )
