"""Calls one by one, many at a time."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterator

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    stop_after_attempt,
    wait_exponential_jitter,
)

from saeflow.endpoint.endpoint import LONGEST_WAIT, Endpoint
from saeflow.endpoint.inquiries import Answer, Exchange, Inquiry
from saeflow.endpoint.limit import AdaptiveLimit
from saeflow.endpoint.service import Request, Service, check_budget
from saeflow.endpoint.unanswered import Unanswered
from saeflow.errors import SaeflowError

LONGEST_BACKOFF = 60.0
REFUSALS_OF_ONE = (
    100  # 429s to one question, while others are answered, before it counts as not reached
)
REFUSALS_OF_ALL = 10  # in a row before the run ends; at the usual pauses that is after four minutes


class _Book:
    """Writes requests down, those that end in the same turn of the event loop in one transaction.

    Attributes:
        in_flight: requests that were begun and are not in the ledger.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.in_flight = 0
        self._ended: list[Request] = []
        self._written: asyncio.Future[None] | None = None

    async def record(self, request: Request) -> None:
        """Come back when a request is in the ledger."""
        self._ended.append(request)
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._write)
        # One waiter that is cancelled is not the end of the others.
        await asyncio.shield(self._written)

    def _write(self) -> None:
        ended, written = self._ended, self._written
        self._ended, self._written = [], None
        self.in_flight -= len(ended)
        assert written is not None
        try:
            self.service.record(ended)
        except Exception as error:  # whatever it is: nobody may wait for ever
            written.set_exception(error)
        else:
            written.set_result(None)


class LiveRun:
    """The calls of one process, live."""

    def __init__(self, service: Service, total: int) -> None:
        calls = service.calls
        self.service, self.total = service, total
        self.answers: dict[str, Answer] = {}
        self.stopped: SaeflowError | None = None
        self.spent = service.ledger.spent()
        self.endpoint = Endpoint(service.judge, calls, service.asked_by)
        self.unanswered = Unanswered(service, self.endpoint.name)
        self.book = _Book(service)
        self.limit = AdaptiveLimit(calls.concurrency, calls.backoff)
        self.retrying = AsyncRetrying(
            retry=retry_if_result(lambda exchange: exchange.again),
            stop=stop_after_attempt(calls.attempts),
            wait=wait_exponential_jitter(calls.backoff, LONGEST_BACKOFF, jitter=calls.backoff),
            sleep=self.limit.sleep,
            retry_error_callback=_last,
        )

    async def all(self, open_: dict[str, Inquiry]) -> dict[str, Answer]:
        """Ask every question; after a stop, no new call is made and those in flight are still
        written down."""
        # Jobs that run at once share questions (unsteered texts): each takes them in an order of
        # its own, and looks once more before it asks, so that hardly any is paid for twice. No
        # result depends on the order.
        questions = iter(random.sample(list(open_.items()), len(open_)))
        # else full collections look through the client's thousands of classes while answers wait
        gc.freeze()
        try:
            await asyncio.gather(
                *(self._work(questions) for _ in range(min(self.limit.most, len(open_))))
            )
        finally:
            gc.unfreeze()
            await self.endpoint.close()
        if self.stopped:
            self.unanswered.stop()
            raise self.stopped
        self.unanswered.end()
        return self.answers

    async def _work(self, questions: Iterator[tuple[str, Inquiry]]) -> None:
        for key, inquiry in questions:
            try:
                answer = self._answered_elsewhere(key) or await self._answer(key, inquiry)
            except SaeflowError as error:
                self.stopped = self.stopped or error
                self.limit.halted.set()
                return
            self.answers[key] = answer
            self.service.progress(len(self.answers), self.total, f"US$ {self.spent.usd:.2f} so far")

    def _answered_elsewhere(self, key: str) -> Answer | None:
        """The answer, if another process has asked the question since this one began."""
        return self.service.ledger.answers([key]).get(key) if self.service.ledger.shared() else None

    async def _answer(self, key: str, inquiry: Inquiry) -> Answer:
        """Ask until there is an answer, or asking again does not help."""
        attempts, exchange = 1, await self._request(key, inquiry, 1)
        if (
            exchange.again
        ):  # else nothing is repeated, and what keeps count of repetitions costs a tenth of a call
            begun: Exchange | None = exchange

            async def attempt() -> Exchange:
                nonlocal attempts, begun
                if begun is not None:
                    first, begun = begun, None
                    return first
                attempts += 1
                return await self._request(key, inquiry, attempts)

            exchange = await self.retrying.copy()(attempt)
        answer = Answer(exchange.value, exchange.reason, attempts)
        if exchange.value is None:
            self.unanswered.fail(key, inquiry, exchange, answer)
        else:
            self.unanswered.score()
        return answer

    async def _request(self, key: str, inquiry: Inquiry, attempt: int) -> Exchange:
        """One request, repeated while the endpoint asks to slow down."""
        for _ in range(REFUSALS_OF_ONE):
            async with self.limit.turn() as began:
                self._within_budget()
                self.book.in_flight += 1
                try:
                    exchange = await self.endpoint.ask(inquiry)
                except BaseException:
                    self.book.in_flight -= 1
                    raise
                answer = (
                    Answer(exchange.value, None, attempt) if exchange.value is not None else None
                )
                await self.book.record(
                    Request(key, inquiry, exchange, self.endpoint.address, answer)
                )
            if exchange.wait is None:
                self.limit.accepted()
                return exchange
            self._slow_down(began, exchange)
        return exchange._replace(again=False)

    def _slow_down(self, began: float, exchange: Exchange) -> None:
        """Have all calls wait after one that was refused for its rate, but not for hours, and not
        in silence."""
        pause = self.limit.refused(began, exchange.wait or 0.0)
        if self.limit.refusals >= REFUSALS_OF_ALL or self.limit.paused > LONGEST_WAIT:
            refuses = (
                f"refuses every call for its rate, {self.limit.refusals} times in a row "
                f"({exchange.reason})"
            )
            raise SaeflowError(
                f"{self.endpoint.name}: {refuses}; start again later, what was answered is kept"
            )
        self.service.progress(
            len(self.answers), self.total, f"waiting {pause:.0f} s: {exchange.reason}"
        )

    def _within_budget(self) -> None:
        """Stop before the call that would exceed what may be spent, counting those in flight as
        typical ones."""
        if self.stopped:
            raise self.stopped
        self.spent = check_budget(self.service, self.book.in_flight + 1)


def _last(state: RetryCallState) -> Exchange:
    """What came of the last attempt."""
    assert state.outcome is not None
    return state.outcome.result()
