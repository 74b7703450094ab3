"""How often words occur in blocks of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from saeflow.corpora.tokens import TokenBlocks


def occurrences(
    words: Sequence[str], blocks: TokenBlocks, decode: Callable[[Sequence[int]], str]
) -> Int64[np.ndarray, " blocks"]:
    """How often any of some words occurs in each block, as a whole word in any case.

    Args:
        words: at least one; several words with spaces between them are sought as they are.
        blocks: of the corpus.
        decode: the text of tokens.
    """
    alternatives = "|".join(re.escape(word) for word in words)
    pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)
    return np.array([len(pattern.findall(decode(block))) for block in blocks.tokens.tolist()])
