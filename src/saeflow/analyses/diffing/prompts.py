"""Prompts by class, and the tokens behind what the user says, where models begin their answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int64

from saeflow.analyses.diffing.settings import CausalPrompts
from saeflow.config.sections import Message
from saeflow.corpora.labelled import LabelledSet, read_labelled, without_repeats
from saeflow.errors import SaeflowError
from saeflow.seeds import numpy_generator

if TYPE_CHECKING:
    from saeflow.models.language_model import LanguageModel

KEY = "diffing.causal.prompts"


class AskedPrompts(NamedTuple):
    """Prompts as models read them.

    Attributes:
        tokens: padded with BOS on the right, where no earlier position sees it.
        names: of the positions, such as ``template[-1]``.
        places: which token of each prompt they are.
        classes: of each prompt.
        groups: of each prompt; those of one group are about one thing.
    """

    tokens: Int64[np.ndarray, "prompts pos"]
    names: list[str]
    places: Int64[np.ndarray, "prompts positions"]
    classes: list[str]
    groups: Int64[np.ndarray, " prompts"]


def drawn_prompts(settings: CausalPrompts, file: Path | None, seed: int) -> LabelledSet:
    """So many prompts of each class, drawn at random, each text once.

    Raises:
        SaeflowError: the file cannot be read, its rows have numbers in place of classes, or those
            of a class are of fewer than two groups.
    """
    texts = read_labelled(settings, KEY, file)
    if not texts.classes:
        raise SaeflowError(f"{KEY}: rows have numbers; name the column of their classes in label")
    texts = texts.part(without_repeats([repr(each) for each in texts.prompts], texts.targets).kept)
    order = numpy_generator(seed, "diffing", "prompts").permutation(len(texts))
    rows = [
        order[texts.targets[order] == place][: settings.each] for place in range(len(texts.classes))
    ]
    for name, own in zip(texts.classes, rows, strict=True):
        if (groups := len(np.unique(texts.groups[own]))) < 2:
            raise SaeflowError(
                f"{KEY}: {len(own)} different prompts of the class '{name}' are drawn, of {groups} "
                "groups, and intervals are over two at least; add prompts, or say in classes which "
                "are compared"
            )
    return texts.part(np.concatenate(rows))


def read_prompts(lm: LanguageModel, settings: CausalPrompts, drawn: LabelledSet) -> AskedPrompts:
    """The prompts as tokens, with the positions asked for.

    Raises:
        SaeflowError: a position does not exist or names several tokens, the model has no chat
            template for messages, or a prompt is longer than its context.
    """
    from saeflow.models.chat import places, prompt_text, shared_end, template_length
    from saeflow.models.running import check_length, padded

    spoken = [
        [Message(role="user", content=prompt)]
        if settings.speaker == "user" and isinstance(prompt, str)
        else prompt
        for prompt in drawn.prompts
    ]
    rows = [lm.tokenize(prompt_text(prompt, lm.tokenizer)) for prompt in spoken]
    check_length(lm, max(map(len, rows)))
    written = not any(isinstance(prompt, str) for prompt in spoken)
    behind = min(shared_end(rows), template_length(lm.tokenizer)) if written else 0
    names = list(settings.positions or [f"template[-{n}]" for n in range(behind, 0, -1)])
    names = names or ["last"]
    if "all" in names:
        raise SaeflowError(f"{KEY}.positions: 'all' names many tokens; name single ones")
    columns = [[places(name, len(row), behind)[0] for name in names] for row in rows]
    if any(len(set(row)) < len(row) for row in columns):
        raise SaeflowError(
            f"{KEY}.positions: two of {', '.join(names)} are one token; name it once"
        )
    classes = [drawn.classes[int(target)] for target in drawn.targets]
    tokens = padded(lm, rows).cpu().numpy()
    return AskedPrompts(tokens, names, np.array(columns), classes, drawn.groups)
