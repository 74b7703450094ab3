"""Questions about labels, to a model behind an endpoint or to the study's own model.

Both answer the same questions: a hosted model in words, through the ledger and the budget of the
judges; the study's own by the log-odds of Yes over No, by the number that it expects, or by what it
writes.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from transformers.cache_utils import DynamicCache

from saeflow.analyses.labels.prompts import AskingPrompts, Wordings
from saeflow.analyses.labels.wording import one_line
from saeflow.config.sections import Message, Sampling
from saeflow.decoding.answers import READ_AT, greedy_answers
from saeflow.decoding.completion import Completion
from saeflow.decoding.ending import lengths
from saeflow.decoding.generation import generate
from saeflow.endpoint.asking import ask
from saeflow.endpoint.inquiries import Answer, Inquiry
from saeflow.errors import SaeflowError
from saeflow.judging.templates import AS_DATA, answer_in, quoted
from saeflow.models.chat import continuation_text, prompt_text
from saeflow.models.running import check_length, padded, unembed
from saeflow.seeds import row_keys

if TYPE_CHECKING:
    from saeflow.endpoint.service import Service
    from saeflow.models.language_model import LanguageModel

ROWS_AT_ONCE = 64
FEWEST = 4
"""Tokens that an answer in words must have room for."""
MARKS, INTRUDER, EXPLANATION, PASSAGE = "marks", "intruder", "explanation", "passage"
STRENGTHS, STRONGEST = "strengths", 10
UNKNOWN = "no answer"
ALIKE = "the model's tokens do not tell the answers apart"
_BREAK = re.compile(r"[\r\n]+")


class Question(NamedTuple):
    """Passages, and what is asked about them by a label.

    Attributes:
        kind: a key of `AskingPrompts`.
        label: empty where there is none.
        passages: texts; of ``simulation``, the tokens of one passage.
        repeat: tells questions apart that are alike.
    """

    kind: str
    label: str
    passages: tuple[str, ...]
    repeat: int = 0


class Reply(NamedTuple):
    """An answer: a number per passage (of ``simulation``, per token) or one, or a text; or the
    reason why there is none."""

    values: tuple[float, ...] | None
    text: str | None = None
    reason: str | None = None


class Asker(Protocol):
    """Whoever answers questions about labels."""

    @property
    def name(self) -> str:
        """As provenance tells it."""

    def tell(self, questions: Sequence[Question]) -> list[Reply]:
        """An answer to every question, in their order."""


class LabelTemplate(NamedTuple):
    """A question to a hosted model, as `saeflow.endpoint.inquiries.Template` is."""

    name: str
    system: str
    field: str
    passages: int
    """How many there are."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of an answer."""
        mark: dict[str, Any] = {"type": "integer", "enum": [0, 1]}
        value: dict[str, Any] = {"type": "string"}
        if self.field == MARKS:
            marks = {"minItems": self.passages, "maxItems": self.passages}
            value = {"type": "array", "items": mark, **marks}
        elif self.field == INTRUDER:
            value = {"type": "integer", "minimum": 1, "maximum": self.passages}
        elif self.field == STRENGTHS:
            pair = {"items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
            value = {"type": "array", "items": {"type": "array", **pair}}
        return {
            "type": "object",
            "properties": {self.field: value},
            "required": [self.field],
            "additionalProperties": False,
        }

    def messages(self, criterion: str, completions: Sequence[Completion]) -> list[dict[str, str]]:
        """The system message, then label and passages, none of which can end its own quotation."""
        lines = ["Description:", quoted(criterion)] if criterion else []
        if self.field == STRENGTHS:
            tokens = (_BREAK.sub("⏎", completion.text) for completion in completions)
            listed = "\n".join(f"{number}. {token}" for number, token in enumerate(tokens, 1))
            lines += ["Tokens:", quoted(listed)]
            completions = ()
        for number, completion in enumerate(completions, 1):
            if completion.text:
                lines += [f"Passage {number}:", quoted(completion.text)]
        return [
            {"role": "system", "content": f"{self.system} {AS_DATA}"},
            {"role": "user", "content": "\n".join(lines)},
        ]

    def parse(self, content: str) -> int | str:
        """The answer: digits for marks, a number of a passage, a strength per token as JSON, or a
        line of text.

        Raises:
            ValueError: it is none of these, or of another number of passages.
        """
        value = answer_in(content, self.field)
        if self.field == MARKS:
            if not isinstance(value, list) or len(value) != self.passages:
                raise ValueError(f"the answer has not {self.passages} marks")
            if any(type(mark) is not int or mark not in (0, 1) for mark in value):
                raise ValueError("a mark is neither 0 nor 1")
            return "".join(map(str, value))
        if self.field == INTRUDER:
            if type(value) is not int or not 1 <= value <= self.passages:
                raise ValueError("the answer is the number of no passage")
            return value
        if self.field == STRENGTHS:
            return json.dumps(self._strengths(value))
        if not isinstance(value, str) or not (line := one_line(value)):
            raise ValueError("the answer is no text")
        return line

    def _strengths(self, value: Any) -> list[int]:
        """The strength of every token from pairs of some tokens' numbers and theirs."""
        strengths: dict[int, int] = {}
        for pair in value if isinstance(value, list) else [value]:
            if not isinstance(pair, list) or [type(number) for number in pair] != [int, int]:
                raise ValueError("the answer is no list of pairs of numbers")
            token, strength = pair
            if not 1 <= token <= self.passages or token in strengths:
                raise ValueError("the answer has the number of no token, or of one twice")
            if not 0 <= strength <= STRONGEST:
                raise ValueError(f"the answer has a strength that is not 0 to {STRONGEST}")
            strengths[token] = strength
        return [strengths.get(token, 0) for token in range(1, self.passages + 1)]


FIELDS = {
    "explanation": EXPLANATION,
    "detection": MARKS,
    "fuzzing": MARKS,
    "simulation": STRENGTHS,
    "intruder": INTRUDER,
    "generation": PASSAGE,
}


class HostedAsker:
    """A model behind an endpoint.

    Args:
        service: the model and the ledger of its answers.
        prompts: what it is asked.
        together: passages per question where each gets a mark.
    """

    def __init__(self, service: Service, prompts: AskingPrompts, together: int) -> None:
        self._service, self._prompts, self._together = service, prompts, together

    @property
    def name(self) -> str:
        return str(self._service.judge.model)

    def tell(self, questions: Sequence[Question]) -> list[Reply]:
        """All questions at once, so that the budget is told before the first."""
        inquiries = [self._inquiries(question) for question in questions]
        answers = iter(ask([each for own in inquiries for each in own], self._service))
        return [
            _reply(question, [(len(each.completions), next(answers)) for each in own])
            for question, own in zip(questions, inquiries, strict=True)
        ]

    def _inquiries(self, question: Question) -> list[Inquiry]:
        wording: Wordings = getattr(self._prompts, question.kind)
        field = FIELDS[question.kind]
        step = self._together if field == MARKS else max(len(question.passages), 1)
        inquiries = []
        for first in range(0, max(len(question.passages), 1), step):
            texts = question.passages[first : first + step] or ("",)
            name = f"labels-{question.kind}-{len(texts)}-{wording.digest}@1"
            template = LabelTemplate(name, wording.hosted, field, len(texts))
            shown = tuple(Completion("", text) for text in texts)
            inquiries.append(Inquiry(template, question.label, shown, question.repeat))
        return inquiries


def _reply(question: Question, parts: Sequence[tuple[int, Answer]]) -> Reply:
    """One answer of those to the parts of a question, each of so many passages; NaN where a part
    has none."""
    field = FIELDS[question.kind]
    reason = next((answer.reason for _, answer in parts if answer.value is None), None)
    if field != MARKS:
        value = parts[0][1].value
        if value is None:
            return Reply(None, None, reason or UNKNOWN)
        if field == STRENGTHS:
            return Reply(tuple(map(float, json.loads(str(value)))))
        return Reply((float(value),)) if field == INTRUDER else Reply(None, str(value))
    marks: list[float] = []
    for count, answer in parts:
        digits = str(answer.value) if answer.value is not None else None
        marks += [float(digit) for digit in digits] if digits else [float("nan")] * count
    return Reply(tuple(marks), None, reason)


class LocalAsker:
    """The study's own model.

    Args:
        lm: the model.
        prompts: what it is asked.
        seed: of what it writes.
        new_tokens: of a text that it writes.
    """

    def __init__(
        self, lm: LanguageModel, prompts: AskingPrompts, seed: int, new_tokens: int = 40
    ) -> None:
        self._lm, self._prompts, self._seed, self._new = lm, prompts, seed, new_tokens
        self._chats = bool(getattr(lm.tokenizer, "chat_template", None))
        self._progress: Callable[[int, int], None] | None = None

    @property
    def name(self) -> str:
        return "the study's model"

    def reporting(self, progress: Callable[[int, int], None]) -> LocalAsker:
        """The same, with someone who is told how many questions are answered."""
        self._progress = progress
        return self

    def tell(self, questions: Sequence[Question]) -> list[Reply]:
        """Question after question; passages of one question share what stands before them."""
        replies = []
        for number, question in enumerate(questions):
            replies.append(self._answer(question))
            if self._progress:
                self._progress(number + 1, len(questions))
        return replies

    def _answer(self, question: Question) -> Reply:
        wording: Wordings = getattr(self._prompts, question.kind)
        if question.kind in ("detection", "fuzzing"):
            asked = [wording.asked(question.label, text) for text in question.passages]
            return self._log_odds(asked)
        if question.kind == "intruder":
            return self._chosen(wording.asked("", "", _listed(question.passages)), question)
        if question.kind == "simulation":
            return self._expected(wording.asked(question.label, ""), question.passages)
        text = self._written(self._that_fits(wording, question), question)
        return Reply(None, text) if text else Reply(None, None, "the model wrote nothing")

    def _that_fits(self, wording: Wordings, question: Question) -> list[int]:
        """A question that is answered in words, with as many of its passages, which come the
        strongest first, as the model's context has room for."""
        for count in range(len(question.passages), -1, -1):
            shown = question.passages[:count]
            tokens = self._tokens(wording.asked(question.label, "", _listed(shown)), False)
            if len(tokens) + self._new <= self._lm.context or count <= 1:
                break
        self._check(len(tokens) + FEWEST, question.kind)
        return tokens

    def _check(self, length: int, kind: str) -> None:
        if length > self._lm.context:
            raise SaeflowError(
                f"labels.asked: a question of {kind} takes {length} tokens and the model's context "
                f"is {self._lm.context}; lower labels.passages.window, or ask another model "
                "(kind: openai)"
            )

    def _tokens(self, text: str, answer: bool) -> list[int]:
        """A question as the model reads it; a model with a chat template is asked as a user."""
        if self._chats and answer:
            message = Message(role="user", content=f"{text} Answer Yes or No.")
            return self._lm.tokenize(prompt_text([message], self._lm.tokenizer))
        return self._lm.tokenize(f"{text}\nAnswer:" if answer else text)

    def _choices(self, answers: Sequence[str]) -> Choices | None:
        """How answers begin, up to the token that tells them apart; None where none does."""
        rows = [self._lm.tokenize(answer, bos=False) for answer in answers]
        shared = min(_shared(rows), min(map(len, rows)) - 1)
        ids = [row[shared] for row in rows]
        return Choices(rows[0][:shared], ids) if len(set(ids)) == len(ids) else None

    @torch.no_grad()
    def _log_odds(self, texts: Sequence[str]) -> Reply:
        """How much likelier the model begins its answer with Yes than with No."""
        choices = self._choices(["Yes", "No"] if self._chats else [" Yes", " No"])
        if choices is None:
            return Reply(None, None, ALIKE)
        rows = [[*self._tokens(text, True), *choices.opening] for text in texts]
        self._check(max(map(len, rows)), "detection")
        yes, no = next_logits(self._lm, rows)[:, choices.at(self._lm.device)].unbind(1)
        return Reply(tuple((yes - no).tolist()))

    @torch.no_grad()
    def _chosen(self, text: str, question: Question) -> Reply:
        """The number of the passage that the model names first."""
        choices = self._choices([f" {number + 1}" for number in range(len(question.passages))])
        if choices is None:
            return Reply(None, None, ALIKE)
        tokens = [*self._tokens(text, False), *choices.opening]
        self._check(len(tokens), question.kind)
        logits = next_logits(self._lm, [tokens])[0, choices.at(self._lm.device)]
        return Reply((float(1 + int(logits.argmax())),))

    @torch.no_grad()
    def _expected(self, text: str, passage: Sequence[str]) -> Reply:
        """The strength from 0 to 9 that the model expects behind each token, all at once: behind
        those before it stands that theirs is not known."""
        choices = self._choices([str(number) for number in range(STRONGEST)])
        if choices is None:
            return Reply(None, None, ALIKE)
        tokens, read = self._tokens(f"{text}\n", False), []
        for token in passage:
            line = self._lm.tokenize(f"{_BREAK.sub('⏎', token).strip()}\t", bos=False)
            tokens += [*line, *choices.opening]
            read.append(len(tokens) - 1)
            tokens += self._lm.tokenize("?\n", bos=False)
        tokens = tokens[: read[-1] + 1]
        self._check(len(tokens), "simulation")
        row = torch.tensor([tokens], device=self._lm.device)
        states = self._lm.decoder(row, use_cache=False).last_hidden_state
        logits = unembed(self._lm, states[0, torch.tensor(read, device=self._lm.device)])
        shares = logits[:, choices.at(self._lm.device)].double().softmax(1)
        numbers = torch.arange(STRONGEST, device=self._lm.device, dtype=shares.dtype)
        return Reply(tuple((shares @ numbers).tolist()))

    def _written(self, tokens: list[int], question: Question) -> str:
        room = min(self._new, self._lm.context - len(tokens))
        if question.kind == "explanation":
            (drawn,) = greedy_answers(self._lm, [tokens], room)
        else:
            keys = row_keys(self._seed, "labels/generation", [(question.label, question.repeat)])
            rows = torch.tensor([tokens], device=self._lm.device)
            every = generate(self._lm, rows, None, READ_AT, Sampling(), keys, room)
            drawn = every[0, : int(lengths(every, self._lm.end_ids)[0])].tolist()
        said = continuation_text(self._lm.tokenizer, tokens, drawn)
        line = said.split("\n")[0] if question.kind == "explanation" else said
        return one_line(line)


class Choices(NamedTuple):
    """Answers that a model chooses among: tokens that all begin with, and the next one of each."""

    opening: list[int]
    ids: list[int]

    def at(self, device: torch.device) -> torch.Tensor:
        return torch.tensor(self.ids, device=device)


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """With how many tokens all rows open alike."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return sum(1 for _ in alike)


def _listed(passages: Sequence[str]) -> str:
    """Passages with their numbers."""
    return "\n\n".join(f"{number}. {text}" for number, text in enumerate(passages, 1))


@torch.no_grad()
def next_logits(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The logits of what comes next, ``[rows, d_vocab]``, of texts that are run together: what all
    open with is run once.

    Args:
        lm: the model.
        rows: token ids, BOS first.
    """
    shared = min(_shared(rows), min(map(len, rows)) - 1)
    check_length(lm, max(map(len, rows)))
    if lm.keeps_states:
        shared = 0
    first = DynamicCache()
    if shared:
        opening = torch.tensor([list(rows[0][:shared])], device=lm.device)
        lm.decoder(opening, past_key_values=first, use_cache=True)
    results = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = [list(row[shared:]) for row in rows[start : start + ROWS_AT_ONCE]]
        tokens = padded(lm, part)
        if shared:
            cache = copy.deepcopy(first)
            cache.batch_repeat_interleave(len(part))
            states = lm.decoder(tokens, past_key_values=cache, use_cache=True)
        else:
            states = lm.decoder(tokens, use_cache=False)
        last = torch.tensor([len(row) - 1 for row in part], device=lm.device)
        numbers = torch.arange(len(part), device=lm.device)
        results.append(unembed(lm, states.last_hidden_state[numbers, last]).float())
    return torch.cat(results)
