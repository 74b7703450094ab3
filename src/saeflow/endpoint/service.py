"""A model that is asked, the ledger of its answers, and what may be spent on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from saeflow.config.sections import Calls, Judge
from saeflow.counting import counted
from saeflow.endpoint.inquiries import (
    CHARACTERS_PER_TOKEN,
    JUDGING,
    Answer,
    AskedBy,
    Exchange,
    Inquiry,
)
from saeflow.endpoint.ledger import Ledger, Spent
from saeflow.endpoint.prices import Cost, cost_of
from saeflow.errors import SaeflowError

ANSWER_TOKENS = 8.0
THOUGHT_TOKENS = 500.0  # of a model that is given room for them
SECONDS_PER_CALL = 1.0


class Progress(Protocol):
    """What is told while calls are made."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class Estimate(NamedTuple):
    """What a run will take, before its first call."""

    questions: int
    answered: int
    """Of them, already answered."""
    calls: int
    prompt_tokens: float
    completion_tokens: float
    usd: float | None
    """None where the model's price is not known."""
    minutes: float | None
    """None in batch mode, which promises a day."""

    def __str__(self) -> str:
        price = "price unknown" if self.usd is None else f"about US$ {self.usd:.2f}"
        time = "within a day" if self.minutes is None else f"about {self.minutes:.1f} min"
        tokens = f"{self.prompt_tokens:,.0f} + {self.completion_tokens:,.0f} tokens"
        return (
            f"{counted(self.questions, 'question')}, {self.answered:,} known, "
            f"{counted(self.calls, 'call')}, {tokens}, {price}, {time}"
        )


class Request(NamedTuple):
    """One request that has ended."""

    key: str
    inquiry: Inquiry
    exchange: Exchange
    address: str
    answer: Answer | None
    """What the question came to; None if it is to be asked again."""


@dataclass(frozen=True)
class Service:
    """A judging model, the ledger of its answers, and who is told."""

    judge: Judge
    calls: Calls
    ledger: Ledger
    announce: Callable[[Estimate], None] = lambda estimate: None
    progress: Progress = lambda done, total, note="": None
    asked_by: AskedBy = JUDGING

    @property
    def cost(self) -> Cost:
        """What its tokens cost."""
        return cost_of(str(self.judge.model), self.calls.price, self.calls.mode == "batch")

    def record(self, requests: Sequence[Request]) -> None:
        """Write down requests, and with them the answers of those questions that have come to
        one."""
        cost = self.cost
        with self.ledger.writing():
            for key, inquiry, exchange, address, answer in requests:
                usd = cost.usd(exchange.prompt_tokens, exchange.completion_tokens)
                self.ledger.record(key, exchange, usd, address)
                if answer:
                    self.ledger.settle(key, inquiry, self.judge, answer)


def estimate(inquiries: Sequence[Inquiry], service: Service) -> Estimate:
    """What questions will take; tokens and seconds as in earlier calls, where there were any."""
    wanted = {inquiry.key(service.judge): inquiry for inquiry in inquiries}
    answers = service.ledger.answers(list(wanted))
    return estimate_new(
        [inquiry for key, inquiry in wanted.items() if key not in answers], len(wanted), service
    )


def estimate_new(open_: Sequence[Inquiry], questions: int, service: Service) -> Estimate:
    prompt = completion = seconds = 0.0
    answer = THOUGHT_TOKENS if "max_completion_tokens" in service.judge.sampling else ANSWER_TOKENS
    by_template: dict[str, list[Inquiry]] = {}
    for inquiry in open_:
        by_template.setdefault(inquiry.template.name, []).append(inquiry)
    for template, inquiries in by_template.items():
        past = service.ledger.experience(service.judge, template)
        characters = sum(inquiry.characters for inquiry in inquiries)
        prompt += (
            len(inquiries) * past.prompt_tokens
            if past.prompt_tokens
            else characters / CHARACTERS_PER_TOKEN
        )
        completion += len(inquiries) * (past.completion_tokens or answer)
        seconds += len(inquiries) * (past.seconds or SECONDS_PER_CALL)
    minutes = None if service.calls.mode == "batch" else seconds / service.calls.concurrency / 60
    usd = service.cost.usd(prompt, completion)
    return Estimate(questions, questions - len(open_), len(open_), prompt, completion, usd, minutes)


def check_budget(service: Service, calls: int, usd: float = 0.0) -> Spent:
    """Refuse calls that the study may not make; gives what was spent so far.

    Args:
        service: with the ledger that knows what was spent.
        calls: how many more are to be made.
        usd: what they will cost at least.

    Raises:
        SaeflowError: one limit or the other is reached.
    """
    spent, limits = service.ledger.spent(), service.calls
    if limits.max_calls is not None and spent.calls + calls > limits.max_calls:
        made = f"{spent.calls:,} of {limits.max_calls:,} calls are made"
        what = f"calls.max_calls: {made}, {calls:,} more would be too many"
    elif limits.max_usd is not None and (
        spent.usd >= limits.max_usd or spent.usd + usd > limits.max_usd
    ):
        what = f"calls.max_usd: US$ {spent.usd:.4f} of {limits.max_usd:g} is spent"
    else:
        return spent
    kept = f"what was answered is kept in {service.ledger.path}"
    raise SaeflowError(f"{what}, and not everything is judged; raise it and start again, {kept}")
