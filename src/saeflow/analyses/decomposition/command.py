"""``saeflow decomposition``: directions as sums of few decoder rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.analyses.decomposition.settings import DecomposedDirections, PursuitCurves
from saeflow.errors import SaeflowError

app = typer.Typer(help="Decompose directions in SAEs.", no_args_is_help=True)
Named = Annotated[list[str] | None, typer.Option(help="NAME=FILE; may be given several times.")]


@app.callback()
def stage() -> None:
    """Decompose directions in the decoders of SAEs."""


@app.command()
def read(
    model: options.ModelFolder,
    hook: options.HookName,
    settings: options.Settings,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Activations of the texts.")],
    table: Annotated[Path, typer.Option(help="Table of the texts.")],
    texts: Named = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Read the texts of every contrast at the hook."""
    options.use_device(threads)
    from saeflow.analyses.decomposition.directions import TEXTS, read_contrasts, save_rows
    from saeflow.tables import write_table

    asked = options.parsed(DecomposedDirections, settings)
    lm = options.open_model(model, dtype)
    rows, described = read_contrasts(lm, hook, asked, _files(texts), seed)
    save_rows(output, rows)
    write_table(table, described, TEXTS)


@app.command()
def decompose(
    sae: options.SAEFolder,
    model: options.ModelFolder,
    manifest: options.Manifest,
    corpus: options.Corpus,
    activations: Annotated[Path, typer.Option(help="Activations of the texts.")],
    hook: options.HookName,
    settings: options.Settings,
    directions: Annotated[str, typer.Option(help="Which directions, as JSON, or @FILE.")],
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    vector: Annotated[
        list[Path] | None, typer.Option(help="vector.safetensors of steering.")
    ] = None,
    file: Named = None,
    threads: options.Threads = 1,
) -> None:
    """Decompose every direction in the decoder of an SAE, and see how well the SAE keeps it."""
    options.use_device(threads)
    from saeflow.analyses.decomposition.decomposing import Sources, decompose_in, write_tables
    from saeflow.corpora.io import load_blocks
    from saeflow.models.language_model import load_tokenizer

    chosen = options.parsed(PursuitCurves, settings)
    asked = options.parsed(DecomposedDirections, directions)
    sources = Sources(
        options.open_sae(sae),
        hook,
        options.open_store(manifest),
        load_blocks(corpus),
        load_tokenizer(model),
    )
    tables = decompose_in(sources, asked, chosen, activations, vector or [], _files(file), seed)
    write_tables(output, tables)


def _files(named: list[str] | None) -> dict[str, Path]:
    """Files by name.

    Raises:
        SaeflowError: one has no name.
    """
    pairs = [each.partition("=") for each in named or ()]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise SaeflowError(f"'{wrong[0]}' is no NAME=FILE")
    return {name: Path(path) for name, _, path in pairs}
