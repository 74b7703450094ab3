"""``saeflow report``: the static report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options

app = typer.Typer(help="Write the report.", no_args_is_help=True)


@app.callback()
def stage() -> None:
    """Write the report from tables and figures; no model is run."""


@app.command()
def write(
    study: Annotated[
        Path, typer.Option(help="Folder of the study; what its config does not name is not shown.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the report; what it held is replaced.")],
    figures: Annotated[
        str, typer.Option(help="Names of the study's figures, with commas between them.")
    ] = "",
    goals: Annotated[
        Path | None, typer.Option(help="Folder of the goals' files, for titles and criteria.")
    ] = None,
    threads: options.Threads = 1,
) -> None:
    """Write report/index.html with all it needs beside it; it opens without a network."""
    options.set_pools(threads)
    from saeflow.report.io import write_report

    write_report(study, output, [name for name in figures.split(",") if name], goals)
