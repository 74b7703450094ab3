"""``saeflow show``: what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options


def show(
    file: Annotated[Path, typer.Argument(help="Any artifact: a file or folder of results.")],
) -> None:
    """Describe any artifact: shapes, dtypes, rows, provenance."""
    from saeflow.describe.artifact import describe

    for line in describe(file):
        options.say(line)
