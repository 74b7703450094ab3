"""``saeflow chess report``: the static report of a study of chess."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options

app = typer.Typer()


@app.command()
def report(
    study: Annotated[
        Path, typer.Option(help="Folder of the study; what its config does not name is not shown.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the report; what it held is replaced.")],
    figures: Annotated[
        str, typer.Option(help="Names of the study's figures, with commas between them.")
    ] = "",
    threads: options.Threads = 1,
) -> None:
    """Write report/index.html with all it needs beside it; it opens without a network."""
    options.set_pools(threads)
    from saeflow.chess.report.io import write_report
    from saeflow.describe.study import stage_table

    names = [name for name in figures.split(",") if name]
    write_report(study, output, names, stage_table(study / "benchmarks"))
