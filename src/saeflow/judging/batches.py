"""The Batch API: questions as files, answers within a day, at half the price.

A batch is in the ledger before it is submitted, under a token that it also carries itself. So a run that dies at any
moment finds its batches again, and pays for none twice.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

from openai import APIError

from saeflow.errors import SaeflowError
from saeflow.judging.asking import Request, Service, check_budget, estimate
from saeflow.judging.endpoint import Endpoint, read_answer
from saeflow.judging.inquiries import Answer, Exchange, Inquiry
from saeflow.judging.ledger import Batch

URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
LARGEST = 20_000  # questions; the API takes 50,000 and 200 MB
RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
TOKEN = "saeflow"  # key in a batch's metadata


async def ask_in_batches(open_: dict[str, Inquiry], service: Service) -> dict[str, Answer]:
    """Answer questions by batches, those of an earlier run first.

    Raises:
        SaeflowError: the endpoint has no Batch API or refuses it, or the budget does not suffice.
    """
    endpoint, answers = Endpoint(service.judge, service.calls), dict[str, Answer]()
    try:
        for attempt in range(1, service.calls.attempts + 1):
            with _alone(service):
                await _submit({key: open_[key] for key in open_ if key not in answers}, service, endpoint)
            for batch in service.ledger.open_batches():
                if open_.keys() & batch.keys:
                    answers |= await _read(batch, open_, attempt, service, endpoint)
                    service.progress(len(answers), len(open_), f"US$ {service.ledger.spent().usd:.2f} so far")
            answers |= service.ledger.answers(list(open_))  # another job may have read the batch that we share
            if len(answers) == len(open_):
                break
    except APIError as error:
        told = endpoint.redacted(" ".join(str(error).split())[:200])
        raise SaeflowError(
            f"{endpoint.name}: the batch failed ({told}); start again, or set calls.mode: live"
        ) from None
    finally:
        await endpoint.close()
    unanswered = Answer(None, f"no answer in {service.calls.attempts} batches", service.calls.attempts)
    return dict.fromkeys(open_, unanswered) | answers


@contextmanager
def _alone(service: Service) -> Iterator[None]:
    """Let one job of the study submit at a time: a batch without a name is then one whose submission was cut short."""
    with open(service.ledger.path.with_suffix(".lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def _submit(open_: dict[str, Inquiry], service: Service, endpoint: Endpoint) -> None:
    """Submit what is in no batch already."""
    await _recover(service, endpoint)
    waiting = {key for batch in service.ledger.open_batches() for key in batch.keys}
    rest = iter(key for key in open_ if key not in waiting)
    while keys := list(islice(rest, LARGEST)):
        check_budget(service, len(keys), estimate([open_[key] for key in keys], service).usd or 0.0)
        batch = Batch(secrets.token_hex(16), None, keys)
        service.ledger.note_batch(batch)
        lines = [{"custom_id": key, "method": "POST", "url": URL, "body": endpoint.body(open_[key])} for key in keys]
        content = "\n".join(json.dumps(line) for line in lines).encode()
        file = await endpoint.client.files.create(file=(f"{batch.token}.jsonl", content), purpose="batch")
        made = await endpoint.client.batches.create(
            input_file_id=file.id,
            endpoint=URL,
            completion_window="24h",
            metadata={TOKEN: batch.token},
        )
        service.ledger.note_batch(batch._replace(batch=made.id))


async def _recover(service: Service, endpoint: Endpoint) -> None:
    """Find the batches whose submission was interrupted; those that never arrived are dropped."""
    lost = {batch.token: batch for batch in service.ledger.open_batches() if batch.batch is None}
    if not lost:
        return
    async for found in await endpoint.client.batches.list(limit=100):
        token = (found.metadata or {}).get(TOKEN, "")
        if token in lost:
            service.ledger.note_batch(lost.pop(token)._replace(batch=found.id))
    for batch in lost.values():
        service.ledger.note_batch(batch, ended=True)


async def _read(
    batch: Batch, open_: dict[str, Inquiry], attempt: int, service: Service, endpoint: Endpoint
) -> dict[str, Answer]:
    """Wait for a batch and write down what it answered; questions that deserve another batch are left out."""
    lines = await _lines(batch, service, endpoint)
    known = service.ledger.answers(batch.keys)
    answers, requests = {}, []
    for key in batch.keys:
        if key in known or key not in open_:
            continue
        exchange = _exchange(lines.get(key, {}), open_[key])
        again = exchange.again and attempt < service.calls.attempts
        answer = None if again else Answer(exchange.value, exchange.reason, attempt)
        if answer:
            answers[key] = answer
        requests.append(Request(key, open_[key], exchange, endpoint.address, answer))
    service.record(requests)
    if all(key in known or key in open_ for key in batch.keys):  # else another job has yet to read it
        service.ledger.note_batch(batch, ended=True)
    return answers


async def _lines(batch: Batch, service: Service, endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """Wait for a batch to end; the lines of its answers and errors by key, since their order means nothing."""
    client = endpoint.client
    while (state := await client.batches.retrieve(str(batch.batch))).status in RUNNING:
        await asyncio.sleep(service.calls.poll)
    if state.status == "failed":
        service.ledger.note_batch(batch, ended=True)
        told = (
            "; ".join(str(error.message) for error in (state.errors.data or [])) if state.errors else "no reason given"
        )
        refused = f"refused the batch ({endpoint.redacted(told)})"
        raise SaeflowError(f"{endpoint.name}: {refused}; set calls.mode: live")
    lines = {}
    for file in filter(None, (state.output_file_id, state.error_file_id)):
        content = await client.files.content(file)
        for line in filter(str.strip, content.text.splitlines()):
            found = json.loads(line)
            lines[found["custom_id"]] = found
    return lines


def _exchange(line: dict[str, Any], inquiry: Inquiry) -> Exchange:
    """What came of one line of a batch, or of none."""
    response = line.get("response") or {}
    if response.get("status_code") == 200:
        return read_answer(json.dumps(response["body"]), inquiry)
    told = json.dumps(line.get("error") or response.get("body") or "it ended without an answer")
    return Exchange(reason=f"the batch has no answer: {told[:200]}", again=True, billed=False, raw=told)
