"""``saeflow examples``: where latents fire."""

from __future__ import annotations

import typer

from saeflow import options
from saeflow.analyses.examples.settings import Examples

app = typer.Typer(help="Find out where latents fire.", no_args_is_help=True)


@app.callback()
def stage() -> None:
    """Find out where latents fire, from the cache of activations."""


@app.command()
def find(
    manifest: options.Manifest,
    sae: options.SAEFolder,
    model: options.ModelFolder,
    corpus: options.Corpus,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    threads: options.Threads = 1,
) -> None:
    """Write each latent's strongest contexts, a sample over its range, its histogram, tokens and
    companions."""
    options.use_device(threads)
    from saeflow.analyses.examples.io import write_examples
    from saeflow.config.model_files import vocabulary_in
    from saeflow.models.language_model import checkpoint_of, load_tokenizer
    from saeflow.models.vocabulary import vocabulary

    chosen = options.parsed(Examples, settings)
    d_vocab = vocabulary_in(checkpoint_of(model))
    model_vocabulary = vocabulary(load_tokenizer(model), d_vocab)
    beats = (options.progress(f"examples, {what}") for what in ("rows", "companions of latents"))
    write_examples(
        output,
        options.open_store(manifest),
        options.open_sae(sae),
        corpus,
        model_vocabulary,
        chosen,
        seed,
        *beats,
    )
