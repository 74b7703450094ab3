"""The tokens of a tokenizer as the text they stand for, whatever way the tokenizer marks spaces and
bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKED = 0.01  # share of tokens that carry a mark where the tokenizer uses it
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary(NamedTuple):
    """The tokens that a tokenizer knows and a model has a row for.

    Attributes:
        ids: token ids, increasing.
        texts: per token its text. A token that opens a word begins with a space; bytes that are no
            whole character are written as ``\\xe2``.
        special: which of them are special tokens; those keep their names.
        marks_space: whether tokens tell if a space stands before them.
    """

    ids: Int32[np.ndarray, " tokens"]
    texts: list[str]
    special: Bool[np.ndarray, " tokens"]
    marks_space: bool = False


def vocabulary(tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Byte-level tokenizers (GPT-2, Llama 3, Qwen), SentencePiece (Llama 2, Gemma, Mistral) and
    WordPiece (BERT) are told apart by the marks that their tokens carry; tokens of any other are
    taken as they are.

    Args:
        tokenizer: any of `transformers`.
        d_vocab: rows of the model's unembedding; ids beyond it are left out, and so are rows
            without a token.
    """
    entries = sorted(
        (index, token) for token, index in tokenizer.get_vocab().items() if index < d_vocab
    )
    tokens = [token for _, token in entries]
    ids = np.array([index for index, _ in entries], dtype=np.int32)
    special = np.isin(ids, tokenizer.all_special_ids)
    added = tokenizer.get_added_vocab()
    read, marks = _reader(tokens)
    texts = [token if token in added else read(token) for token in tokens]
    return Vocabulary(ids, texts, special, marks)


def _reader(tokens: list[str]) -> tuple[Callable[[str], str], bool]:
    """The function from a token to its text, and whether tokens mark spaces."""
    enough = max(1.0, _MARKED * len(tokens))
    if sum(token.startswith("Ġ") for token in tokens) >= enough:
        return _byte_level, True
    if sum("▁" in token for token in tokens) >= enough:
        return _sentence_piece, True
    if sum(token.startswith("##") for token in tokens) >= enough:
        return _word_piece, True
    return _as_it_is, False


def _as_it_is(token: str) -> str:
    return token


def _byte_level(token: str) -> str:
    if not all(letter in _BYTES for letter in token):
        return token
    return bytes(_BYTES[letter] for letter in token).decode("utf-8", errors="backslashreplace")


def _sentence_piece(token: str) -> str:
    if byte := _BYTE.fullmatch(token):
        return bytes.fromhex(byte[1]).decode("utf-8", errors="backslashreplace")
    return token.replace("▁", " ")


def _word_piece(token: str) -> str:
    return token.removeprefix("##") if token.startswith("##") else f" {token}"


def _byte_alphabet() -> dict[str, int]:
    """The letters that byte-level tokenizers write bytes with: printable ones as they are, the
    others from 256 on.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", the released
        encoder.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


_BYTES = _byte_alphabet()
