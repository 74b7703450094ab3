"""``saeflow steering export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.analyses.steering.exports import EXPORTS


def export(
    named: Annotated[str, typer.Option("--format", help=f"What is written: {', '.join(EXPORTS)}.")],
    output: options.Output,
    vector: Annotated[Path | None, typer.Option(help="vector.safetensors")] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="How much of the vector is added, as in the tables; 1 by default."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of the model that is steered.")] = None,
    completions: Annotated[Path | None, typer.Option(help="completions.parquet")] = None,
    scores: Annotated[
        Path | None, typer.Option(help="scores.parquet of these completions.")
    ] = None,
) -> None:
    """Write a vector, or completions with their scores, as a file of another program."""
    options.set_pools(1)
    from saeflow.analyses.steering.exports import content

    files = {"vector": vector, "model": model, "completions": completions, "scores": scores}
    content.export(output, named, {name: file for name, file in files.items() if file}, scale)
