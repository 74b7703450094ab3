"""What the rules of comparisons say of a study."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.diffing import base, compared
from saeflow.analyses.diffing.prompts import drawn_prompts
from saeflow.analyses.diffing.settings import Diffing
from saeflow.artifacts import sha256
from saeflow.config.embedded import EMBEDDED
from saeflow.errors import SaeflowError
from saeflow.workflow import Workflow, repeated


class PromptFile:
    """The prompts on which causes are measured, read before any job; their file is no input but a
    param, as settings are: what it says is a trigger, and where it lies and how old it is is none.

    Raises:
        SaeflowError: they cannot be read, or models have different tokenizers.
    """

    def __init__(self, flow: Workflow[Study], own: Diffing) -> None:
        check_tokenizers(flow, own)
        asked = own.causal.prompts
        self._file = Path(flow.sought(asked.path)) if asked and asked.path else None
        if asked:
            drawn_prompts(asked, self._file, flow.study.seed)

    def options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: where the file lies, as the command's options."""
        return repeated("--prompts", [self._file] if self._file else [])

    def said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what it says."""
        return sha256(self._file) if self._file else hashlib.sha256(b"").hexdigest()


READS = PromptFile


def check_tokenizers(flow: Workflow[Study], own: Diffing) -> None:
    """Refuse models whose tokenizers are on this machine and differ: what one reads is not what the
    other reads. The text is in the tokens of the study's own model.

    Raises:
        SaeflowError: which models.
    """
    others, first = compared(flow.study, own), base(flow.study, own)
    of_text = flow.study.model.name
    pairs = [(first, name) for name in others]
    pairs += [(of_text, name) for name in (first, *others) if first != of_text]
    for first, name in pairs:
        words, theirs = _vocabulary(flow.study, first), _vocabulary(flow.study, name)
        if words and theirs and any(theirs.get(word) != token for word, token in words.items()):
            raise SaeflowError(
                f"diffing.models: '{first}' and '{name}' have different tokenizers; compare models "
                "that share one, or leave one out of diffing.models"
            )


def models_of_pair(flow: Workflow[Study], pair: str, suffix: str = "") -> list[Any]:
    """The folders of the models of two SAEs that are matched, the base's first, or what they end in
    with a suffix."""
    study = flow.study
    read = [study.sources_of(sae)[0].model for sae in _pairs(study)[pair]]
    return [flow.located(f"models/{model}{suffix}") for model in read]


def saes_of_pair(flow: Workflow[Study], pair: str) -> list[Any]:
    """The files of two SAEs that are matched."""
    return [flow.located(f"saes/{sae}/sae_weights.safetensors") for sae in _pairs(flow.study)[pair]]


def sae_options(files: Sequence[str]) -> list[str]:
    """The options ``--sae``, from these files."""
    return repeated("--sae", [str(Path(file).parent) for file in files])


def _pairs(study: Study) -> dict[str, list[str]]:
    assert study.diffing is not None, "a study that asks for it"
    return study.diffing.matching.pairs


def _vocabulary(study: Study, name: str) -> dict[str, int]:
    """The tokens of a model that is on this machine; none of any other."""
    from tokenizers import Tokenizer

    origin = study.origin_of(name)
    folder = EMBEDDED if origin.train else Path(origin.path or "")
    file = folder / "tokenizer.json"
    if (origin.path is None and not origin.train) or not file.is_file():
        return {}
    words: dict[str, int] = Tokenizer.from_file(str(file)).get_vocab()
    return words
