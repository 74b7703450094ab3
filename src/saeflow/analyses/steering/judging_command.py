"""``saeflow steering score`` and ``saeflow steering pairs``: what a judge says of completions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeflow import config, options
from saeflow.analyses.steering.settings import Summary

if TYPE_CHECKING:
    import polars as pl

CompletionFiles = Annotated[
    list[Path], typer.Argument(help="completions.parquet of every goal and method.")
]


def score(
    completions: Annotated[
        list[Path],
        typer.Argument(
            help="completions.parquet of the goal's methods, each in a folder called as its method."
        ),
    ],
    goal: Annotated[Path, typer.Option(help="The goal's YAML file.")],
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[
        Path, typer.Option(help="Folder of the goal, in which every method has or gets one.")
    ],
    searched: Annotated[
        Path | None,
        typer.Option(help="completions.parquet of the goal's search, in a folder of its own."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="Folder of the unsteered model, for judges that ask for its loss."),
    ] = None,
    ledger: options.LedgerFile | None = None,
    calls: options.Calls = "{}",
    parts: options.PartsFolder = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Have a goal's completions judged for behaviour and coherence."""
    options.set_pools(threads)
    import polars as pl

    from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA, SEARCHED_SCHEMA
    from saeflow.endpoint.opening import open_service
    from saeflow.judging.io import write_scores
    from saeflow.judging.scores import SCORES_SCHEMA, score_completions
    from saeflow.parts import Parts
    from saeflow.tables import read_table

    judge, asked = options.parsed(config.Judge, settings), config.read_goal(goal)
    losses = None
    if model:
        options.use_device(threads)
        from saeflow.judging.losses import model_losses

        losses = model_losses(
            options.open_model(model, dtype), progress=options.progress("judge, completions")
        )
    written = {file.absolute().parent.name: read_completions(file) for file in completions}
    if searched:
        table = read_table(searched, SEARCHED_SCHEMA)
        written[searched.absolute().parent.name] = table.select(*COMPLETIONS_SCHEMA)
    if judge.traits.is_hosted:  # all methods at once; what was answered is kept in the ledger
        service = open_service(judge, calls, ledger, "judge, questions")
        every = pl.concat(written.values())
        scored = score_completions(every, asked, judge, seed, losses, service=service)
        for method, table in written.items():
            own = scored.filter(pl.col("completion_id").is_in(table["completion_id"].implode()))
            write_scores(output / method / "scores.parquet", own)
        return
    kept = Parts(parts, "scores", (), judge, asked, seed, model, dtype)
    for method, table in written.items():
        make = partial(score_completions, table, asked, judge, seed, losses)
        write_scores(
            output / method / "scores.parquet",
            kept.table(method, SCORES_SCHEMA, [table], make),
        )


def read_completions(completions: Path) -> pl.DataFrame:
    """Read a table of completions; raises as `saeflow.tables.read_table` does."""
    from saeflow.analyses.steering.schemas import COMPLETIONS_SCHEMA
    from saeflow.tables import read_table

    return read_table(completions, COMPLETIONS_SCHEMA)


def pairs(
    completions: CompletionFiles,
    best: Annotated[
        Path, typer.Option(help="best.parquet: the scale that each method is compared at.")
    ],
    goals: Annotated[Path, typer.Option(help="Folder of the goals' YAML files.")],
    settings: options.Settings,
    count: Annotated[int, typer.Option(help="Samples per goal and pair of methods.")],
    summary: Annotated[
        str, typer.Option(help="The section `steering.summary` of the config, as JSON.")
    ],
    seed: options.Seed,
    ledger: options.LedgerFile,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    calls: options.Calls = "{}",
    threads: options.Threads = 1,
) -> None:
    """Have methods compared side by side on held-out samples, in both orders, and rate them."""
    options.set_pools(threads)
    import polars as pl

    from saeflow.analyses.steering.preferences import judge_pairs, pair_up
    from saeflow.analyses.steering.ratings import rate
    from saeflow.analyses.steering.summary_io import write_ratings
    from saeflow.endpoint.opening import open_service
    from saeflow.tables import read_table

    judge, halves = options.parsed(config.Judge, settings), options.parsed(Summary, summary)
    table = pl.concat([read_completions(path) for path in completions])
    paired = pair_up(table, read_table(best), count, halves.selection, seed)
    criteria = {
        name: config.read_goal(goals / f"{name}.yaml").criterion for name in paired["goal"].unique()
    }
    service = open_service(judge, calls, ledger, "judge, questions")
    preferences = judge_pairs(paired, criteria, service)
    write_ratings(output, preferences, rate(preferences, halves.bootstrap, halves.level, seed))
