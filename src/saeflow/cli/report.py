"""``saeflow report``: the static report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow.cli import options

app = typer.Typer(help="Write the report.", no_args_is_help=True)


@app.callback()
def stage() -> None:
    """Write the report from tables and figures; no model is run."""


@app.command()
def write(
    files: Annotated[
        list[Path], typer.Argument(help="Files of the study that the report shows; a folder stands for its files.")
    ],
    study: Annotated[Path, typer.Option(help="Folder of the study.")],
    output: Annotated[Path, typer.Option(help="Folder of the report.")],
) -> None:
    """Write report/index.html with all it needs beside it; it opens without a network."""
    options.set_pools(1)
    from saeflow.report.io import write_report

    write_report(study, options.all_files(files), output)
