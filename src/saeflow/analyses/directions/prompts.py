"""The prompts of a study of directions: their classes, their splits, and as what models read
them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from saeflow.analyses.directions.settings import DirectionPrompts, DirectionSources
from saeflow.config.sections import Message, Prompt
from saeflow.corpora.labelled import read_labelled, split_by_group
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

LEAST = {"train": 8, "validation": 4, "test": 8}
"""Prompts of a class in a split, below which nothing is told."""


@dataclass(frozen=True)
class AskedPrompts:
    """Prompts in the order of their file.

    Attributes:
        prompts: as models read them: text, or messages.
        classes: of each.
        splits: of each: train, validation or test.
        groups: of each; those of one group are in one split.
    """

    prompts: list[Prompt]
    classes: list[str]
    splits: list[str]
    groups: Int64[np.ndarray, " prompts"]

    def numbers(self, label: str, split: str) -> list[int]:
        """Which are of one class in one split."""
        pairs = zip(self.classes, self.splits, strict=True)
        return [number for number, pair in enumerate(pairs) if pair == (label, split)]


def read_prompts(
    asked: DirectionPrompts, sources: DirectionSources, file: Path | None, seed: int
) -> AskedPrompts:
    """Read the prompts and split them, by group and class.

    Args:
        asked: which prompts.
        sources: what directions are made of.
        file: where the file of the prompts lies; None where the config holds them.
        seed: of the study.

    Raises:
        SaeflowError: the file cannot be read, a class is absent, or a split has too few prompts of
            a class that something is made of or measured on.
    """
    texts = read_labelled(asked, "directions.prompts", file)
    held_out = split_by_group(texts, asked.test, seed, "test")
    rest = texts.part(held_out.train)
    share = asked.validation / (1 - asked.test)
    chosen = split_by_group(rest, share, seed, "validation")
    splits = np.full(len(texts), "train", dtype=object)
    splits[held_out.test] = "test"
    splits[held_out.train[chosen.test]] = "validation"
    classes = [texts.classes[int(target)] for target in texts.targets]
    made_of = {asked.with_it, asked.without_it} | {
        label
        for source in sources.contrast.values()
        for label in (source.with_it, source.without_it)
        if label
    }
    made_of |= {each.with_it for each in sources.difference_of_models.values() if each.with_it}
    if asked.lookalike and asked.lookalike not in made_of:
        splits[[label == asked.lookalike for label in classes]] = "test"
    prompts = [as_asked(prompt, asked) for prompt in texts.prompts]
    result = AskedPrompts(prompts, classes, splits.tolist(), texts.groups)
    _check(result, made_of, asked)
    return result


def as_asked(prompt: str | Sequence[Message], settings: DirectionPrompts) -> Prompt:
    """A prompt as models read it."""
    if isinstance(prompt, str) and settings.speaker == "user":
        return [Message(role="user", content=prompt)]
    return prompt if isinstance(prompt, str) else list(prompt)


def _check(prompts: AskedPrompts, made_of: set[str], settings: DirectionPrompts) -> None:
    there = list(dict.fromkeys(prompts.classes))
    for label in sorted({*made_of, *filter(None, [settings.lookalike])}):
        if label not in there:
            raise SaeflowError(
                f"directions.prompts: no prompt is of the class '{label}'; there are "
                f"{', '.join(there)}"
            )
        for split, least in LEAST.items():
            if label not in made_of and split != "test":
                continue
            if (count := len(prompts.numbers(label, split))) < least:
                total = prompts.classes.count(label)
                raise SaeflowError(
                    f"directions.prompts: has {total} prompts of the class '{label}', {count} of "
                    f"them for {split}, and {least} are the least; add prompts of other groups, "
                    "or change validation and test"
                )


def token_rows(lm: LanguageModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The tokens of prompts, BOS first.

    Raises:
        SaeflowError: the model has no chat template for messages.
    """
    from saeflow.models.chat import prompt_text

    return [lm.tokenize(prompt_text(prompt, lm.tokenizer)) for prompt in prompts]


def token_positions(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    rows: Sequence[Sequence[int]],
    names: Sequence[str] | None,
) -> tuple[list[str], Int64[np.ndarray, "prompts positions"]]:
    """The positions of candidates, and which token of each prompt they are.

    Args:
        lm: the model.
        prompts: text or messages.
        rows: their tokens.
        names: the positions asked for; None: all tokens of the template, or of texts those in
            which all of them end, or the last where there are none.

    Raises:
        SaeflowError: a position does not exist, or names several tokens.
    """
    from saeflow.models.chat import places, shared_end, template_length

    ends = shared_end(rows)
    written = [not isinstance(prompt, str) for prompt in prompts]
    template = min(template_length(lm.tokenizer), ends) if all(written) else ends
    template = min(template, min(len(row) for row in rows) - 1)
    wanted = names or [f"template[-{number}]" for number in range(template, 0, -1)] or ["last"]
    if "all" in wanted:
        raise SaeflowError(
            "directions.selection.positions: 'all' names many tokens of a prompt; name single ones"
        )
    columns = [[places(name, len(row), template)[0] for name in wanted] for row in rows]
    return list(wanted), np.array(columns)
