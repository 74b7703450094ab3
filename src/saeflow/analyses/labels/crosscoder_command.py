"""``saeflow labels from-decoders`` and ``gather-of-models``: words for latents of crosscoders, from
what `diffing` tells of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import options
from saeflow.analyses.diffing.settings import Classes
from saeflow.analyses.labels.settings import Passages, TokenWording


def from_decoders(
    latents: Annotated[Path, typer.Option(help="latents.parquet of diffing.")],
    decoders: Annotated[Path, typer.Option(help="decoders.parquet of diffing.")],
    contexts: Annotated[Path, typer.Option(help="contexts.parquet of diffing.")],
    settings: options.Settings,
    output: options.Output,
    chosen: Annotated[Path, typer.Option(help="Which latents get labels.")],
) -> None:
    """Label the latents that diffing shows by the tokens that they promote and fire on."""
    options.set_pools(1)
    from saeflow.analyses.diffing.classes import LATENTS
    from saeflow.analyses.diffing.contexts import CONTEXTS, DECODERS
    from saeflow.analyses.labels.choosing import CHOSEN
    from saeflow.analyses.labels.of_crosscoders import decoder_labels, shown_latents
    from saeflow.analyses.labels.wording import LABELS
    from saeflow.tables import read_table, write_table

    raised = read_table(decoders, DECODERS)
    shown = shown_latents(raised, read_table(latents, LATENTS))
    asked = options.parsed(TokenWording, settings)
    write_table(chosen, shown, CHOSEN)
    labels = decoder_labels(shown, raised, read_table(contexts, CONTEXTS), asked)
    write_table(output, labels, LABELS)


def gather_of_models(
    latents: Annotated[Path, typer.Option(help="Which latents get labels.")],
    model: Annotated[
        list[Path], typer.Option("--model", help="Folder of every model that is read.")
    ],
    sae: options.SAEFolder,
    sae_name: Annotated[str, typer.Option(help="The SAE's name.")],
    base: Annotated[str, typer.Option(help="Name of the model that others are compared with.")],
    corpus: options.Corpus,
    settings: options.Settings,
    classes: Annotated[
        str, typer.Option("--classes", help="The section `diffing.classes`, as JSON.")
    ],
    activations: Annotated[
        str, typer.Option("--activations", help="The section `activations`, as JSON.")
    ],
    seed: options.Seed,
    output: options.Output,
    cached: Annotated[
        list[str],
        typer.Option(help="Hook of the study's caches, as model:hook, whose norms count."),
    ] = [],  # noqa: B006 - typer's
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Draw the passages that explain latents, and those that labels are scored on, from the text
    that diffing reads."""
    options.use_device(threads)
    from saeflow.analyses.diffing.opening import open_crosscoder
    from saeflow.analyses.labels.choosing import CHOSEN
    from saeflow.analyses.labels.of_crosscoders import read_firings
    from saeflow.analyses.labels.passages import PASSAGES, gather
    from saeflow.corpora.io import load_blocks
    from saeflow.tables import read_table, write_table

    asked, read = options.parsed(Passages, settings), options.parsed(Classes, classes)
    chosen = read_table(latents, CHOSEN)["latent"].to_list()
    tokens = load_blocks(corpus).tokens[: read.blocks]
    crosscoder, text, _ = open_crosscoder(model, sae, base, tokens, activations, cached, dtype)
    beat = options.progress("read latents, blocks")
    cached_firings = read_firings(crosscoder, text, chosen, asked.window, beat)
    write_table(output, gather(cached_firings, chosen, tokens, asked, sae_name, seed), PASSAGES)
