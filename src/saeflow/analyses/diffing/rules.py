"""What the rules of comparisons say of a study."""

from __future__ import annotations

from pathlib import Path

from saeflow.analyses import Study
from saeflow.analyses.diffing import base, compared
from saeflow.analyses.diffing.settings import Diffing
from saeflow.config.embedded import EMBEDDED
from saeflow.errors import SaeflowError
from saeflow.workflow import Workflow


def check_tokenizers(flow: Workflow[Study], own: Diffing) -> None:
    """Refuse models whose tokenizers are on this machine and differ: what one reads is not what the
    other reads.

    Raises:
        SaeflowError: which models.
    """
    first = base(flow.study, own)
    words = _vocabulary(flow.study, first)
    for name in compared(flow.study, own):
        theirs = _vocabulary(flow.study, name)
        if words and theirs and any(theirs.get(word) != token for word, token in words.items()):
            raise SaeflowError(
                f"diffing.models: '{first}' and '{name}' have different tokenizers; compare models "
                "that share one, or leave one out of diffing.models"
            )


READS = check_tokenizers


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
