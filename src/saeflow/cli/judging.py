"""``saeflow judge``: what paid judges would cost, and the ledger of what they were asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import config, options
from saeflow.counting import counted
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.endpoint.ledger import Ledger

app = typer.Typer(help="See what paid judges cost, and what they were asked.", no_args_is_help=True)


@app.command()
def plan(
    study: options.Configs,
    results: Annotated[Path, typer.Option(help="Folder of all studies' results.")] = Path(
        "results"
    ),
) -> None:
    """Print what judging the study's completions would take: calls, tokens, price, minutes. Makes
    no call."""
    options.set_pools(1)
    from saeflow.analyses.reading import read_study
    from saeflow.analyses.steering.judging_command import read_completions
    from saeflow.config.shipped import shipped_or_own
    from saeflow.endpoint.ledger import Ledger
    from saeflow.endpoint.prices import DATE
    from saeflow.endpoint.service import Service, estimate
    from saeflow.judging.hosted import questions_about

    settings = read_study(*study)
    if not (steering := settings.steering) or not steering.judge.traits.is_hosted:
        options.say("the study has no judge that makes calls")
        return
    judge, goals = steering.judge, shipped_or_own(steering.goals.directory)
    folder = results / settings.study / "steering"
    asked = [
        inquiry
        for goal in steering.goals.names
        for method in steering.methods
        if (file := folder / goal / method / "completions.parquet").is_file()
        for inquiry in questions_about(
            read_completions(file), config.read_goal(goals / f"{goal}.yaml"), judge
        )
    ]
    ledger = Ledger(results / settings.study / "judging" / "ledger.sqlite")
    service = Service(judge, settings.calls, ledger)
    spent, prices = ledger.spent(), "" if settings.calls.price else f", prices of {DATE}"
    options.say(f"{judge.model}: {estimate(asked, service)}{prices}")
    options.say(f"spent so far: {counted(spent.calls, 'call')}, US$ {spent.usd:.4f}")


@app.command()
def export(ledger: options.LedgerFile, output: options.Output) -> None:
    """Write every answer of a ledger, and what it took, as Parquet."""
    from saeflow.endpoint.ledger import CALLS_SCHEMA
    from saeflow.tables import write_table

    write_table(output, _existing(ledger).calls(), CALLS_SCHEMA)


@app.command()
def forget(
    ledger: options.LedgerFile,
    everything: Annotated[
        bool, typer.Option(help="Forget answers, too, not only failures.")
    ] = False,
) -> None:
    """Forget failures, so that the next run asks again; what was spent stays counted."""
    count = _existing(ledger).forget(failures_only=not everything)
    options.say(f"{ledger}: forgot {count:,} {'answers' if everything else 'failures'}")


def _existing(ledger: Path) -> Ledger:
    from saeflow.endpoint.ledger import Ledger

    if not ledger.is_file():
        raise SaeflowError(f"{ledger}: no such file; a ledger is made by the judge 'openai'")
    return Ledger(ledger)
