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
    threads: options.Threads = 1,
) -> None:
    """Write report/index.html with all it needs beside it; it opens without a network."""
    options.set_pools(threads)
    from saeflow.chess.report.io import write_report
    from saeflow.describe.study import stage_table

    write_report(study, output, stage_table(study / "benchmarks"))
