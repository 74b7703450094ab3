"""``saeflow chess blunders``: moves that lose much."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.chess.analyses.blunders.settings import Blunders
from saeflow.chess.analyses.engine.settings import Engine

app = typer.Typer()


@app.command()
def blunders(
    evaluations: Annotated[
        Path, typer.Option(help="What an engine says of the moves that were played.")
    ],
    transitions: Annotated[
        Path, typer.Option(help="Table of transition points, of the split `eval`.")
    ],
    settings: options.Settings,
    search: Annotated[
        str, typer.Option(help="The section `engine`, as JSON: how moves are judged.")
    ],
    output: options.Output,
) -> None:
    """Find the blunders: of the moves that were played, and of the weakest rating's where a
    stronger one is right."""
    options.set_pools(1)
    import polars as pl

    from saeflow.chess.analyses.blunders.blunders import BLUNDERS, blunder_set
    from saeflow.chess.analyses.engine.engine import ENGINE
    from saeflow.chess.analyses.engine.engine import evaluate as ask
    from saeflow.chess.analyses.transitions.transitions import TRANSITIONS
    from saeflow.tables import read_table, write_table

    wanted, engine = options.parsed(Blunders, settings), options.parsed(Engine, search)
    beat = options.progress("evaluate, positions")
    played = read_table(evaluations, ENGINE)
    solved = read_table(transitions, TRANSITIONS).filter(pl.col("kind") == "transition")
    said = ask(solved["fen"].to_list(), solved["weakest_choice"].to_list(), engine, beat)
    chosen = said.with_columns(solved["row"], split=pl.lit("eval"))
    write_table(output, blunder_set(played, chosen, wanted.least), BLUNDERS)
