"""``saeflow judge``: completions to scores, scores to tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import config, options
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    import polars as pl

    from saeflow.endpoint.ledger import Ledger
    from saeflow.endpoint.service import Service

app = typer.Typer(help="Score completions and summarise them.", no_args_is_help=True)

Calls = Annotated[str, typer.Option("--calls", help="The section 'calls' of the config, as JSON.")]
LedgerFile = Annotated[
    Path, typer.Option(help="ledger.sqlite of the study, for the judge 'openai'.")
]
Completions = Annotated[
    list[Path], typer.Argument(help="completions.parquet of every goal and method.")
]


@app.command()
def score(
    completions: Annotated[Path, typer.Option(help="completions.parquet")],
    goal: Annotated[Path, typer.Option(help="The goal's YAML file.")],
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the unsteered model, for judges that ask for its loss."),
    ] = None,
    ledger: LedgerFile | None = None,
    calls: Calls = "{}",
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Have one goal's completions judged for behaviour and coherence."""
    options.set_pools(threads)
    from saeflow.judging.io import write_scores
    from saeflow.judging.scores import score_completions

    judge = options.parsed(config.Judge, settings)
    losses = None
    if model:
        options.use_device(threads)
        from saeflow.judging.losses import model_losses

        losses = model_losses(
            options.open_model(model, dtype), progress=options.progress("judge, completions")
        )
    service = _service(judge, calls, ledger) if judge.kind == "openai" else None
    found = score_completions(
        _read(completions), config.read_goal(goal), judge, seed, losses, service=service
    )
    write_scores(output, found)


def _read(completions: Path) -> pl.DataFrame:
    from saeflow.steering.schemas import COMPLETIONS_SCHEMA
    from saeflow.tables import read_table

    return read_table(completions, COMPLETIONS_SCHEMA)


def _service(judge: config.Judge, calls: str, ledger: Path | None) -> Service:
    """The judging model of a study, with someone at the terminal or the log to tell."""
    from saeflow.endpoint.ledger import Ledger
    from saeflow.endpoint.service import Estimate, Service

    if ledger is None:
        raise SaeflowError("judge 'openai': answers are kept in a ledger; name one with --ledger")

    def announce(estimate: Estimate) -> None:
        options.say(f"judge '{judge.model}': {estimate}", err=True)

    limits = options.parsed(config.Calls, calls)
    return Service(judge, limits, Ledger(ledger), announce, options.progress("judge, questions"))


def _goal_folders(completions: list[Path]) -> list[Path]:
    """The folders of the goals, each once."""
    return list(dict.fromkeys(path.parents[1] for path in completions))


@app.command()
def pairs(
    completions: Completions,
    best: Annotated[
        Path, typer.Option(help="best.parquet: the scale that each method is compared at.")
    ],
    goals: Annotated[Path, typer.Option(help="Folder of the goals' YAML files.")],
    settings: options.Settings,
    summary: Annotated[str, typer.Option(help="The section 'summary' of the config, as JSON.")],
    seed: options.Seed,
    ledger: LedgerFile,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    calls: Calls = "{}",
    threads: options.Threads = 1,
) -> None:
    """Have methods compared side by side on held-out samples, in both orders, and rate them."""
    options.set_pools(threads)
    import polars as pl

    from saeflow.judging.preferences import judge_pairs, pair_up
    from saeflow.judging.ratings import rate
    from saeflow.judging.summary_io import write_ratings
    from saeflow.tables import read_table

    judge, halves = options.parsed(config.Judge, settings), options.parsed(config.Summary, summary)
    table = pl.concat([_read(path) for path in completions])
    paired = pair_up(table, read_table(best), judge.pairs, halves.selection, seed)
    criteria = {
        name: config.read_goal(goals / f"{name}.yaml").criterion for name in paired["goal"].unique()
    }
    preferences = judge_pairs(paired, criteria, _service(judge, calls, ledger))
    write_ratings(output, preferences, rate(preferences, halves.bootstrap, halves.level, seed))


@app.command()
def plan(
    study: Annotated[
        list[Path], typer.Argument(help="Config files, later ones over earlier ones.")
    ],
    results: Annotated[Path, typer.Option(help="Folder of all studies' results.")] = Path(
        "results"
    ),
) -> None:
    """Print what judging the study's completions would take: calls, tokens, price, minutes. Makes
    no call."""
    options.set_pools(1)
    from saeflow.config.locations import goal_file
    from saeflow.endpoint.ledger import Ledger
    from saeflow.endpoint.prices import DATE
    from saeflow.endpoint.service import Service, estimate
    from saeflow.judging.hosted import questions_about

    settings = config.read_study(*study)
    if settings.judge.kind != "openai":
        options.say(f"judge '{settings.judge.kind}' makes no calls")
        return
    folder = results / settings.study / "steering"
    asked = [
        inquiry
        for goal in settings.goals.names
        for method in settings.steering.methods
        if (file := folder / goal / method / "completions.parquet").is_file()
        for inquiry in questions_about(
            _read(file), config.read_goal(goal_file(settings, goal)), settings.judge
        )
    ]
    ledger = Ledger(results / settings.study / "judging" / "ledger.sqlite")
    service = Service(settings.judge, settings.calls, ledger)
    spent, prices = ledger.spent(), "" if settings.calls.price else f", prices of {DATE}"
    options.say(f"{settings.judge.model}: {estimate(asked, service)}{prices}")
    options.say(f"spent so far: {spent.calls:,} calls, US$ {spent.usd:.4f}")


@app.command()
def export(ledger: LedgerFile, output: options.Output) -> None:
    """Write every answer of a ledger, and what it took, as Parquet."""
    from saeflow.endpoint.ledger import CALLS_SCHEMA
    from saeflow.tables import write_table

    write_table(output, _existing(ledger).calls(), CALLS_SCHEMA)


@app.command()
def forget(
    ledger: LedgerFile,
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


@app.command()
def divergence(
    completions: Completions,
    model: options.ModelFolder,
    output: options.Output,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Measure how far steering moves the model on each completion; the vectors lie beside the
    completions."""
    options.use_device(threads)
    import polars as pl

    from saeflow.judging.divergence import divergences
    from saeflow.judging.summary_io import DIVERGENCE_SCHEMA
    from saeflow.steering.io import load_vector
    from saeflow.tables import write_table

    lm, found = options.open_model(model, dtype), []
    for path in completions:
        vector = load_vector(path.with_name("vector.safetensors"))
        told = options.progress(f"{path.parent.name}, completions")
        found.append(
            divergences(lm, vector.hook, vector.of_width(lm.d_model), _read(path), progress=told)
        )
    write_table(output, pl.concat(found), DIVERGENCE_SCHEMA)


@app.command()
def summarise(
    completions: Completions,
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    threads: options.Threads = 1,
) -> None:
    """Summarise scores, which lie beside the completions, and divergences into tables with
    intervals."""
    options.set_pools(threads)
    import polars as pl

    from saeflow.judging.io import read_scores
    from saeflow.judging.scores import require_scores
    from saeflow.judging.summary import summarise as summarised
    from saeflow.judging.summary_io import DIVERGENCE_SCHEMA, write_summaries
    from saeflow.tables import read_table

    scores = pl.concat([read_scores(path.with_name("scores.parquet")) for path in completions])
    require_scores(scores)
    measured = [
        file
        for goal in _goal_folders(completions)
        if (file := goal / "divergence.parquet").is_file()
    ]
    found = summarised(
        pl.concat([_read(path) for path in completions]),
        scores,
        options.parsed(config.Summary, settings),
        seed,
        pl.concat([read_table(file, DIVERGENCE_SCHEMA) for file in measured]) if measured else None,
    )
    write_summaries(output, found)
