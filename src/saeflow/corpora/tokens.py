"""Tokens in blocks of equal length, each opened by BOS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from saeflow.errors import SaeflowError

SHORTEST = 8  # context of a block


class TokenBlocks(NamedTuple):
    """Blocks of tokens, with labels where the truth about the text is known.

    Attributes:
        tokens: every block opens with BOS.
        labels: per label (``topic``, ``syntax``) the class of every token.
        label_names: per label the names of its classes.
    """

    tokens: Int32[np.ndarray, "blocks pos"]
    labels: dict[str, UInt8[np.ndarray, "blocks pos"]]
    label_names: dict[str, list[str]]

    def part(self, which: Bool[np.ndarray, " blocks"]) -> TokenBlocks:
        """Some of the blocks."""
        labels = {name: values[which] for name, values in self.labels.items()}
        return TokenBlocks(self.tokens[which], labels, self.label_names)


def without_bos(tokens: Sequence[int], bos_id: int) -> list[int]:
    """Tokens without the BOS that they open with; those further on are left."""
    first = next((place for place, token in enumerate(tokens) if token != bos_id), len(tokens))
    return list(tokens[first:])


def pack(
    documents: Iterable[list[int]], context: int, bos_id: int, blocks: int, join: bool = True
) -> TokenBlocks:
    """Fill blocks with documents one after another, BOS between them and at the start of every
    block.

    A document that does not end with its block goes on in the next one. No block is padded, and no
    more documents are drawn than needed.

    Args:
        documents: token ids of each document, without BOS.
        context: tokens per block, BOS included.
        bos_id: the token that opens a block and stands between documents.
        blocks: how many blocks to fill.
        join: True lets documents share a block; False leaves out of each document what does not
            fill a block.

    Returns:
        TokenBlocks without labels, tokens ``[blocks, context]``.

    Raises:
        SaeflowError: the documents end before the blocks are full.
    """
    tokens = np.full((blocks, context), bos_id, dtype=np.int32)
    pending: list[int] = []
    filled, read, longest = 0, 0, 0
    for document in documents:
        if filled == blocks:
            break
        pending += [bos_id, *document] if pending else document
        read += len(document)
        longest = max(longest, len(document))
        whole = min(len(pending) // (context - 1), blocks - filled)
        taken = whole * (context - 1)
        tokens[filled : filled + whole, 1:] = np.reshape(pending[:taken], (whole, context - 1))
        pending = pending[taken:] if join else []
        filled += whole
    if filled < blocks:
        fill = f"corpus: holds {read} tokens, which fill {filled} of {blocks} blocks of {context}"
        raise SaeflowError(f"{fill}; {_more_blocks(read, longest, context, filled, join)}")
    return TokenBlocks(tokens, {}, {})


def _more_blocks(read: int, longest: int, context: int, filled: int, join: bool) -> str:
    """What to do where documents do not fill the blocks."""
    if filled:
        return f"give more text or lower corpus.tokens to at most {filled * context}"
    if not join and longest:
        shorter = f", or corpus.context to at most {longest + 1}" if longest + 1 >= SHORTEST else ""
        return (
            f"the longest document has {longest}, and none fills a block: set corpus.join: "
            f"true{shorter}"
        )
    shorter = f", or lower corpus.context to at most {read + 1}" if read >= SHORTEST - 1 else ""
    return f"give more text{shorter}"
