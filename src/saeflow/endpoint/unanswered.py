"""Questions that ended without a score: failures of their texts, or of the judge?

A judge that refuses everything says nothing about any text. So failures are held back until a score
shows that the judge works; and when they go on and on, nothing of them is kept and the run ends.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from saeflow.endpoint.inquiries import Answer, AskedBy, Exchange, Inquiry
from saeflow.endpoint.service import Service
from saeflow.errors import SaeflowError

AT_FIRST = 20  # questions alike without a score before the first that has one
IN_BETWEEN = 100  # of a judge that has given scores, and refuses some texts
_CHANGING = re.compile(r"[0-9a-f]{8,}|\d+")  # request ids, times and counts
_TURNED_AWAY = re.compile(r"HTTP 4(?!08|09|29)")  # not for lack of time or of room

_SILENT = re.compile(
    "the connection|no answer|the batch|the answer is (longer|compressed)|the body is"
)


class Failure(NamedTuple):
    """A question that ended without a score."""

    key: str
    inquiry: Inquiry
    answer: Answer
    reached: bool
    """Whether the model had a word; else its verdict on the text is unknown."""


class Unanswered:
    """What is held back of one run.

    Args:
        service: whose ledger gets what is settled.
        name: of the endpoint, as errors name it.
    """

    def __init__(self, service: Service, name: str) -> None:
        self.service, self.name = service, name
        self.scored = False
        self._held: list[Failure] = []
        self._alike: Counter[str] = Counter()

    def score(self) -> None:
        """A question has got a score: what the model said of others is about them."""
        self.scored = True
        self._alike.clear()
        self._settle([failure for failure in self._held if failure.reached])

    def fail(self, key: str, inquiry: Inquiry, exchange: Exchange, answer: Answer) -> None:
        """A question has ended without a score.

        Raises:
            SaeflowError: so have so many before it, and alike, that the judge does not work.
        """
        self._held.append(Failure(key, inquiry, answer, exchange.reached))
        kind = kind_of(exchange)
        self._alike[kind] += 1
        if self._alike[kind] >= (IN_BETWEEN if self.scored and exchange.reached else AT_FIRST):
            raise self._given_up(self._alike[kind])

    def stop(self) -> None:
        """The run ends early, for another reason: what the model said of texts stays said."""
        if self.scored:
            self._settle([failure for failure in self._held if failure.reached])

    def end(self) -> None:
        """All questions have ended: those that the judge had no word for have no score.

        Raises:
            SaeflowError: the judge has not scored a single one, and there is no sign that it ever
                did.
        """
        unreached = [failure for failure in self._held if not failure.reached]
        turned_away = all(_TURNED_AWAY.match(failure.answer.reason or "") for failure in unreached)
        if (
            unreached == self._held != []
            and not self.scored
            and (not turned_away or not self.service.ledger.has_scores(self.service.judge))
        ):
            raise self._given_up(len(unreached))
        self._settle(self._held)

    def _settle(self, failures: list[Failure]) -> None:
        if not failures:
            return
        with self.service.ledger.writing():
            for failure in failures:
                self.service.ledger.settle(
                    failure.key, failure.inquiry, self.service.judge, failure.answer
                )
        self._held = [failure for failure in self._held if failure not in failures]

    def _given_up(self, count: int) -> SaeflowError:
        reason = self._held[-1].answer.reason or ""
        self._held.clear()
        which = f"the {'last' if self.scored else 'first'} {count} questions"
        return hopeless(self.name, reason, which, self.service.asked_by)


def hopeless(name: str, reason: str, questions: str, asked_by: AskedBy) -> SaeflowError:
    """What is said of an endpoint that does not judge.

    Args:
        name: of the endpoint.
        reason: why a question has no score.
        questions: which have none.
        asked_by: who has the model asked.
    """
    what = "has answered none of" if _SILENT.match(reason) else "has given no score to"
    return SaeflowError(
        f"{name}: {what} {questions} ({reason}); none of them is marked as failed; "
        f"{advice(reason, asked_by)}, then start again"
    )


def kind_of(exchange: Exchange) -> str:
    """What failures have in common: the status, or the words without what changes from answer to
    answer."""
    reason = exchange.reason or ""
    if not exchange.reached:
        return reason.partition(":")[0] if reason.startswith("HTTP 4") else "silence"
    return _CHANGING.sub("#", reason)


def advice(reason: str, asked_by: AskedBy) -> str:
    """What to change when all questions end for one reason."""
    said, key = reason.lower(), asked_by.key
    if "token limit" in said:
        return f"raise max_tokens or max_completion_tokens in {key}.parameters"
    if any(
        word in said
        for word in (
            "parameter",
            "temperature",
            "max_tokens",
            "max_completion_tokens",
            "unsupported",
        )
    ):
        return f"change {key}.parameters"
    if "http 413" in said or "context length" in said or "too long" in said or "too large" in said:
        return f"name a {key}.model that reads longer texts, or lower {asked_by.length}"
    if "http 403" in said:
        may = "name in calls.key the variable of a key that may use the model"
        return f"{may}, or another {key}.model"
    if said.startswith("http 4"):
        return f"change {key}.parameters or {key}.model as the endpoint wants it"
    if said.startswith("http") or _SILENT.match(reason):
        return "check that it runs at calls.base_url"
    return f"name another {key}.model, or change {key}.parameters"
