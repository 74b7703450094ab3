"""Prompts that show a task by examples, and prompts that do not, as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from saeflow.analyses.tasks.lists import check_shots
from saeflow.analyses.tasks.settings import parted
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.analyses.tasks.lists import Pair
    from saeflow.analyses.tasks.settings import TaskPrompts
    from saeflow.models.language_model import LanguageModel

PLACES = ("input", "separator", "output")
"""Of an example, its last token each, where it is told which latents fire."""


class Question(NamedTuple):
    """A prompt with what is right behind it.

    Attributes:
        tokens: BOS among them, up to the separator's last token.
        answer: the tokens that count of what is right.
        whole: how many tokens the right output has.
    """

    tokens: list[int]
    answer: list[int]
    whole: int


class Shown(NamedTuple):
    """Pairs that a prompt shows, the last without its output."""

    examples: list[Pair]
    asked: Pair


def text_of(shown: Shown, prompts: TaskPrompts, template: str) -> str:
    """The text of a prompt, up to the separator."""
    opening, separator, blanks, closing = parted(template)
    examples = (
        f"{opening}{pair.input}{separator}{blanks}{pair.output}{closing}" for pair in shown.examples
    )
    return f"{prompts.before}{''.join(examples)}{opening}{shown.asked.input}{separator}"


def question(
    lm: LanguageModel, shown: Shown, prompts: TaskPrompts, template: str, task: str
) -> Question:
    """A prompt and its right output as tokens.

    Raises:
        SaeflowError: a token spans the separator's end, the model has no tokens for the input or
            the output, or the prompt is longer than the model's context.
    """
    text = text_of(shown, prompts, template)
    unknown = lm.tokenizer.unk_token_id
    if unknown is not None and unknown in lm.tokenize(shown.asked.input, bos=False):
        raise SaeflowError(
            f"tasks: the model has no tokens for the input {shown.asked.input!r} of '{task}'; "
            "leave the pair out"
        )
    blanks = parted(template)[2]
    until, answer = tokens_behind(lm, text, blanks + shown.asked.output, task)
    if len(until) + len(answer) > lm.context:
        raise SaeflowError(
            f"tasks: a prompt of '{task}' has {len(until)} tokens, and the model reads "
            f"{lm.context}; set fewer tasks.prompts.shots"
        )
    return Question(until, answer[: prompts.scored], len(answer))


def tokens_behind(
    lm: LanguageModel, text: str, more: str, task: str
) -> tuple[list[int], list[int]]:
    """The tokens of a text, and those of what follows it.

    Raises:
        SaeflowError: they cannot be told apart, or the model has no token for what follows.
    """
    until, tokens = lm.tokenize(text), lm.tokenize(text + more)
    if tokens[: len(until)] != until:
        raise SaeflowError(
            f"tasks: in {(text + more)[-60:]!r} of '{task}' a token of the model spans the end of "
            "the separator, where vectors are read; end the separator with another sign"
        )
    behind = tokens[len(until) :]
    if not behind or lm.tokenizer.unk_token_id in behind:
        raise SaeflowError(
            f"tasks: the model has no tokens for the output {more.strip()!r} of '{task}'; leave "
            "the pair out"
        )
    return until, behind


def check_answers(questions: Sequence[Question], task: str) -> None:
    """See that what counts of the answers differs.

    Raises:
        SaeflowError: it is the same for all.
    """
    if len({tuple(each.answer) for each in questions}) < 2:
        raise SaeflowError(
            f"tasks.prompts.scored: the first {len(questions[0].answer)} tokens of all outputs of "
            f"'{task}' are the same, so that every answer counts as right; let more tokens count"
        )


def with_examples(
    asked: Sequence[Pair],
    pool: Sequence[Pair],
    shots: int,
    generator: np.random.Generator,
    exchanged: bool = False,
) -> list[Shown]:
    """Prompts with examples that are drawn anew for each, never the pair that is asked for.

    Args:
        asked: a pair per prompt.
        pool: which examples are drawn from.
        shots: examples of each.
        generator: of the draws.
        exchanged: whether each example has the output of the next one, so that outputs are as
            those of the task and say nothing of the inputs.

    Raises:
        SaeflowError: the pool is too small.
    """
    check_shots(pool, shots)
    prompts = []
    for pair in asked:
        others = [each for each in pool if each.input != pair.input]
        examples = [others[place] for place in generator.permutation(len(others))[:shots]]
        if exchanged:
            outputs = [each.output for each in examples]
            moved = outputs[1:] + outputs[:1]
            examples = [
                each._replace(output=output) for each, output in zip(examples, moved, strict=True)
            ]
        prompts.append(Shown(examples, pair))
    return prompts


def drawn_pairs(pool: Sequence[Pair], count: int, generator: np.random.Generator) -> list[Pair]:
    """So many pairs, each as often as another but for one."""
    order = [
        place for _ in range(-(-count // len(pool))) for place in generator.permutation(len(pool))
    ]
    return [pool[place] for place in order[:count]]


def places_of(
    lm: LanguageModel, shown: Shown, prompts: TaskPrompts, template: str, task: str
) -> tuple[list[int], dict[str, list[int]]]:
    """The tokens of a prompt, and where the parts of its examples end.

    Returns:
        Tokens; by part of `PLACES` the place of its last token in every example, and of the
        separator that of the pair that is asked for, too.
    """
    opening, separator, blanks, closing = parted(template)
    whole = text_of(shown, prompts, template)
    tokens = lm.tokenize(whole)
    places: dict[str, list[int]] = {part: [] for part in PLACES}
    text = prompts.before
    for number, pair in enumerate([*shown.examples, shown.asked]):
        is_example = number < len(shown.examples)
        written = (opening + pair.input, separator, blanks + pair.output)
        for part, more in zip(PLACES, written[: 3 if is_example else 2], strict=False):
            text += more
            until = lm.tokenize(text)
            if tokens[: len(until)] == until:  # else a token spans the end
                places[part].append(len(until) - 1)
            elif part == "separator":
                tokens_behind(lm, text, whole[len(text) :], task)
        text += closing
    return tokens, places
