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
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="ANALYSIS=FOLDER: where files lie that the config names and pages show, such as "
            "goals; by default where the config says."
        ),
    ] = None,
    threads: options.Threads = 1,
) -> None:
    """Write report/index.html with all it needs beside it; it opens without a network."""
    options.set_pools(threads)
    from saeflow.analyses.reading import read_study
    from saeflow.describe.study import jobs_of
    from saeflow.report.folder import StudyFolder
    from saeflow.report.io import write_report

    named = (text.partition("=") for text in beside or ())
    folder = StudyFolder(study, read_study, {key: Path(place) for key, _, place in named})
    write_report(folder, output, jobs_of(study / "benchmarks"))
