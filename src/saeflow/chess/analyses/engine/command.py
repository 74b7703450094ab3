"""``saeflow chess evaluate``: an engine's word on positions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.chess import options as chess_options
from saeflow.chess.analyses.engine.settings import Engine

app = typer.Typer()


@app.command()
def evaluate(
    positions: chess_options.Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    part: Annotated[
        int, typer.Option(help="Which of the jobs: each evaluates engine.positions_per_job.", min=0)
    ] = 0,
) -> None:
    """Ask an engine for the best moves, and what the moves that were played lose."""
    options.set_pools(1)
    import numpy as np
    import polars as pl

    from saeflow.chess.analyses.engine.engine import ENGINE
    from saeflow.chess.analyses.engine.engine import evaluate as ask
    from saeflow.chess.games.boards import write_fens
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.games.moves import MOVES
    from saeflow.seeds import numpy_generator
    from saeflow.tables import write_table

    wanted, beat = options.parsed(Engine, settings), options.progress("evaluate, positions")
    examples = load_examples(positions, wanted.split)
    drawn = numpy_generator(seed, "chess evaluations").permutation(len(examples.games))[
        : wanted.positions
    ]
    rows = np.sort(drawn)[part * wanted.positions_per_job :][: wanted.positions_per_job]
    here = examples.part(rows)
    said = ask(write_fens(here.boards), [MOVES[move] for move in here.moves], wanted, beat)
    table = said.with_columns(split=pl.lit(wanted.split), row=pl.Series(rows))
    write_table(output, table, ENGINE)
    if silent := table["evaluation"].null_count():
        options.say(f"the engine gave no score of {silent:,} of {len(table):,} positions", err=True)


@app.command("gather-evaluations")
def gather_evaluations(
    parts: Annotated[
        list[Path], typer.Argument(help="Tables of `saeflow chess evaluate`, in order.")
    ],
    output: options.Output,
) -> None:
    """Put the tables of several jobs together."""
    options.set_pools(1)
    import polars as pl

    from saeflow.chess.analyses.engine.engine import ENGINE
    from saeflow.tables import read_table, write_table

    write_table(output, pl.concat([read_table(part, ENGINE) for part in parts]), ENGINE)
