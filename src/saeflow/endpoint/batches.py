"""The Batch API: questions as files, answers within a day, at half the price.

A batch is in the ledger before it is submitted, under a token that it also carries itself. So a run
that dies at any moment finds its batches again, and pays for none twice.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

from openai import AsyncOpenAI, omit

from saeflow.endpoint.answers import complaint_in, complaint_of, decoded, parsed, read_answer
from saeflow.endpoint.connection import LARGEST_BODY, RawResponse, UnreachedError, first_line
from saeflow.endpoint.endpoint import Endpoint
from saeflow.endpoint.inquiries import Answer, Exchange, Inquiry
from saeflow.endpoint.ledger import Batch
from saeflow.endpoint.service import Request, Service, check_budget, estimate
from saeflow.endpoint.unanswered import AT_FIRST, hopeless, kind_of
from saeflow.errors import SaeflowError

URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
LARGEST = 20_000  # questions; the API takes 50,000 and 200 MB
LARGEST_ANSWER = 2**16  # bytes of one line of the results
LONGEST_TRANSFER = 3600.0  # seconds for one file
LONGEST_RUN = 36 * 3600.0  # seconds for a batch, which is promised within a day
RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
ENDED = ("completed", "expired", "cancelled", "failed")
LOOKS = (
    100  # at a batch in a state that is neither, before the run ends; the batch stays in the ledger
)
PAGES = 100  # of the list of batches
TOKEN = "saeflow"  # key in a batch's metadata
_Request = Callable[[AsyncOpenAI], Awaitable[RawResponse]]


async def ask_in_batches(open_: dict[str, Inquiry], service: Service) -> dict[str, Answer]:
    """Answer questions by batches, those of an earlier run first.

    Raises:
        SaeflowError: the endpoint has no Batch API, refuses it or answers nothing, or the budget
            does not suffice.
    """
    endpoint = Endpoint(service.judge, service.calls, service.asked_by)
    answers: dict[str, Answer] = {}
    try:
        for attempt in range(1, service.calls.attempts + 1):
            with _alone(service):
                await _submit(
                    {key: open_[key] for key in open_ if key not in answers}, service, endpoint
                )
            for batch in service.ledger.open_batches():
                if open_.keys() & batch.keys:
                    answers |= await _read(batch, open_, attempt, service, endpoint)
                    service.progress(
                        len(answers), len(open_), f"US$ {service.ledger.spent().usd:.2f} so far"
                    )
            # Another job may have read the batch that we share.
            answers |= service.ledger.answers(list(open_))
            if len(answers) == len(open_):
                break
    finally:
        await endpoint.close()
    never = Answer(None, f"no answer in {service.calls.attempts} batches", service.calls.attempts)
    return dict.fromkeys(open_, never) | answers


@contextmanager
def _alone(service: Service) -> Iterator[None]:
    """Let one job of the study submit at a time: a batch without a name is then one whose
    submission was cut short."""
    path = service.ledger.path.with_suffix(".lock")
    try:
        file = open(path, "w")  # noqa: SIM115 - closed below
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise SaeflowError(
            f"{path}: cannot be locked ({error}); check the disk, or set calls.mode: live"
        ) from None
    with file:
        yield


async def _submit(open_: dict[str, Inquiry], service: Service, endpoint: Endpoint) -> None:
    """Submit what is in no batch already."""
    await _recover(service, endpoint)
    waiting = [key for batch in service.ledger.open_batches() for key in batch.keys]
    taken = set(waiting)
    rest = iter(key for key in open_ if key not in taken)
    while keys := list(islice(rest, LARGEST)):
        usd = estimate([open_[key] for key in keys], service).usd or 0.0
        check_budget(service, len(waiting) + len(keys), usd * (1 + len(waiting) / len(keys)))
        batch = Batch(secrets.token_hex(16), None, keys)
        service.ledger.note_batch(batch)
        made = await _create(batch, open_, endpoint)
        service.ledger.note_batch(batch._replace(batch=made))
        waiting += keys


async def _create(batch: Batch, open_: dict[str, Inquiry], endpoint: Endpoint) -> str:
    """Submit a batch; gives the endpoint's name for it."""
    lines = [
        {"custom_id": key, "method": "POST", "url": URL, "body": endpoint.body(open_[key])}
        for key in batch.keys
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    named = (f"{batch.token}.jsonl", content, "application/octet-stream")
    file = await _call(
        endpoint,
        lambda client: client.files.with_raw_response.create(file=named, purpose="batch"),
        seconds=LONGEST_TRANSFER,
    )
    made = await _call(
        endpoint,
        lambda client: client.batches.with_raw_response.create(
            input_file_id=_name_of(file, endpoint),
            endpoint=URL,
            completion_window="24h",
            metadata={TOKEN: batch.token},
        ),
    )
    return _name_of(made, endpoint)


async def _recover(service: Service, endpoint: Endpoint) -> None:
    """Find the batches whose submission was interrupted; those that never arrived are dropped."""
    lost = {batch.token: batch for batch in service.ledger.open_batches() if batch.batch is None}
    after: str | None = None
    for _ in range(PAGES if lost else 0):
        page = await _call(endpoint, _page(after))
        listed = [made for made in _list(page.get("data")) if isinstance(made, dict)]
        for made in listed:
            metadata = made.get("metadata")
            token = metadata.get(TOKEN) if isinstance(metadata, dict) else None
            if isinstance(token, str) and token in lost:
                service.ledger.note_batch(lost.pop(token)._replace(batch=_name_of(made, endpoint)))
        if not lost or not listed or page.get("has_more") is not True:
            break
        after = _name_of(listed[-1], endpoint)
    for batch in lost.values():
        service.ledger.note_batch(batch, ended=True)


def _page(after: str | None) -> _Request:
    return lambda client: client.batches.with_raw_response.list(limit=100, after=after or omit)


async def _read(
    batch: Batch, open_: dict[str, Inquiry], attempt: int, service: Service, endpoint: Endpoint
) -> dict[str, Answer]:
    """Wait for a batch and write down what it answered; questions that deserve another batch are
    left out.

    Raises:
        SaeflowError: it answers nothing; then no question is marked as failed, and no other batch
            is bought.
    """
    state = await _ended(batch, service, endpoint)
    lines, unread = await _lines(state, len(batch.keys), endpoint)
    recorded, format_asked = service.ledger.answers(batch.keys), endpoint.format
    wanted = [key for key in batch.keys if key in open_ and key not in recorded]
    exchanges = {
        key: _exchange(lines.get(key), unread, open_[key], endpoint, format_asked) for key in wanted
    }
    fruitless = _is_fruitless(list(exchanges.values())) and endpoint.format == format_asked
    answers = {
        key: Answer(exchange.value, exchange.reason, attempt)
        for key, exchange in exchanges.items()
        if not fruitless and not (exchange.again and attempt < service.calls.attempts)
    }
    service.record(
        [
            Request(key, open_[key], exchanges[key], endpoint.address, answers.get(key))
            for key in wanted
        ]
    )
    if all(
        key in recorded or key in open_ for key in batch.keys
    ):  # else another job has yet to read it
        service.ledger.note_batch(batch, ended=True)
    if fruitless:
        raise hopeless(
            endpoint.name,
            exchanges[wanted[0]].reason or "",
            f"{len(wanted)} questions of a batch",
            service.asked_by,
        )
    return answers


def _is_fruitless(exchanges: list[Exchange]) -> bool:
    """Whether a batch says nothing about its texts: the model had no word, or the same of many, and
    no score."""
    if not exchanges or any(exchange.value is not None for exchange in exchanges):
        return False
    alike = len({kind_of(exchange) for exchange in exchanges}) == 1
    return not any(exchange.reached for exchange in exchanges) or (
        alike and len(exchanges) >= AT_FIRST
    )


async def _ended(batch: Batch, service: Service, endpoint: Endpoint) -> dict[str, Any]:
    """Wait for a batch to end.

    Raises:
        SaeflowError: the endpoint has refused it, or says nothing that means an end.
    """
    began, looks = time.monotonic(), 0
    while True:
        state = await _call(
            endpoint, lambda client: client.batches.with_raw_response.retrieve(str(batch.batch))
        )
        if not isinstance(state.get("status"), str):
            raise _failed(endpoint, f"what it says of {first_line(batch.batch, 40)} has no state")
        status = first_line(state["status"], 40).lower()
        if status == "failed":
            service.ledger.note_batch(batch, ended=True)
            refused = f"refused the batch ({endpoint.connection.redacted(_reasons(state))})"
            raise SaeflowError(f"{endpoint.name}: {refused}; set calls.mode: live")
        if status in ENDED:
            return state
        looks += status not in RUNNING
        if looks > LOOKS or time.monotonic() - began > LONGEST_RUN:
            waits = f"the batch {first_line(batch.batch)} is still '{status}'"
            raise SaeflowError(
                f"{endpoint.name}: {waits}; start again to wait for it, it is not submitted twice"
            )
        service.progress(0, len(batch.keys), f"the batch is '{status}'")
        await asyncio.sleep(service.calls.poll)


def _reasons(state: dict[str, Any]) -> str:
    errors = state.get("errors")
    data = _list(errors.get("data")) if isinstance(errors, dict) else []
    reasons = [first_line(error.get("message")) for error in data[:5] if isinstance(error, dict)]
    return "; ".join(reasons) or "no reason given"


def _content(file: str) -> _Request:
    return lambda client: client.files.with_raw_response.content(file)


async def _lines(
    state: dict[str, Any], questions: int, endpoint: Endpoint
) -> tuple[dict[str, dict[str, Any]], int]:
    """The lines of a batch's answers and errors by key, since their order means nothing, and how
    many are unreadable.

    Of two lines about one question the first that holds an answer counts.
    """
    lines, unread = dict[str, dict[str, Any]](), 0
    for file in (state.get("output_file_id"), state.get("error_file_id")):
        if not isinstance(file, str) or not file:
            continue
        content = await _fetch(
            endpoint,
            _content(file),
            seconds=LONGEST_TRANSFER,
            largest=LARGEST_BODY + questions * LARGEST_ANSWER,
        )
        for text in content.split(b"\n"):  # and at nothing else that may stand within a line
            if not text.strip():
                continue
            line = _line(text)
            if line is None:
                unread += 1
            elif line["custom_id"] not in lines or not _is_answer(lines[line["custom_id"]]):
                lines[line["custom_id"]] = line
    return lines, unread


def _line(text: bytes) -> dict[str, Any] | None:
    """One line of a batch's results; None if it is none."""
    try:
        line = parsed(decoded(text))
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("custom_id"), str) else None


def _is_answer(line: dict[str, Any]) -> bool:
    response = line.get("response")
    return isinstance(response, dict) and response.get("status_code") == 200


def _exchange(
    line: dict[str, Any] | None,
    unread: int,
    inquiry: Inquiry,
    endpoint: Endpoint,
    format_asked: str,
) -> Exchange:
    """What came of one line of a batch, or of none."""
    if line is None and unread:  # it may have been answered, and paid for
        return Exchange(reason="the batch has no answer: a line of its results cannot be read")
    response = (line or {}).get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if type(status) is not int:
        why = first_line((line or {}).get("error") or "it ended without one")
        return endpoint.censored(
            Exchange(
                reason=f"the batch has no answer: {why}", again=True, reached=False, billed=False
            )
        )
    if complaint := complaint_of(status, body):
        return endpoint.turned_away(complaint, format_asked)
    return endpoint.censored(read_answer(json.dumps(body), inquiry))


async def _call(
    endpoint: Endpoint, request: _Request, *, seconds: float | None = None
) -> dict[str, Any]:
    """What the Batch API answers, a JSON object."""
    body = await _fetch(endpoint, request, seconds=seconds or endpoint.calls.timeout)
    try:
        answer = parsed(decoded(body))
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise _failed(endpoint, "it answers what is no JSON object")
    if complaint := complaint_of(200, answer):
        raise _failed(endpoint, endpoint.connection.redacted(str(complaint)))
    return answer


async def _fetch(
    endpoint: Endpoint, request: _Request, *, seconds: float, largest: int = LARGEST_BODY
) -> bytes:
    """The body of an answer of the Batch API."""
    try:
        reply = await endpoint.connection.send(request, seconds=seconds, largest=largest)
    except UnreachedError as error:
        raise _failed(endpoint, str(error)) from None
    if reply.status // 100 == 2:
        return reply.body
    if 300 <= reply.status < 400 and (complaint := complaint_in(reply)):
        endpoint.turned_away(complaint, endpoint.format, reply)
    raise _failed(endpoint, endpoint.connection.redacted(str(complaint_in(reply))))


def _failed(endpoint: Endpoint, reason: str) -> SaeflowError:
    return SaeflowError(
        f"{endpoint.name}: the batch failed ({reason}); start again, or set calls.mode: live"
    )


def _name_of(made: dict[str, Any], endpoint: Endpoint) -> str:
    """The endpoint's name for a file or a batch."""
    if not isinstance(name := made.get("id"), str) or not name:
        raise _failed(endpoint, "what it made has no id")
    return name


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
