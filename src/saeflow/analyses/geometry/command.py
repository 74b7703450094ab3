"""``saeflow geometry``: circles of words and lines of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.analyses.geometry.settings import Latents, Nulls, Points

app = typer.Typer(help="Find circles and lines.", no_args_is_help=True)
Texts = Annotated[
    list[str] | None, typer.Option(help="NAME=FILE of a line; may be given several times.")
]
Activations = Annotated[Path, typer.Option(help="activations.safetensors of words and texts.")]
SAEs = Annotated[
    list[Path] | None, typer.Option("--sae", help="Folder of an SAE; in the order of --place.")
]
Places = Annotated[
    list[str] | None, typer.Option("--place", help="NAME=HOOK: where an SAE reads; once for each.")
]
Held = Annotated[str, typer.Option("--nulls", help="The section `geometry.nulls`, as JSON.")]


@app.callback()
def stage() -> None:
    """Find circles of words and lines of numbers, and move the model along them."""


@app.command()
def read(
    model: options.ModelFolder,
    hook: options.HookNames,
    settings: options.Settings,
    seed: options.Seed,
    output: Activations,
    texts: Texts = None,
    saes: SAEs = None,
    places: Places = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Read words in their templates, and texts with numbers."""
    options.use_device(threads)
    from saeflow.analyses.geometry.reading import read_all, save_activations

    asked = options.parsed(Points, settings)
    lm = options.open_model(model, dtype)
    files = options.named_files(texts)
    named = options.named_values(places)
    opened = {
        name: (at, options.open_sae(folder))
        for (name, at), folder in zip(named.items(), saes or (), strict=True)
    }
    progress = options.progress("geometry: texts read")
    save_activations(output, read_all(lm, asked, hook, files, seed, opened, progress))


@app.command()
def fit(
    activations: Activations,
    hook: options.HookNames,
    settings: options.Settings,
    nulls: Held,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    threads: options.Threads = 1,
) -> None:
    """Fit circles and lines, and hold them against their nulls."""
    options.use_threads(threads)
    from saeflow.analyses.geometry.fitting import SCHEMAS, fit_all
    from saeflow.analyses.geometry.reading import Read
    from saeflow.tables import write_table

    asked, held = options.parsed(Points, settings), options.parsed(Nulls, nulls)
    progress = options.progress("geometry: circles and lines fitted")
    tables = fit_all(Read(activations), asked, held, hook, seed, progress)
    for name, table in tables.items():
        write_table(output / f"{name}.parquet", table, SCHEMAS[name])


@app.command()
def latents(
    activations: Activations,
    settings: options.Settings,
    asked: Annotated[str, typer.Option(help="The section `geometry.latents`, as JSON.")],
    nulls: Held,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    saes: SAEs = None,
    places: Places = None,
    examples: Annotated[
        list[Path] | None,
        typer.Option(help="Folder that tells where an SAE's latents fire; in the same order."),
    ] = None,
    sets: Annotated[
        list[Path] | None, typer.Option("--token-sets", help="A YAML file with token sets.")
    ] = None,
    threads: options.Threads = 1,
) -> None:
    """Find latents that stand for words, and see where they lie and how they split."""
    options.use_threads(threads)
    from saeflow.analyses.geometry.latent_tables import SCHEMAS, Asked, OpenedSAE, latent_tables
    from saeflow.analyses.geometry.reading import Read
    from saeflow.config import read_token_sets
    from saeflow.tables import write_table

    points, wanted = options.parsed(Points, settings), options.parsed(Latents, asked)
    described = {name: of for file in sets or () for name, of in read_token_sets(file).items()}
    named = options.named_values(places)
    opened = [
        OpenedSAE(name, at, options.open_sae(folder), fires)
        for (name, at), folder, fires in zip(named.items(), saes or (), examples or (), strict=True)
    ]
    whole = Asked(points, wanted, options.parsed(Nulls, nulls), described, seed)
    progress = options.progress("geometry: SAEs looked at")
    for name, table in latent_tables(Read(activations), opened, whole, progress).items():
        write_table(output / f"{name}.parquet", table, SCHEMAS[name])


@app.command()
def move(
    model: options.ModelFolder,
    activations: Activations,
    hook: options.HookNames,
    settings: options.Settings,
    nulls: Held,
    seed: options.Seed,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")],
    texts: Texts = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Turn words round their circle, move texts along their line, and see what the model says."""
    options.use_device(threads)
    from saeflow.analyses.geometry.moving import CAUSES, SHIFTS, TURNS, move_all
    from saeflow.analyses.geometry.reading import Read
    from saeflow.tables import write_table

    asked, held = options.parsed(Points, settings), options.parsed(Nulls, nulls)
    lm = options.open_model(model, dtype)
    progress = options.progress("geometry: circles and lines moved along")
    files = options.named_files(texts)
    moved = move_all(lm, Read(activations), asked, held, hook, files, seed, progress)
    for name, schema in (("turns", TURNS), ("shifts", SHIFTS), ("causes", CAUSES)):
        write_table(output / f"{name}.parquet", getattr(moved, name), schema)
