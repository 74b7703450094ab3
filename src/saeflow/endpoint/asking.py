"""Putting questions to a model behind an API.

A question that was asked before is answered from the ledger, what is asked is written down, and no
more is spent than may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from saeflow.endpoint.inquiries import Answer, Inquiry
from saeflow.endpoint.service import Service, estimate_new
from saeflow.errors import SaeflowError


def ask(inquiries: Sequence[Inquiry], service: Service) -> list[Answer]:
    """Answer questions, from the ledger where they have been asked before.

    Returns:
        One answer per question, in their order.

    Raises:
        SaeflowError: the endpoint answers nothing at all, or the budget is spent. What was answered
            is in the ledger.
    """
    keys = [inquiry.key(service.judge) for inquiry in inquiries]
    wanted = dict(zip(keys, inquiries, strict=True))  # the same question is asked once
    answers = service.ledger.answers(list(wanted))
    open_ = {key: inquiry for key, inquiry in wanted.items() if key not in answers}
    service.announce(estimate_new(list(open_.values()), len(wanted), service))
    if open_:
        if service.calls.max_usd and service.cost.price is None:
            unknown = f"the price of '{service.judge.model}' is not known"
            raise SaeflowError(
                f"calls.max_usd: {unknown}; set calls.price, or calls.max_calls instead"
            )
        answers |= _ask_new(open_, service)
    return [answers[key] for key in keys]


def _ask_new(open_: dict[str, Inquiry], service: Service) -> dict[str, Answer]:
    # The client takes half a second to import, and a run whose answers are all kept needs none.
    if service.calls.mode == "batch":
        from saeflow.endpoint.batches import ask_in_batches

        return asyncio.run(ask_in_batches(open_, service))
    from saeflow.endpoint.live import LiveRun

    return asyncio.run(LiveRun(service, len(open_)).all(open_))
