"""``saeflow judge``: completions to scores, scores to tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config
from saeflow.cli import options

app = typer.Typer(help="Score completions and summarise them.", no_args_is_help=True)


@app.command()
def score(
    completions: Annotated[Path, typer.Option(help="completions.parquet")],
    goal: Annotated[Path, typer.Option(help="The goal's YAML file.")],
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the unsteered model, for judges that ask for its loss.")
    ] = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Have one goal's completions judged for behaviour and coherence."""
    options.set_pools(threads)
    from saeflow.judging.io import write_scores
    from saeflow.judging.scores import score_completions
    from saeflow.steering.schemas import COMPLETIONS_SCHEMA
    from saeflow.tables import read_table

    losses = None
    if model:
        options.use_threads(threads)
        from saeflow.judging.losses import model_losses

        losses = model_losses(options.open_model(model, dtype), progress=options.progress("judge, completions"))
    table, judge = read_table(completions, COMPLETIONS_SCHEMA), options.parsed(config.Judge, settings)
    write_scores(output, score_completions(table, config.read_goal(goal), judge, seed, losses))


@app.command()
def summarise(
    completions: Annotated[list[Path], typer.Argument(help="completions.parquet of every goal and method.")],
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    threads: options.Threads = 1,
) -> None:
    """Summarise the scores, which lie beside the completions, into tables with intervals."""
    options.set_pools(threads)
    import polars as pl

    from saeflow.judging.io import read_scores, write_summaries
    from saeflow.judging.summary import summarise as summarised
    from saeflow.steering.schemas import COMPLETIONS_SCHEMA
    from saeflow.tables import read_table

    found = summarised(
        pl.concat([read_table(path, COMPLETIONS_SCHEMA) for path in completions]),
        pl.concat([read_scores(path.with_name("scores.parquet")) for path in completions]),
        options.parsed(config.Summary, settings),
        seed,
    )
    write_summaries(output, found)
