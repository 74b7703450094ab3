"""A model behind an endpoint as commands open it."""

from __future__ import annotations

from pathlib import Path

from saeflow import options
from saeflow.config.sections import Calls, Judge
from saeflow.endpoint.inquiries import JUDGING, AskedBy
from saeflow.endpoint.ledger import Ledger
from saeflow.endpoint.service import Estimate, Service
from saeflow.errors import SaeflowError


def open_service(
    asked: Judge, calls: str, ledger: Path | None, what: str, asked_by: AskedBy = JUDGING
) -> Service:
    """A model behind an endpoint, with someone at the terminal or the log to tell.

    Args:
        asked: the model.
        calls: how it is called, as JSON.
        ledger: where its answers are kept.
        what: of the progress.
        asked_by: who has it asked.

    Raises:
        SaeflowError: there is no ledger.
    """
    if ledger is None:
        raise SaeflowError(
            f"model '{asked.model}': answers are kept in a ledger; name one with --ledger"
        )

    def announce(estimate: Estimate) -> None:
        options.say(f"model '{asked.model}': {estimate}", err=True)

    limits = options.parsed_in_silence(Calls, calls)
    progress = options.progress(what)
    return Service(asked, limits, Ledger(ledger), announce, progress, asked_by)
