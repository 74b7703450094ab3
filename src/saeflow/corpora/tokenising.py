"""Documents to a model's tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from saeflow.config.sections import Corpus
from saeflow.corpora.content import Document, Message
from saeflow.corpora.templates import rendered
from saeflow.corpora.tokens import without_bos
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AT_ONCE = 256  # documents tokenised together, which lets a fast tokenizer use its threads
_CUT = "\ufdd0"  # a place inside a text at which it is tokenised apart; no text holds this


def _texts_in(value: Any) -> Iterator[str]:
    """Every text in nested containers, but for names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(each)


class Reader:
    """Makes token ids of documents, and remembers what is to be told of them.

    Args:
        corpus: says whether control tokens that are written out are meant.
        tokenizer: of the model.
        bos_id: left out where a text opens with it.

    Attributes:
        documents: how many were read.
    """

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, bos_id: int) -> None:
        self.corpus, self.tokenizer, self.bos_id = corpus, tokenizer, bos_id
        added = getattr(tokenizer, "added_tokens_decoder", {})
        control = {number: token.content for number, token in added.items() if token.special}
        unknown = getattr(tokenizer, "unk_token_id", None)
        self.control_ids = set(control) - {unknown}
        spellings = sorted((re.escape(text) for text in control.values() if text), key=len)
        self.spelt = re.compile("|".join(reversed(spellings))) if spellings else None
        self.documents, self.spelling, self.example = 0, 0, ""
        self.taken_for = ""

    def tokens(self, documents: Iterator[Document]) -> Iterator[list[int]]:
        """The token ids of each document, without the BOS that it may open with."""
        while batch := list(islice(documents, _AT_ONCE)):
            self.documents += len(batch)
            texts = [self._as_text(document) for document in batch]
            plain = [text for text in texts if isinstance(text, str) and _CUT not in text]
            tokenised = iter(self._tokenised(plain) if plain else [])
            for text in texts:
                if isinstance(text, list):
                    ids = text
                else:
                    ids = self._apart(text) if _CUT in text else next(tokenised)
                yield ids if ids[:1] != [self.bos_id] else without_bos(ids, self.bos_id)

    def remarks(self) -> Iterator[str]:
        """What a user may not expect."""
        if self.taken_for and not self.corpus.names_fields:
            yield (
                f"corpus: there is no field 'text', so that {self.taken_for} are read; name the "
                "field to choose"
            )
        if self.spelling:
            yield (
                f"corpus: {self.spelling} of {self.documents} documents write control tokens out, "
                f"such as {self.example}, which are read as the letters that they are; "
                "corpus.control_tokens: true makes them control tokens"
            )

    def _as_text(self, document: Document) -> str | list[int]:
        """Text to tokenise, in which `_CUT` keeps what is no control token from becoming one; or
        ids."""
        if isinstance(document, str):
            return self._as_letters(document) if self._is_spelt(document) else document
        if all(isinstance(part, int) for part in document):
            self.taken_for = "token ids"
            ids = [part for part in document if isinstance(part, int)]
            if max(ids) >= len(self.tokenizer):
                raise SaeflowError(
                    f"corpus: a document holds the token id {max(ids)}, and the model's tokenizer "
                    f"has {len(self.tokenizer)} tokens; it was made with another tokenizer: give "
                    "its text"
                )
            return ids
        self.taken_for = "messages"
        return self._chat([part for part in document if isinstance(part, dict)])

    def _chat(self, messages: list[Message]) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise SaeflowError(
                "corpus.messages: the model's tokenizer has no chat template to write messages "
                "with; put chat_template.jinja into the model's folder, or name a field with text "
                "in corpus.field"
            )
        if any(self._is_spelt(text) for text in _texts_in(messages)):
            messages = self._cut_in(messages)
        try:
            return rendered(self.tokenizer, messages)
        except Exception as error:  # a template is a program, and may raise whatever it likes
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            roles = ", ".join(str(message["role"]) for message in messages[:6])
            raise SaeflowError(
                f"corpus.messages: the model's chat template refuses a chat of {roles} ({reason}); "
                "change or remove such chats"
            ) from None

    def _is_spelt(self, text: str) -> bool:
        """Whether a text writes a control token out that is not to become one."""
        if self.corpus.control_tokens or not self.spelt:
            return False
        first = self.spelt.search(text)
        if first:
            self.spelling += 1
            self.example = self.example or first[0]
        return first is not None

    def _as_letters(self, text: str) -> str | list[int]:
        """The ids of a text that no control token is taken for."""
        ids: list[int] = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        # A vocabulary may hold a control token as a word, too.
        return ids if self.control_ids.isdisjoint(ids) else self._cut(text)

    def _cut(self, text: str) -> str:
        """A text with a cut behind the first letter of every control token that it writes out."""
        assert self.spelt
        return self.spelt.sub(lambda match: f"{match[0][0]}{_CUT}{match[0][1:]}", text)

    def _cut_in(self, value: Any) -> Any:
        """What a message holds, with cuts in all its texts: of calls of tools and thoughts, too."""
        if isinstance(value, str):
            return self._cut(value)
        if isinstance(value, Mapping):
            return {name: self._cut_in(each) for name, each in value.items()}
        return [self._cut_in(each) for each in value] if isinstance(value, list) else value

    def _tokenised(self, texts: list[str]) -> list[list[int]]:
        ids = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        assert isinstance(ids, list)
        return ids

    def _apart(self, text: str) -> list[int]:
        return [token for ids in self._tokenised(text.split(_CUT)) for token in ids]
