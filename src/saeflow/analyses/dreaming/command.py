"""``saeflow dreaming``: prompts that move a latent most."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.analyses.dreaming.settings import Dreaming

app = typer.Typer(help="Dream of latents.", no_args_is_help=True)


@app.callback()
def stage() -> None:
    """Dream of latents: prompts that move them most, and are likely text at once."""


@app.command()
def dream(
    model: options.ModelFolder,
    hook: options.HookName,
    settings: options.Settings,
    seed: options.Seed,
    name: Annotated[str, typer.Option(help="Of the SAE; any name where none is given.")],
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    sae: Annotated[Path | None, typer.Option(help="Folder of the SAE.")] = None,
    examples: Annotated[Path | None, typer.Option(help="Where its latents fire.")] = None,
    direction: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE with one vector; several times.")
    ] = None,
    parts: options.PartsFolder = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Dream of the latents of an SAE, or, without one, of directions and logits."""
    options.use_device(threads)
    from saeflow.analyses.dreaming.contexts import ContextWindows
    from saeflow.analyses.dreaming.dreams import CODE, SCHEMAS, Workshop
    from saeflow.analyses.dreaming.dreams import dream as dream_of
    from saeflow.analyses.dreaming.targets import of_an_sae, without_sae
    from saeflow.parts import Parts, digest
    from saeflow.tables import write_table

    asked = options.parsed(Dreaming, settings)
    lm = options.open_model(model, dtype)
    windows = ContextWindows.read(examples, lm.bos_id)
    if sae:
        groups = of_an_sae(options.open_sae(sae), name, hook, asked, windows, seed)
    else:
        files = {each.partition("=")[0]: Path(each.partition("=")[2]) for each in direction or ()}
        groups = without_sae(lm, hook, asked, files)
    # a method that is added makes none of the others anew
    search = asked.search.model_dump(exclude={"methods"})
    began_with = examples / "contexts.parquet" if examples else None
    vectors = [Path(each.partition("=")[2]) for each in direction or ()]
    made_with = (model, sae, hook, vectors, began_with, asked.objective, asked.frame, search)
    work = Workshop(
        lm,
        asked,
        seed,
        windows,
        Parts(parts, "searches", CODE, *made_with, seed, dtype),
        parts / "search.pt" if parts else None,
        digest(*made_with, seed, dtype),
    )
    tables = dream_of(work, groups, options.progress("dream"))
    for table, schema in SCHEMAS.items():
        write_table(output / f"{table}.parquet", tables[table], schema)
