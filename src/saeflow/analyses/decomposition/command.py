"""``saeflow decomposition``: directions as sums of few decoder rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.analyses.decomposition.settings import (
    DecomposedDirections,
    PursuitCurves,
    SumEdits,
)
from saeflow.analyses.directions.command import (
    HowShown,
    Measures,
    PromptsFile,
    Sources,
    asked_prompts,
    trying,
)
from saeflow.analyses.directions.settings import EditMeasures

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
    rows, described = read_contrasts(lm, hook, asked, options.named_files(texts), seed)
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
    named: Annotated[
        str, typer.Option("--directions", help="Which directions, as JSON, or @FILE.")
    ],
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    left_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", help="A word of whose blocks the SAE saw none."),
    ] = None,
    measured: Annotated[
        list[Path] | None, typer.Option(help="direction.safetensors of directions.")
    ] = None,
    vector: Annotated[
        list[Path] | None, typer.Option(help="vector.safetensors of steering.")
    ] = None,
    file: Named = None,
    threads: options.Threads = 1,
) -> None:
    """Decompose every direction in the decoder of an SAE, and see how well the SAE keeps it."""
    options.use_device(threads)
    from saeflow.analyses.decomposition.decomposing import (
        Files,
        Material,
        decompose_in,
        directions_of,
        write_tables,
    )
    from saeflow.corpora.io import load_blocks
    from saeflow.corpora.words import occurrences
    from saeflow.models.language_model import load_tokenizer

    chosen = options.parsed(PursuitCurves, settings)
    asked = options.parsed(DecomposedDirections, named)
    blocks, tokenizer = load_blocks(corpus), load_tokenizer(model)
    if left_out:
        seen = occurrences(left_out, blocks, tokenizer.decode) == 0
        blocks = blocks.part(seen)
    store = options.open_store(manifest)
    looked_at = Material(options.open_sae(sae), hook, store, blocks, tokenizer)
    files = Files(measured or (), vector or (), options.named_files(file))
    directions = directions_of(asked, activations, files, hook, looked_at.sae.d_out)
    write_tables(output, decompose_in(looked_at, directions, chosen, seed))


@app.command()
def pool(
    pools: Annotated[str, typer.Option(help="The SAEs of each training by its name, as JSON.")],
    settings: options.Settings,
    output: Annotated[Path, typer.Option(help="Folder of the tables, by SAE and of all.")],
) -> None:
    """Tell what SAEs keep of directions by training, with intervals over seeds."""
    from saeflow.analyses.decomposition import pooling
    from saeflow.analyses.decomposition.curves import CURVES
    from saeflow.analyses.decomposition.fidelity import FIDELITY
    from saeflow.tables import read_table, write_table

    level = options.parsed(PursuitCurves, settings).level
    trainings = options.parsed_facts(pools, "--pools")
    names = [name for own in trainings.values() for name in own]
    kept = {name: read_table(output / name / "fidelity.parquet", FIDELITY) for name in names}
    curves = {name: read_table(output / name / "curves.parquet", CURVES) for name in names}
    tables = {
        "fidelity": (pooling.pooled(kept, trainings, level), pooling.POOLED),
        "differences": (pooling.differences(kept, trainings, level), pooling.DIFFERENCES),
        "curves": (pooling.along(curves, trainings, level), pooling.ALONG),
    }
    for name, (table, schema) in tables.items():
        write_table(output / f"{name}.parquet", table, schema)


@app.command()
def edit(
    sae: options.SAEFolder,
    model: options.ModelFolder,
    direction: Annotated[Path, typer.Option(help="direction.safetensors of directions.")],
    hook: options.HookName,
    corpus: options.Corpus,
    settings: options.Settings,
    asked: Annotated[str, typer.Option(help="The section `directions.prompts`, as JSON.")],
    sources: Sources,
    behaviour: HowShown,
    measures: Measures,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Table of what the edits do.")],
    prompts: PromptsFile = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Take sums of few latents out in place of a direction, and add them, and measure."""
    options.use_device(threads)
    from saeflow.analyses.decomposition.edits import EDITS, edit_table, trials
    from saeflow.analyses.directions.placing import placed
    from saeflow.pursuits.dictionary import Dictionary
    from saeflow.tables import write_table

    chosen, own = options.parsed(SumEdits, settings), options.parsed(EditMeasures, measures)
    section, named = asked_prompts(asked, sources, prompts, seed)
    tried = trials(
        placed(direction, int(hook.split(".")[1])),
        Dictionary(options.open_sae(sae).W_dec),
        chosen,
        seed,
    )
    attempt = trying(options.open_model(model, dtype), section, named, behaviour, own, corpus)
    measured = attempt(tried.trials, options.progress("try sums of latents"))
    write_table(output, edit_table(measured, tried.kinds, own, seed), EDITS)
