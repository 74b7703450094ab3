"""What came back from an endpoint, read: an answer, a refusal, or a complaint. Nothing that can
come back is an error.

Endpoints are not all alike and not all well-meaning: every value is looked at before it is
believed.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from saeflow.endpoint.connection import Reply, first_line
from saeflow.endpoint.inquiries import CHARACTERS_PER_TOKEN, Exchange, Inquiry

MOST_TOKENS = 10**9  # of one answer; what counts more is no count
KEPT = 100_000  # characters of an answer that are kept as they came
_FILTERED = ("content_filter", "content management policy", "moderation", "safety system")


class Complaint(NamedTuple):
    """An endpoint's reason for giving no answer."""

    status: int
    words: str
    code: str = ""

    def __str__(self) -> str:
        opening = "an error in place of an answer" if self.status == 200 else f"HTTP {self.status}"
        return f"{opening}: {self.words}"

    @property
    def is_refusal(self) -> bool:
        """Whether it is about what this text says, rather than about how it was asked."""
        said = f"{self.code} {self.words}".lower()
        return self.status in (400, 403) and any(word in said for word in _FILTERED)


def decoded(body: bytes) -> str:
    """A body as text, whatever its encoding; bytes that mean nothing are replaced."""
    return body.decode(json.detect_encoding(body), "replace")


def parsed(text: str) -> Any:
    """A JSON value.

    Raises:
        ValueError: it is none, or is nested too deep to be one.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def complaint_in(reply: Reply) -> Complaint | None:
    """The complaint of a reply; some send theirs as if it were an answer, with status 200."""
    if reply.status // 100 == 2 and b'"error"' not in reply.body:
        return None  # most are answers, and need not be read twice
    text = decoded(reply.body)
    try:
        body = parsed(text)
    except ValueError:
        body = None
    return complaint_of(
        200 if reply.status // 100 == 2 else reply.status, text if body is None else body
    )


def complaint_of(status: int, body: Any) -> Complaint | None:
    """The complaint of a status and a body that was parsed; None if it may be an answer."""
    error = body.get("error") if isinstance(body, dict) else None
    if status == 200 and (not error or body.get("choices")):
        return None
    said = error or body
    if not isinstance(said, dict):
        return Complaint(status, first_line(said))
    code = said.get("code")
    if status == 200 and isinstance(code, int) and 400 <= code < 600:
        status = code
    words = said.get("message") or said.get("detail") or said
    return Complaint(status, first_line(words), first_line(code or said.get("type") or ""))


def read_answer(raw: str, inquiry: Inquiry) -> Exchange:
    """The exchange in the body of a chat completion."""
    exchange = Exchange(raw=raw[:KEPT])
    try:
        body = parsed(raw)
        choices = body.get("choices") or []
    except (ValueError, AttributeError):
        return exchange._replace(reason="the body is not a chat completion", again=True)
    message, ended = _first(choices)
    content, thoughts = _text(message.get("content")), _text(message.get("reasoning_content"))
    prompt_tokens, completion_tokens = _tokens(body.get("usage"), inquiry, content + thoughts)
    exchange = exchange._replace(
        model=first_line(body["model"]) if body.get("model") else None,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )
    if not choices:
        return exchange._replace(reason="the answer has no choices", again=True)
    if (refusal := message.get("refusal")) or ended == "content_filter":
        return exchange._replace(reason=f"refused: {first_line(refusal or 'content filter')}")
    try:
        return exchange._replace(value=inquiry.template.parse(content))
    except ValueError as error:
        if ended == "length":  # asked again, it would be cut at the same place
            cut = f"the answer was cut off at its token limit ({completion_tokens} tokens)"
            return exchange._replace(reason=cut)
        return exchange._replace(
            reason=first_line(error) if content else "the answer is empty", again=True
        )


def _first(choices: Any) -> tuple[dict[str, Any], Any]:
    """Message and end of the first choice; an empty message where there is none."""
    choice = choices[0] if isinstance(choices, list) and choices else {}
    message = choice.get("message") if isinstance(choice, dict) else None
    ended = choice.get("finish_reason") if isinstance(choice, dict) else None
    return (message if isinstance(message, dict) else {}), ended


def _text(content: Any) -> str:
    """What a message says: a text, or a list of parts, of which those that hold thoughts do not
    count."""
    parts = content if isinstance(content, list) else [content]
    said = [
        part
        for part in parts
        if not isinstance(part, dict) or part.get("type") in (None, "text", "output_text")
    ]
    texts = [part.get("text") if isinstance(part, dict) else part for part in said]
    return "".join(text for text in texts if isinstance(text, str))


def _tokens(usage: Any, inquiry: Inquiry, answer: str) -> tuple[int, int]:
    """Tokens of question and answer: as the endpoint counts them, else a guess from the lengths of
    the texts.

    Without a guess a limit in dollars would hold for no endpoint that keeps silent about them.
    """
    counted = usage if isinstance(usage, dict) else {}
    prompt, completion, total = (
        _count(counted.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    if completion is None or (not completion and answer):
        completion = max(round(len(answer) / CHARACTERS_PER_TOKEN), 1)
        if prompt and total:
            completion = max(completion, total - prompt)
    if not prompt:
        prompt = max(round(inquiry.characters / CHARACTERS_PER_TOKEN), (total or 0) - completion, 1)
    return prompt, completion


def _count(value: Any) -> int | None:
    """A number of tokens that can be one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
