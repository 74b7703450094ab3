"""One question to a judging model, its answer, and the key under which the answer is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from saeflow.config.sections import Judge
from saeflow.decoding.completion import Completion

CHARACTERS_PER_TOKEN = 4.0  # where nobody counts tokens


class Template(Protocol):
    """One way of asking, and the answers that it allows."""

    @property
    def name(self) -> str:
        """With its version: answers are kept under it."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of an answer."""

    def messages(self, criterion: str, completions: Sequence[Completion]) -> list[dict[str, str]]:
        """The chat messages that ask for one answer."""

    def parse(self, content: str) -> int | str:
        """The answer in what the model wrote.

        Raises:
            ValueError: it holds none that is allowed.
        """


class AskedBy(NamedTuple):
    """Who has a model asked, as messages name it.

    Attributes:
        role: of the model.
        key: of the config's section that names it, with its `model` and `parameters`.
        length: the key that makes questions shorter.
    """

    role: str
    key: str
    length: str


JUDGING = AskedBy("judge", "steering.judge", "steering.completions.new_tokens")


class Inquiry(NamedTuple):
    """One question about one text, or about two."""

    template: Template
    criterion: str
    completions: tuple[Completion, ...]
    repeat: int = 0

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the judge is sent."""
        return self.template.messages(self.criterion, self.completions)

    @property
    def characters(self) -> int:
        """Length of what the judge is sent."""
        return sum(len(message["content"]) for message in self.messages)

    def identity(self, judge: Judge) -> dict[str, Any]:
        """All that the answer depends on."""
        texts = [completion.text for completion in self.completions]
        return {
            "judge": judge.model,
            "parameters": json.dumps(judge.sampling, sort_keys=True),
            "template": self.template.name,
            "criterion": self.criterion,
            "prompt": self.completions[0].prompt,
            "completion": texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False),
            "repeat": self.repeat,
        }

    def key(self, judge: Judge) -> str:
        """A hash of `identity`."""
        identity = json.dumps(self.identity(judge), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


class Answer(NamedTuple):
    """What a judging model answered, or the reason why there is no answer."""

    value: int | str | None
    reason: str | None
    attempts: int
    """Requests it took."""
    cached: bool = False
    """Whether it was known before."""


class Exchange(NamedTuple):
    """One request and what came of it."""

    value: int | str | None = None
    reason: str | None = None
    """Why there is no value."""
    again: bool = False
    """Whether the same request may be answered another time."""
    reached: bool = True
    """Whether the model itself had a word; else its verdict on the text is still unknown."""
    wait: float | None = None
    """Seconds that the endpoint asks all calls to wait (429); 0 where it does not say how long."""
    billed: bool = True
    """Whether it counts as a call: not if it was turned away."""
    raw: str | None = None
    """The answer as it came."""
    model: str | None = None
    """The model as it names itself."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
