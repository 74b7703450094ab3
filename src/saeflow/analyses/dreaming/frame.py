"""Where a dreamed prompt stands: the fixed tokens on either side, and which tokens it may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from saeflow.config.sections import Message
from saeflow.corpora.tokens import without_bos
from saeflow.errors import SaeflowError
from saeflow.models.chat import prompt_text
from saeflow.models.vocabulary import vocabulary

if TYPE_CHECKING:
    from saeflow.analyses.dreaming.settings import DreamFrame
    from saeflow.models.language_model import LanguageModel

_MARK = "Zqx"
"""Stands for the dreamed prompt while the chat template writes what is around it."""


class Frame(NamedTuple):
    """The fixed tokens around a dreamed prompt."""

    before: list[int]
    """BOS first, where there is one."""
    after: list[int]


def frame_of(lm: LanguageModel, asked: DreamFrame) -> Frame:
    """The tokens around a dreamed prompt.

    Raises:
        SaeflowError: the model has no chat template, and a user is to speak; or its template
            changes what users say.
    """
    written = asked.before + _MARK + asked.after
    prompt = [Message(role="user", content=written)] if asked.speaker == "user" else written
    text = prompt_text(prompt, lm.tokenizer)
    before, mark, after = text.partition(_MARK)
    if not mark:
        raise SaeflowError(
            "dreaming.frame.speaker: the chat template of this model changes what users say, so "
            "nothing can be dreamed in it; set nobody"
        )
    opening = lm.tokenize(before, bos=False)
    return Frame([*([lm.bos_id] if asked.bos else []), *opening], lm.tokenize(after, bos=False))


def alphabet(lm: LanguageModel, asked: DreamFrame) -> Int64[np.ndarray, " tokens"]:
    """The tokens that a dreamed prompt may hold, increasing: no special tokens, and no parts of
    characters.

    Raises:
        SaeflowError: fewer than two are left, or a text that is asked for is no token.
    """
    held = vocabulary(lm.tokenizer, lm.d_vocab)
    if asked.only is not None:
        by_text = dict(zip(held.texts, held.ids.tolist(), strict=True))
        if absent := [text for text in asked.only if text not in by_text]:
            raise SaeflowError(f"dreaming.frame.only: {absent[0]!r} is no token of this model")
        return np.unique(np.array([by_text[text] for text in asked.only], dtype=np.int64))
    fits = [_fits(text, asked.tokens) for text in held.texts]
    kept = held.ids[np.array(fits, dtype=bool) & ~held.special].astype(np.int64)
    if unknown := lm.tokenizer.unk_token_id:
        kept = kept[kept != unknown]
    if len(kept) < 2:
        raise SaeflowError(f"dreaming.frame.tokens: this model has no '{asked.tokens}' tokens")
    return kept


def _fits(text: str, kind: str) -> bool:
    if not text or "\\x" in text or "\ufffd" in text:
        return False
    if kind == "words":
        return text.strip().isalpha()
    return kind == "any" or (text.isascii() and text.isprintable())


class Reader:
    """From tokens of dreamed prompts to text, and back.

    Args:
        lm: the model.
        frame: around the prompts.
    """

    def __init__(self, lm: LanguageModel, frame: Frame) -> None:
        self._lm, self._frame = lm, frame
        self._opening = len(self._decoded([frame.before])[0])

    def reads_back(self, prompts: Sequence[Sequence[int]]) -> Bool[np.ndarray, " prompts"]:
        """Whether the text of prompts, as a whole, is read as the tokens that they are."""
        return np.array(
            [
                list(read) == list(prompt)
                for read, prompt in zip(self.read(prompts), prompts, strict=True)
            ],
            dtype=bool,
        )

    def read(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """The tokens between the frame's own that the model reads in the text of prompts; where it
        does not read the frame as it is, all behind as many tokens as it has."""
        if not len(prompts):
            return []
        before, after = self._frame
        opening = len(without_bos(before, self._lm.bos_id))
        rows = self._lm.tokenizer(
            self._decoded([[*before, *prompt, *after] for prompt in prompts]),
            add_special_tokens=False,
            verbose=False,
        )["input_ids"]
        inside = []
        for row in rows:
            own = without_bos(row, self._lm.bos_id)
            ends = bool(after) and own[-len(after) :] == list(after)
            inside.append(own[opening : len(own) - len(after)] if ends else own[opening:])
        return inside

    def texts(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """The text of prompts without their frame."""
        opened = self._decoded([[*self._frame.before, *prompt] for prompt in prompts])
        return [text[self._opening :] for text in opened]

    def _decoded(self, rows: Sequence[Sequence[int]]) -> list[str]:
        bos = self._lm.bos_id
        return self._lm.tokenizer.batch_decode(
            [without_bos(row, bos) for row in rows],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
