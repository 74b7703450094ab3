"""Questions to the judge of `judge_server`, and the service that asks them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from saeflow.config.goal import Goal
from saeflow.config.sections import Calls, Judge, Price
from saeflow.decoding.completion import Completion
from saeflow.endpoint.inquiries import Inquiry
from saeflow.endpoint.ledger import Ledger
from saeflow.endpoint.service import Service
from saeflow.judging.templates import RATING

GOAL = Goal(
    title="Sea", criterion="The text is about the sea.", positive=["a", "b"], negative=["c", "d"]
)
FAST = {"backoff": 0.002, "timeout": 30.0, "concurrency": 32, "attempts": 24}
PRICE = Price(input=1000.0, output=1000.0)  # a call of the server, 110 tokens, costs 0.11


def completions_of(texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "completion_id": [f"id{row}" for row in range(len(texts))],
            "prompt": ["I think"] * len(texts),
            "text": texts,
            "scale_index": [0] * len(texts),
        }
    )


def service(
    url: str, path: Path, judge: dict[str, object] | None = None, **calls: object
) -> Service:
    settings = Judge(**{"kind": "openai", "model": "loopback", **(judge or {})})
    return Service(
        settings, Calls(**{**FAST, "base_url": url, **calls}), Ledger(path / "ledger.sqlite")
    )


def questions(count: int) -> list[Inquiry]:
    return [
        Inquiry(RATING, GOAL.criterion, (Completion("I think", f"I think {i}"),))
        for i in range(count)
    ]
