"""``saeflow figures``: tables to figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config, kinds, options
from saeflow.errors import SaeflowError

app = typer.Typer(help="Draw figures.", no_args_is_help=True)


@app.callback()
def stage() -> None:
    """Draw figures from tables; no model is run."""


@app.command()
def draw(
    name: Annotated[str, typer.Argument(help="Which figure.")],
    tables: Annotated[
        list[Path],
        typer.Argument(help="The tables it is drawn from; a folder stands for its files."),
    ],
    study: Annotated[Path, typer.Option(help="Folder of the study.")],
    settings: options.Settings,
    output: Annotated[Path, typer.Option(help="Folder of the figures.")],
    facts: Annotated[
        str,
        typer.Option(
            help="What the figure says of the study's config, such as its unit of scale; JSON, or "
            "@FILE."
        ),
    ] = "{}",
) -> None:
    """Draw one figure as PNG and SVG, with the table behind it as CSV."""
    options.set_pools(1)
    from saeflow.figures.io import read_tables, write_figure

    figures = kinds.figures()
    if name not in figures:
        raise SaeflowError(f"figures: there is no figure '{name}'; there are {', '.join(figures)}")
    read = read_tables(figures[name], study, options.all_files(tables))
    drawn = options.parsed(config.Figures, settings)
    write_figure(figures[name], read, drawn, output, options.parsed_facts(facts))
