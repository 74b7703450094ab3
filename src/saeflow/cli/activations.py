"""``saeflow activations``: the cache of activations, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config, options
from saeflow.counting import counted

app = typer.Typer(help="Cache activations.", no_args_is_help=True)


@app.command()
def cache(
    outputs: Annotated[
        list[Path], typer.Argument(help="The shard's file at every hook, in the hooks' order.")
    ],
    model: options.ModelFolder,
    corpus: options.Corpus,
    hooks: options.HookNames,
    settings: options.Settings,
    shard: Annotated[int, typer.Option(help="Which shard.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the model by whose tokenizer the corpus was made, if it is another."
        ),
    ] = None,
    dtype: options.Dtype = "float32",
    threads: options.Threads = 1,
) -> None:
    """Write one shard per hook: the activations of a fixed number of token blocks, from the same
    forward passes."""
    options.use_device(threads)
    from saeflow.activations.capture import capture_rows
    from saeflow.activations.exclusion import excluded_tokens
    from saeflow.activations.io import write_shards
    from saeflow.activations.sources import TextSource
    from saeflow.corpora.io import load_blocks
    from saeflow.models.hooks import check_distinct
    from saeflow.models.language_model import check_same_tokens, load_tokenizer

    chosen = options.parsed(config.Activations, settings)
    first = shard * chosen.blocks_per_shard
    blocks = load_blocks(corpus, slice(first, first + chosen.blocks_per_shard))
    lm = options.open_model(model, dtype)
    check_distinct(lm, hooks)
    if tokenizer and tokenizer != model:
        check_same_tokens(
            lm.tokenizer, load_tokenizer(tokenizer), f"{model.name} and {tokenizer.name}"
        )
    rows = capture_rows(
        TextSource(lm, blocks.tokens), hooks, chosen, excluded_tokens(lm, chosen), first
    )
    write_shards(
        dict(zip(hooks, outputs, strict=True)), rows, chosen, {"model": model.name, "shard": shard}
    )


@app.command()
def gather(
    shards: Annotated[list[Path], typer.Argument(help="Every shard, in order.")],
    output: options.Output,
) -> None:
    """Write manifest.json: checksums, counts, mean and mean norm of all shards."""
    from saeflow.activations.io import write_manifest

    write_manifest(output.parent, shards)


@app.command()
def verify(
    manifests: Annotated[
        list[Path], typer.Argument(help="manifest.json of every cache to look at.")
    ],
) -> None:
    """Compare all shards with their checksums; what is damaged is removed, so that the workflow
    makes it again."""
    for manifest in manifests:
        store = options.open_store(manifest)
        store.verify()
        options.say(
            f"{manifest.parent}: {counted(len(store.shards), 'shard')} with "
            f"{counted(store.rows, 'row')}, as written"
        )
