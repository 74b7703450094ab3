"""The tokenizer of the grammar: one token per word or punctuation mark, spacing restored
exactly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from saeflow.corpora.tales.automaton import SPECIAL, automaton

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerFast

MARKS = ".,!?“”"
TOKEN = re.compile(rf"[{MARKS}]|[^\s{MARKS}]+")


def split_tokens(text: str) -> list[str]:
    """The tokens of a text as strings; what the tokenizer does, without loading it."""
    return TOKEN.findall(text)


def join_tokens(tokens: Iterable[str]) -> str:
    """The text of tokens: no space before a closing mark and after an opening quote."""
    text = " ".join(tokens)
    return re.sub(r" (?=[.,!?”])|(?<=“) ", "", text)


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer as `transformers` knows it; it does not add BOS by itself.

    Returns:
        A fast tokenizer with ``<bos>``, ``<unk>`` and ``<pad>``; ids are indices into
        `Automaton.words`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bos, unknown, padding = SPECIAL
    backend = Tokenizer(
        models.WordLevel({text: i for i, text in enumerate(automaton().words)}, unk_token=unknown)
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(f"[{MARKS}]"), behavior="isolated"),
        ]
    )
    # WordPiece puts a space before every token but the first and takes it away before . , ! and ?
    backend.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="\x00", cleanup=True),
            decoders.Fuse(),
            decoders.Replace(" ”", "”"),
            decoders.Replace("“ ", "“"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        unk_token=unknown,
        pad_token=padding,
        clean_up_tokenization_spaces=False,
    )
