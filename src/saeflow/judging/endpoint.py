"""One request to an OpenAI-compatible endpoint, and everything that can come of it, as an `Exchange`."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncOpenAI,
    DefaultAioHttpClient,
    RequestOptions,
    omit,
)

from saeflow.config.sections import Calls, Judge
from saeflow.errors import SaeflowError
from saeflow.judging.inquiries import Exchange, Inquiry

PATH = "/chat/completions"
FORMATS = ("json_schema", "json_object", "none")
"""How the form of an answer is asked for, the strictest first; an endpoint that refuses one is asked for the next."""
LONGEST_WAIT = 600.0  # seconds; an endpoint that asks for more is asked again another day
LONGEST_REASON = 200  # characters
# Headers that tell the endpoint of this machine; a fifth of what the client spends on a call goes into headers.
_TELEMETRY = ("Arch", "Async", "Lang", "OS", "Package-Version", "Read-Timeout", "Retry-Count", "Runtime")
_WITHOUT_TELEMETRY = RequestOptions(
    headers={f"X-Stainless-{name}": omit for name in (*_TELEMETRY, "Runtime-Version")},
)
_NO_KEY = "none"  # what a server of one's own is sent
_HOPELESS = {
    401: "the key is refused; correct it",
    402: "the account is empty; fill it",
    404: "there is no such model or address; correct judge.model or judge.base_url",
}


class Endpoint:
    """A client of one endpoint for one judge.

    The client's own retries are off: they would be seen neither by the budget nor by the other calls, which must
    slow down too, and they know no time limit for an answer that trickles in.
    """

    def __init__(self, judge: Judge, calls: Calls) -> None:
        self.judge, self.calls = judge, calls
        self.format = FORMATS[0]
        self._key = find_key(judge, calls)
        self.client = AsyncOpenAI(
            api_key=self._key,
            base_url=judge.base_url,
            max_retries=0,
            timeout=calls.timeout,
            http_client=DefaultAioHttpClient(),
        )
        self._url = self.address.rstrip("/") + PATH  # whole, which spares the client a merge per call

    @property
    def address(self) -> str:
        """Where the endpoint is."""
        return str(self.client.base_url)

    @property
    def name(self) -> str:
        """As errors name it."""
        return f"judge '{self.judge.model}' at {self.address}"

    def body(self, inquiry: Inquiry) -> dict[str, Any]:
        """The request for one question."""
        wanted = {name: value for name, value in self.judge.parameters.items() if value is not None}
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
            SaeflowError: the endpoint will answer no question at all: a wrong key, address or model, an empty account.
        """
        began, format_asked = time.monotonic(), self.format
        try:
            async with asyncio.timeout(self.calls.timeout):  # the client's own time-out starts anew with every byte
                content = json.dumps(self.body(inquiry)).encode()
                raw = await self.client.post(self._url, cast_to=str, content=content, options=_WITHOUT_TELEMETRY)
            exchange = read_answer(raw, inquiry)
        except (TimeoutError, APITimeoutError):
            reason = f"no answer within {self.calls.timeout:g} s"
            exchange = Exchange(reason=reason, again=True, reached=False)
        except APIConnectionError as error:
            reason = f"the connection failed ({_first_line(error.__cause__ or error)})"
            exchange = Exchange(reason=reason, again=True, reached=False)
        except APIStatusError as error:
            exchange = self._turned_away(error, format_asked)
        return exchange._replace(
            seconds=time.monotonic() - began, reason=self.redacted(exchange.reason), raw=self.redacted(exchange.raw)
        )

    def redacted(self, text: str | None) -> str | None:
        """A text without the key, which servers are known to repeat in their complaints."""
        return text.replace(self._key, "***") if text and self._key != _NO_KEY else text

    def _turned_away(self, error: APIStatusError, format_asked: str) -> Exchange:
        status, told = error.status_code, _first_line(error.message)
        reason = f"HTTP {status}: {told}"
        if status in _HOPELESS or getattr(error, "code", None) == "insufficient_quota":
            why = _HOPELESS.get(status, "the quota is used up; raise it")
            raise SaeflowError(f"{self.name}: {why} ({self.redacted(reason)})")
        if status == 429:
            wait = _seconds(error.response.headers.get("retry-after"))
            if wait > LONGEST_WAIT:
                raise SaeflowError(f"{self.name}: asks to wait {wait:.0f} s; start again then")
            return Exchange(reason=reason, again=True, reached=False, wait=wait, billed=False)
        if status in (400, 422) and format_asked != FORMATS[-1] and _is_about_format(told):
            if self.format == format_asked:  # the first of several calls that were refused together
                self.format = FORMATS[FORMATS.index(format_asked) + 1]
            return Exchange(reason=reason, again=True, reached=False, wait=None, billed=False)
        return Exchange(reason=reason, again=status in (408, 409) or status >= 500, reached=status < 500, billed=False)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


def read_answer(raw: str, inquiry: Inquiry) -> Exchange:
    """The exchange in the body of a chat completion."""
    found = Exchange(raw=raw)
    try:
        body = json.loads(raw)
        usage, choices = body.get("usage") or {}, body.get("choices") or []
        found = found._replace(
            model=body.get("model"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
        if not choices:
            return found._replace(reason="the answer has no choices", again=True)
        message, ended = choices[0]["message"], choices[0].get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, TypeError, AttributeError):
        return found._replace(reason="the body is not a chat completion", again=True)
    if refusal or ended == "content_filter":
        return found._replace(reason=f"refused: {_first_line(refusal or 'content filter')}")
    if not isinstance(content, str):
        return found._replace(reason="the answer is empty", again=True)
    try:
        return found._replace(value=inquiry.template.parse(content))
    except ValueError as error:
        return found._replace(reason=str(error), again=True)


def find_key(judge: Judge, calls: Calls, dotenv: Path = Path(".env")) -> str:
    """The key from the environment, else from ``.env``; a server of one's own needs none.

    Raises:
        SaeflowError: there is no key and the endpoint is OpenAI's.
    """
    from dotenv import dotenv_values

    key = os.environ.get(calls.key) or (dotenv_values(dotenv).get(calls.key) if dotenv.is_file() else None)
    if not key and not judge.base_url:
        absent = f"neither the environment nor .env has {calls.key}"
        raise SaeflowError(f"calls.key: {absent}; set it, or name another endpoint in judge.base_url")
    return key or _NO_KEY


def _is_about_format(told: str) -> bool:
    return any(word in told.lower() for word in ("response_format", "json_schema", "schema", "json_object", "guided"))


def _seconds(header: str | None) -> float:
    """What ``Retry-After`` says, as seconds or as a date; 0 where it says nothing."""
    if not header:
        return 0.0
    try:
        return max(float(header), 0.0)
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            return max(parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
        except (ValueError, TypeError):
            return 0.0


def _first_line(value: object) -> str:
    return " ".join(str(value).split())[:LONGEST_REASON]
