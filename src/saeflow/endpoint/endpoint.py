"""One request to an OpenAI-compatible endpoint, and everything that can come of it, as an
`Exchange`."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import httpx2

from saeflow.config.sections import Calls, Judge
from saeflow.endpoint.answers import Complaint, complaint_in, decoded, read_answer
from saeflow.endpoint.connection import Connection, Reply, UnreachedError, first_line
from saeflow.endpoint.inquiries import JUDGING, AskedBy, Exchange, Inquiry
from saeflow.errors import SaeflowError

PATH = "/chat/completions"
FORMATS = ("json_schema", "json_object", "none")
"""How the form of an answer is asked for, the strictest first; an endpoint that refuses one is
asked for the next."""
LONGEST_WAIT = 600.0  # seconds; an endpoint that asks for more is asked again another day
_HOPELESS = {
    401: "the key is refused; correct it",
    402: "the account is empty; fill it",
    404: "there is no such model or address; correct {key}.model or calls.base_url",
}


class Endpoint:
    """One endpoint for one judge.

    Args:
        judge: the model that is asked.
        calls: how it is called.
        asked_by: who has it asked.

    Attributes:
        connection: the way to it.
        format: how answers are asked for now, one of `FORMATS`.
    """

    def __init__(self, judge: Judge, calls: Calls, asked_by: AskedBy = JUDGING) -> None:
        self.judge, self.calls, self.asked_by = judge, calls, asked_by
        self.format = FORMATS[0]
        self.connection = Connection(judge, calls)

    @property
    def address(self) -> str:
        """Where the endpoint is."""
        return self.connection.address

    @property
    def name(self) -> str:
        """As errors name it."""
        return f"{self.asked_by.role} '{self.judge.model}' at {self.address}"

    def body(self, inquiry: Inquiry) -> dict[str, Any]:
        """The request for one question."""
        wanted = {name: value for name, value in self.judge.sampling.items() if value is not None}
        body: dict[str, Any] = {"model": self.judge.model, "messages": inquiry.messages, **wanted}
        if self.format == "json_schema":
            schema = {"name": "answer", "strict": True, "schema": inquiry.template.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    async def ask(self, inquiry: Inquiry) -> Exchange:
        """Send one request.

        Raises:
            SaeflowError: the endpoint will answer no question at all: a wrong key, address or
                model, an empty account.
        """
        began, format_asked = time.monotonic(), self.format
        content = json.dumps(self.body(inquiry)).encode()
        try:
            reply = await self.connection.send(
                lambda client: client.post(PATH, cast_to=httpx2.Response, content=content),
                seconds=self.calls.timeout,
            )
        except UnreachedError as error:
            exchange = Exchange(reason=str(error), again=True, reached=False)
        else:
            complaint = complaint_in(reply)
            if complaint:
                exchange = self.turned_away(complaint, format_asked, reply)
            else:
                exchange = self.censored(read_answer(decoded(reply.body), inquiry))
        return exchange._replace(seconds=time.monotonic() - began)

    def censored(self, exchange: Exchange) -> Exchange:
        """An exchange without key and passwords, which servers are known to repeat."""
        hidden = self.connection.redacted
        return exchange._replace(
            reason=hidden(exchange.reason or "") or None, raw=hidden(exchange.raw or "") or None
        )

    def turned_away(
        self, complaint: Complaint, format_asked: str, reply: Reply | None = None
    ) -> Exchange:
        """What a complaint means for the question, and for all others.

        Args:
            complaint: in place of an answer.
            format_asked: the one of `FORMATS` that the question was sent with.
            reply: that held the complaint, where it came by itself and not in a batch.

        Raises:
            SaeflowError: the endpoint will answer no question at all.
        """
        status, reason = complaint.status, self.connection.redacted(str(complaint))
        if 300 <= status < 400:
            place = reply.headers.get("Location", "elsewhere") if reply else "elsewhere"
            bare = first_line(place.partition("?")[0]).rpartition("@")[2]
            leads = f"leads on to {bare} (HTTP {status}), where nothing is sent"
            raise SaeflowError(f"{self.name}: the address {leads}; correct calls.base_url")
        if status in _HOPELESS or complaint.code == "insufficient_quota":
            why = _HOPELESS.get(status, "the quota is used up; raise it")
            raise SaeflowError(f"{self.name}: {why.format(key=self.asked_by.key)} ({reason})")
        if status == 429:
            wait = _seconds(reply.headers.get("Retry-After") if reply else None)
            if wait > LONGEST_WAIT:
                raise SaeflowError(
                    f"{self.name}: asks to wait {wait:.0f} s ({reason}); start again then"
                )
            return Exchange(reason=reason, again=True, reached=False, wait=wait, billed=False)
        if complaint.is_refusal:
            return Exchange(reason=f"refused: {reason}", billed=False)
        if (
            status in (400, 422)
            and format_asked != FORMATS[-1]
            and _is_about_format(complaint.words)
        ):
            if self.format == format_asked:  # the first of several calls that were refused together
                self.format = FORMATS[FORMATS.index(format_asked) + 1]
            return Exchange(reason=reason, again=True, reached=False, wait=None, billed=False)
        again = status in (200, 408, 409) or status >= 500
        return Exchange(reason=reason, again=again, reached=False, billed=False)

    async def close(self) -> None:
        """Close the connections."""
        await self.connection.close()


def _is_about_format(words: str) -> bool:
    return any(
        name in words.lower()
        for name in ("response_format", "json_schema", "schema", "json_object", "guided")
    )


def _seconds(header: str | None) -> float:
    """What ``Retry-After`` says, as seconds or as a date; 0 where it says nothing."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(seconds, 0.0) if not math.isnan(seconds) else 0.0
