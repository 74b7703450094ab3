"""``saeflow show``: what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options


def show(
    file: Annotated[Path, typer.Argument(help="Any artifact: a file or folder of results.")],
    rows: Annotated[
        int, typer.Option(help="Rows of a table, or texts of a corpus, that are shown.", min=0)
    ] = 5,
) -> None:
    """Describe any artifact: shapes, dtypes, rows, provenance; and show its first rows, or its
    first texts by the tokenizer of its study."""
    options.set_pools(1)
    from saeflow.describe.artifact import describe, first_rows

    for line in [*describe(file), *first_rows(file, rows)]:
        options.say(line)
