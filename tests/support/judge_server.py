"""An OpenAI-compatible endpoint on loopback that fails on purpose, at stated rates.

The score of a text is a hash of criterion and text, so that a test can recompute it. Which faults a
question meets is a hash, too: each kind befalls a share of the questions, one request after the
other, and then there is an answer.

    python judge_server.py [--rates '{"http_500": 0.1}'] [--latency 0.05]

prints its port, and serves until its standard input is closed. ``GET /stats`` tells what it saw.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from label_reader import answer_of

TEXT = re.compile(r"<text>(.*?)</text>", re.S)
CRITERION = re.compile(r"^Criterion: (.*)$", re.M)
RETRY_AFTER = 0.004  # seconds
KEY = "sk-loopback-0123456789"


def uniform(*name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256("\x1f".join(name).encode()).digest()[:8], "big") / 2**64


def score_of(criterion: str, text: str) -> int:
    """What the server answers about a text, 1 to 10."""
    return 1 + int(uniform("score", criterion, text) * 10)


def faults_of(criterion: str, text: str, rates: Mapping[str, float]) -> list[str]:
    """What befalls a question before it is answered, in order."""
    kinds = [kind for kind, rate in rates.items() if uniform("fault", kind, criterion, text) < rate]
    return sorted(kinds, key=lambda kind: uniform("order", kind, criterion, text))


def completion(content: str | None, **message: Any) -> bytes:
    """The body of a chat completion."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": content, **message},
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "model": "loopback-1",
            "choices": [choice],
            "usage": usage,
        }
    ).encode()


ANSWERS = {  # faults that are an answer, HTTP 200
    "truncated_json": lambda: completion('{"score": '),
    "wrong_type": lambda: completion('{"score": [7]}'),
    "score_0": lambda: completion('{"score": 0}'),
    "score_11": lambda: completion('{"score": 11}'),
    "seven": lambda: completion('{"score": "seven"}'),
    "empty_choices": lambda: json.dumps({"id": "c", "choices": [], "usage": {"prompt_tokens": 100}}).encode(),
    "refusal": lambda: completion(None, refusal="I would rather not."),
    "html": lambda: b"<html><body>Bad gateway</body></html>",
}  # fmt: skip


def http(status: int, body: bytes, *headers: str) -> bytes:
    """A whole reply."""
    head = [
        f"HTTP/1.1 {status} X",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(head).encode() + body


def error(words: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": words, **more}}).encode()


UNSUPPORTED = "Unsupported parameter: 'max_tokens' is not supported with this model."
ALWAYS = {  # what a server may send to every question
    "http_400": http(400, error(UNSUPPORTED, code="unsupported_parameter")),
    "http_403": http(403, error("This key has no access to the model.")),
    "http_404": http(404, error("The model does not exist.")),
    "http_413": http(413, error("The context length is exceeded.")),
    "http_422": http(422, error("Input should be a valid string.")),
    "http_500": http(500, error("not now")),
    "half_a_character": http(400, json.dumps({"error": {"message": "cut \ud83d"}}).encode()),
    "error_in_200": http(200, error("The upstream provider is gone.")),
    "hopeless_in_200": http(200, error("User not found.", code=401)),
    "daily_limit": http(429, error("Rate limit exceeded: free-models-per-day.")),
    "filtered": http(400, error("The response was filtered.", code="content_filter")),
    "redirect": http(307, b"", "Location: http://someone:secret@127.0.0.1:9/v1?key=secret"),
    "redirect_nowhere": http(307, b"", "Location: http://[::1"),
    "odd_headers": http(
        400, error("no"), "Content-Type: a/b; charset=punycode", "Set-Cookie: a=b", "Location: //["
    ),
    "bad_chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nnonsense\r\n",
    "bad_head": b"HTTP/1.1 two hundred\r\n\r\n",
    "compressed": http(200, b"\x1f\x8b\x08", "Content-Encoding: gzip"),
    "too_long": http(200, b" " * (5 * 2**20)),
    "nested_body": http(200, b"[" * 100_000),
    "nested_answer": http(200, completion("[" * 100_000)),
    "no_object": http(200, b"[1]"),
    "cut_off": http(200, completion("").replace(b'"stop"', b'"length"')),
    "prose": http(200, completion('I would say {"score": 7}.')),
}


def shaped(content: Any, usage: Any = None, **more: Any) -> bytes:
    """The body of a chat completion, with anything in place of what is usual."""
    body = json.loads(completion("")) | more
    body["choices"][0]["message"]["content"] = content
    return json.dumps(body if usage is None else body | {"usage": usage}).encode()


SHAPES: dict[str, Callable[[str], bytes]] = {  # how an answer may come
    "fence": lambda text: shaped(f"```json\n{text}\n```"),
    "bare_fence": lambda text: shaped(f"Here it is:\n```\n{text}\n```"),
    "thoughts": lambda text: shaped(f"<think>\nThe criterion {{sea}} ...\n</think>\n\n{text}"),
    "whole_number": lambda text: shaped(text.replace("}", ".0}")),
    "byte_order_mark": lambda text: shaped(f"\ufeff{text}"),
    "parts": lambda text: shaped(
        [{"type": "text", "text": text[:4]}, {"type": "text", "text": text[4:]}]
    ),
    "thought_parts": lambda text: shaped(
        [{"type": "thinking", "text": "{}"}, {"type": "text", "text": text}]
    ),
    "end_of_turn": lambda text: shaped(f"{text}\n<|eot_id|>"),
    "marked_body": lambda text: b"\xef\xbb\xbf" + shaped(text),
    "half_a_character": lambda text: shaped(text, model="loopback \ud83d"),
    "odd_model": lambda text: shaped(text, model={"name": [1]}),
    "no_usage": lambda text: shaped(text, usage={}),
    "usage_0": lambda text: shaped(text, usage={"prompt_tokens": 0, "completion_tokens": 0}),
    "negative_usage": lambda text: shaped(
        text, usage={"prompt_tokens": -(10**9), "completion_tokens": -1}
    ),
    "endless_usage": lambda text: shaped(
        text, usage={"prompt_tokens": 10**30, "completion_tokens": 1e999}
    ),
    "odd_usage": lambda text: shaped(
        text, usage={"prompt_tokens": "many", "completion_tokens": [1]}
    ),
    "total_usage": lambda text: shaped(text, usage={"total_tokens": 110}),
}
STATUSES = {"rate_limit": 429, "rate_limit_told": 429, "http_500": 500, "http_503": 503}
OTHERS = ("reset", "timeout", "slow_drip")
FAULTS = (*ANSWERS, *STATUSES, *OTHERS)


class Server:
    """The state of one server."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.rates: dict[str, float] = json.loads(options.rates)
        self.latency: float = options.latency
        self.formats: list[str] = options.formats.split(",")
        self.first = bool(options.first)
        self.always: str = options.always
        self.shape: str = options.shape
        self.states: list[str] = options.states.split(",")
        self.lines: str = options.lines
        self.refused: list[str] = options.refused.split(",")
        self.seen: Counter[tuple[str, str]] = Counter()
        self.stats: Counter[str] = Counter()
        self.flying = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """All requests of one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"content-length: *(\d+)", head, re.I)
                body = await reader.readexactly(int(length[1])) if length else b""
                method, path, _ = head.split(" ", 2)
                if not await self.respond(method, path.partition("?")[0], head, body, writer):
                    break
        writer.close()

    async def respond(
        self, method: str, path: str, head: str, body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """One request; False if the connection is at its end."""
        if self.always and path != "/stats":
            self.stats["requests"] += 1
            writer.write(ALWAYS[self.always])
            await writer.drain()
            return not self.always.startswith("bad_")
        if path.endswith("/chat/completions"):
            self.stats["requests"] += 1
            self.flying += 1
            self.stats["most_at_once"] = max(self.stats["most_at_once"], self.flying)
            try:
                return await self.judge(json.loads(body), head, writer)
            finally:
                self.flying -= 1
        if path == "/stats":
            stats = {**self.stats, "questions": len(self.seen)}
            await send(writer, 200, json.dumps(stats).encode())
            return True
        status, answer = self.batch_api(method, path, head, body)
        await send(writer, status, answer)
        return True

    async def judge(self, request: dict[str, Any], head: str, writer: asyncio.StreamWriter) -> bool:
        """One chat completion."""
        arrived = asyncio.get_running_loop().time()
        asked = request.get("response_format", {}).get("type", "none")
        self.stats["telemetry"] += "x-stainless" in head.lower()
        if f"Bearer {KEY}" not in head:
            error = {"message": f"Incorrect API key provided: {head}", "code": "invalid_api_key"}
            await send(writer, 401, json.dumps({"error": error}).encode())
            return True
        if asked not in self.formats:
            self.stats["format_refused"] += 1
            error = {"message": f"response_format of type '{asked}' is not supported"}
            await send(writer, 400, json.dumps({"error": error}).encode())
            return True
        if any(name in request for name in self.refused):
            await send(writer, 400, error(UNSUPPORTED))
            return True
        criterion, texts = self.question(request)
        name = (criterion, "\n".join(texts))
        faults = faults_of(*name, self.rates)
        turn, self.seen[name] = self.seen[name], self.seen[name] + 1
        await asyncio.sleep(arrived + self.latency - asyncio.get_running_loop().time())
        if turn < len(faults):
            return await self.fail(faults[turn], writer)
        self.stats["answered"] += 1
        await send(writer, 200, self.answer(request, criterion, texts))
        return True

    def question(self, request: dict[str, Any]) -> tuple[str, list[str]]:
        """Criterion and texts, as a reader of the message would find them."""
        message = request["messages"][-1]["content"]
        texts = [json.loads(text) for text in TEXT.findall(message)]
        if criterion := CRITERION.search(message):
            return criterion[1], texts
        described = message.startswith("Description:")
        return (texts[0], texts[1:]) if described else ("", texts)

    def answer(self, request: dict[str, Any], criterion: str, texts: list[str]) -> bytes:
        """A comparison where two answers are named, else a score on the scale that the schema
        names."""
        schema = request.get("response_format", {}).get("json_schema", {}).get("schema", {})
        asked = schema.get("properties", {})
        if about_labels := answer_of(asked, criterion, texts):
            return completion(json.dumps(about_labels))
        if "better" in asked:
            scores = [score_of(criterion, text) for text in texts]
            better = "tie" if scores[0] == scores[1] else "A" if scores[0] > scores[1] else "B"
            better = "A" if self.first else better
            return completion(json.dumps({"better": better}))
        score = score_of(criterion, texts[-1])
        text = json.dumps(
            {"score": score % 3 if asked.get("score", {}).get("maximum") == 2 else score}
        )
        return SHAPES[self.shape](text) if self.shape else completion(text)

    async def fail(self, kind: str, writer: asyncio.StreamWriter) -> bool:
        self.stats[kind] += 1
        if kind in ANSWERS:
            await send(
                writer, 200, ANSWERS[kind](), "text/html" if kind == "html" else "application/json"
            )
        elif kind in STATUSES:
            extra = f"Retry-After: {RETRY_AFTER}\r\n" if kind == "rate_limit_told" else ""
            await send(writer, STATUSES[kind], b'{"error": {"message": "not now"}}', extra=extra)
        elif kind == "reset":
            writer.transport.abort()
            return False
        elif kind == "timeout":
            await asyncio.sleep(20)
        else:  # a byte now and then, so that no time-out of a read ever comes
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
            )
            for _ in range(2000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        return True

    def batch_api(self, method: str, path: str, head: str, body: bytes) -> tuple[int, bytes]:
        """Files and batches; a batch is done when it has been through its states, one for every
        look."""
        parts = path.removeprefix("/v1/").split("/")
        if parts == ["files"]:
            boundary = re.search(r"boundary=(\S+)", head)
            assert boundary
            content = next(
                p for p in body.split(b"--" + boundary[1].encode()) if b'name="file"' in p
            )
            name = f"file-{len(self.files)}"
            self.files[name] = content.partition(b"\r\n\r\n")[2].rstrip()
            return 200, json.dumps({"id": name, "object": "file", "purpose": "batch"}).encode()
        if parts[0] == "files":
            return 200, self.files[parts[1]]
        if parts == ["batches"] and method == "GET":
            return 200, json.dumps(
                {"object": "list", "data": list(self.batches.values()), "has_more": False}
            ).encode()
        if parts == ["batches"]:
            asked = json.loads(body)
            batch = {
                "id": f"batch-{len(self.batches)}",
                "object": "batch",
                "status": "in_progress",
                **asked,
            }
            self.batches[batch["id"]] = batch
            self.stats["batches"] += 1
            return 200, json.dumps(batch).encode()
        batch = self.batches[parts[1]]
        batch["status"] = self.states[min(self.stats[parts[1]], len(self.states) - 1)]
        if batch["status"] == "completed":
            self.finish(batch)
        self.stats[parts[1]] += 1
        return 200, json.dumps(batch).encode()

    def finish(self, batch: dict[str, Any]) -> None:
        lines = []
        for line in self.files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            criterion, texts = self.question(request["body"])
            self.stats["answered"] += 1
            response = {
                "status_code": 200,
                "body": json.loads(self.answer(request["body"], criterion, texts)),
            }
            lines.append(
                json.dumps({"custom_id": request["custom_id"], "response": response, "error": None})
            )
        random.Random(0).shuffle(lines)
        if self.lines == "separators":  # legal within a JSON string, and line ends to some readers
            lines = [
                line.replace('"custom_id"', '"note": "a\u2028b\u2029c\u0085d\x7f", "custom_id"', 1)
                for line in lines
            ]
        elif self.lines == "garbage":
            lines = [
                *lines[1:],
                lines[0][:-20],
                "not json",
                "[1]",
                '{"custom_id": [1]}',
                '{"response": null}',
            ]
        elif self.lines == "nothing":
            lines = []
        elif self.lines == "refused":
            refusal = {"status_code": 400, "body": json.loads(error(UNSUPPORTED))}
            lines = [json.dumps({**json.loads(line), "response": refusal}) for line in lines]
        self.files[f"out-{batch['id']}"] = "\n".join(lines).encode()
        batch |= {"output_file_id": f"out-{batch['id']}"}


async def send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    kind: str = "application/json",
    extra: str = "",
) -> None:
    head = (
        f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()


async def run(options: argparse.Namespace) -> None:
    server = await asyncio.start_server(Server(options).serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    raise SystemExit


@contextlib.contextmanager
def serving(**options: str) -> Iterator[str]:
    """A server in a process of its own; gives its base URL."""
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [sys.executable, str(Path(__file__)), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


def stats(base_url: str) -> Counter[str]:
    """What a server saw so far."""
    from urllib.request import urlopen

    with urlopen(base_url.removesuffix("/v1") + "/stats") as response:
        return Counter(json.load(response))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", default="{}")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--formats", default="json_schema,json_object,none")
    parser.add_argument("--always", default="", help="send this, of ALWAYS, to every question")
    parser.add_argument("--shape", default="", help="answer in this shape, of SHAPES")
    parser.add_argument("--refused", default=" ", help="parameters that requests must not have")
    parser.add_argument(
        "--states", default="in_progress,completed", help="of a batch, one for every look at it"
    )
    parser.add_argument("--lines", default="", help="what befalls the results of a batch")
    parser.add_argument("--first", default="", help="prefer whatever text stands first")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args()))
